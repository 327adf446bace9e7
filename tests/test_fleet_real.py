"""Real models measured by real workers that have no exporter,
with the bits of one machine to the last.
"""

import os
from pathlib import Path

import pytest
from conftest import REFERENCE, SHARED
from exports import with_peaks
from fleets import RULES, TOOLS, Fleet, lines, scores

from edgecap.storage.files import Paths
from edgecap.storage.records import load
from edgecap.sweep import runner as sweeping
from edgecap.sweep.fleet import network
from edgecap.sweep.fleet.bundles import Bundles
from edgecap.sweep.fleet.connection import FleetConnection
from edgecap.sweep.fleet.dispatch import FleetBackend
from edgecap.sweep.plan import unfold
from edgecap.sweep.runner import LocalBackend

pytestmark = pytest.mark.fleet

NO_EXPORTER = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "optimum"):
            raise ImportError(f"{name} is not on this device")
sys.meta_path.insert(0, Nothing())
"""


def wanted(folder):
    """Two variants of a long text in three parts, and of another model a short one."""
    long, short = folder / "long.txt", folder / "short.txt"
    long.write_text("".join(f"Line {n} of a long text, as long as it is. " for n in range(120)))
    short.write_text("A short text. " * 30)
    options = {"limit_s": 0.1, "energy": "off", "context_sweep": []}
    asked = {
        "models": str(REFERENCE),
        "precisions": ["fp32", "int8"],
        "corpora": str(long),
        "contexts": 64,
        "shards": 3,
    }
    other = {
        "models": str(SHARED / "models" / "stories260K"),
        "precisions": ["int8"],
        "corpora": str(short),
        "shards": 1,
    }
    also = [other] if SHARED.is_dir() else []
    return unfold({**asked, "options": options, "also": also}, folder, folder / "cache")


def test_devices_without_an_exporter_find_the_bits_of_one_machine(tmp_path):
    pytest.importorskip("optimum")
    network.configure()
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(NO_EXPORTER)
    blocked = {"PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{TOOLS['PYTHONPATH']}"}
    cells, home = wanted(tmp_path), Paths(with_peaks(tmp_path / "cache"), tmp_path)
    fleet = Fleet(tmp_path / "devices")
    try:
        for name, more in (("sent", ()), ("shared", ("--shared", str(tmp_path / "handed")))):
            with_peaks(fleet.folder / name)
            fleet.worker(name, *more, env=blocked)
        for name in ("sent", "shared"):
            fleet.wait_for(name, "joined")
        bundles = Bundles(home, tmp_path / "handed")
        with FleetConnection(fleet.address, None) as line:
            rows = sweeping.sweep(
                cells, tmp_path / "fleet", FleetBackend(line, bundles, RULES._replace(wait_s=60.0))
            )
    finally:
        fleet.end()
    assert [row.failure for row in rows] == [None] * len(cells)
    sweeping.sweep(cells, tmp_path / "local", LocalBackend(home))
    assert scores(tmp_path / "fleet") == scores(tmp_path / "local")
    assert len(lines(tmp_path / "fleet")) == len(cells)
    assert list((tmp_path / "handed" / "blobs").iterdir())
    for cell in cells:
        found, here = (load(tmp_path / place / cell.file_name) for place in ("fleet", "local"))
        assert found.source == here.source or found.source.kind == "onnx"
        assert (found.source.name, found.source.weights_sha256) == (
            here.source.name,
            here.source.weights_sha256,
        )
        assert (
            found.cells[0].outcome.compression.bits_per_byte
            == here.cells[0].outcome.compression.bits_per_byte
        )
        assert found.source.architecture == here.source.architecture and found.flops == here.flops
        assert "torch" in here.machine.versions and Path(found.spec.model) == Path(here.spec.model)
