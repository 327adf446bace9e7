"""Sweeps into a folder with a stand-in for the child, for tests and the benchmark."""

import json
import os
from pathlib import Path

import msgspec
from conftest import REFERENCE
from fakes import corpus_of, scripted

from edgecap.storage.files import Paths
from edgecap.storage.records import load, save
from edgecap.sweep import runner as sweeping
from edgecap.sweep.plan import read_plan, unfold
from edgecap.sweep.runner import LocalBackend, SweepOptions
from edgecap.sweep.state import Finished, _row

HERE = Path(__file__).parent
TOOLS = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


def as_scripted(step, watch, timeout_s):
    return scripted(corpus_of(step))(step, watch, timeout_s)


def planned(folder, cells=6, **more):
    """Cells over a text of four documents: two precisions, and contexts."""
    text = folder / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"text": f"{i} words and words " * 9}) + "\n" for i in range(4))
    )
    asked = {"models": str(REFERENCE), "precisions": ["fp32", "int8"], "corpora": str(text)}
    contexts = list(range(16, 16 + cells // 2))
    return unfold({**asked, "contexts": contexts, **more}, folder, folder / "cache")


def swept(
    cells,
    folder,
    run=as_scripted,
    asked=SweepOptions(resume=True),  # noqa: B008
    watch=lambda news: None,
    **more,
):
    """The rows by key of a sweep into `folder`/out."""
    crew = LocalBackend(Paths(folder / "cache", folder), run, **more)
    return {row.key: row for row in sweeping.sweep(cells, folder / "out", crew, asked, watch)}


def finished_sweep(folder, count):
    """Writes `folder`/plan.toml and, in `folder`/out, a copy of one record for each cell of it."""
    contexts = list(range(2, 2 + count // 2))
    (folder / "plan.toml").write_text(
        f"models = {str(REFERENCE)!r}\nprecisions = ['fp32', 'int8']\ncontexts = {contexts}\n"
    )
    cells = read_plan(folder / "plan.toml", folder / "cache")
    (folder / "one").mkdir()
    one = planned(folder / "one", 2)[0]
    swept([one], folder / "one")
    record = load(folder / "one" / "out" / one.file_name)
    (folder / "out").mkdir()
    path = folder / "out" / cells[0].file_name
    save(record, path)
    row, data = _row(Finished(cell=cells[0], outcome=record, seconds=2.0), path), path.read_bytes()
    with (folder / "out" / "journal.jsonl").open("wb") as journal:
        for number, cell in enumerate(cells):
            (folder / "out" / cell.file_name).write_bytes(data)
            line = msgspec.structs.replace(row, key=cell.key, record=cell.file_name)
            journal.write(msgspec.json.encode((number, line)) + b"\n")
    return cells
