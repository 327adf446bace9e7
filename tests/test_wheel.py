"""The wheel: built, installed without extras where neither torch nor transformers is, and used."""

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile

import pytest
from conftest import REFERENCE, ROOT, VARIANTS
from exports import exported
from packaging.requirements import Requirement

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("*.whl"))


def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "edgecap/py.typed",
        "edgecap/data/edgecap-calibration.jsonl",
        "edgecap/data/edgecap-mixed.jsonl",
        "edgecap/data/models/edgecap-ref-xs/model.safetensors",
    ):
        assert name in names
    assert not [n for n in names if n.startswith(("tests", "scripts", "models", "profiles"))]
    assert wheel.stat().st_size < 10_000_000


def requirements(name, extras=()):
    """The installed distributions that a distribution needs on this machine, itself included."""
    wanted, seen = [(name, tuple(extras))], set()
    while wanted:
        current, with_extras = wanted.pop()
        if current in seen:
            continue
        seen.add(current)
        for text in importlib.metadata.requires(current) or []:
            need = Requirement(text)
            if need.marker is None or any(
                need.marker.evaluate({"extra": e}) for e in ("", *with_extras)
            ):
                wanted.append((re.sub(r"[-_.]+", "-", need.name).lower(), tuple(need.extras)))
    return seen


@pytest.fixture(scope="session")
def clean_python(wheel, tmp_path_factory):
    """A new environment with the wheel and what it requires,
    linked from this one: no network needed.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in requirements("edgecap") - {"edgecap"}:
        distribution = importlib.metadata.distribution(name)
        for top in {
            str(f).split("/")[0]
            for f in distribution.files or ()
            if not str(f).startswith(("..", "__pycache__"))
        }:
            target, origin = site / top, distribution.locate_file(top)
            if not target.exists() and os.path.exists(origin):
                target.symlink_to(origin)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / "bin" / "python"


def run(python, *words, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
    )


def test_profiles_an_exported_folder_without_torch(clean_python, cache, corpus_file, tmp_path):
    for absent in ("torch", "transformers", "optimum"):
        assert run(clean_python, "-c", f"import {absent}", cwd=tmp_path).returncode == 1
    folder = exported(REFERENCE, cache, VARIANTS)
    found = run(
        clean_python,
        "-m",
        "edgecap",
        "profile",
        "--model",
        folder,
        "--corpus",
        corpus_file,
        "--limit",
        "1",
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert "int4" in found.stdout
    assert len(list((tmp_path / "profiles").iterdir())) == 1


def test_the_default_model_says_which_extra_is_missing(clean_python, tmp_path):
    found = run(clean_python, "-m", "edgecap", "profile", cwd=tmp_path)
    assert found.returncode == 2
    assert "pip install 'edgecap[export]'" in found.stderr
    assert list(tmp_path.iterdir()) == []
