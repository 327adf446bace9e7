"""Records for boards: copies of a real one under other names, with joules,
with other numbers, hostile ones.
"""

import random

import msgspec
from conftest import ROOT

from edgecap.analysis.score import score
from edgecap.record import Absent, Energy, Estimate, Failure, Window
from edgecap.report.board.entries import FIGURES, entries
from edgecap.storage.collection import LoadedRecord
from edgecap.storage.records import load, save

BASE = load(ROOT / "tests" / "data" / "record-5.json")
REFERENCE = [load(p) for p in sorted((ROOT / "profiles" / "reference").glob("*--20261126T071*"))]
HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
BIDI = "safe\u202egnp.exe\u2066"
replace = msgspec.structs.replace


def energy(joules=20.0, provenance="counter"):
    """Windows of two seconds in which 500 tokens were decoded."""
    return Energy(
        counter="rapl",
        domains=("package-0",),
        provenance=provenance,
        tick_s=0.001,
        resolution_j=6e-5,
        idle_w=(5.0, 5.0),
        prefill=(Window(joules=joules, seconds=2.0, tokens=1000),) * 3,
        decode=(Window(joules=joules, seconds=2.0, tokens=500),) * 3,
    )


def with_joules(record, joules=20.0, provenance="counter"):
    """The record as a machine with a counter would have left it, scored anew."""

    def cell(found):
        if isinstance(found.outcome, Failure):
            return found
        outcome = replace(found.outcome, energy=energy(joules, provenance))
        return replace(
            found, outcome=outcome, score=score(outcome, record.flops, record.corpus.bias_bits)
        )

    return replace(record, cells=tuple(cell(c) for c in record.cells))


def named(
    model="a-model", device="a-device", created="2026-11-24T10:00:00Z", record=BASE, **changes
):
    """A copy of another model on another processor."""
    return replace(
        record,
        source=replace(record.source, name=model),
        machine=replace(record.machine, cpu=device),
        created_utc=created,
        **changes,
    )


def as_published(record):
    """The record as if the paper's text had been scored by the paper's protocol."""

    def cell(found):
        if isinstance(found.outcome, Failure):
            return found
        text = replace(found.outcome.compression, protocol="paper", context=1024)
        return replace(found, outcome=replace(found.outcome, compression=text))

    return replace(
        record,
        spec=replace(record.spec, protocol="paper"),
        corpus=replace(record.corpus, name="mixed_text", bias_bits=-24.0),
        cells=tuple(cell(c) for c in record.cells),
    )


def saved(folder, *records):
    """The folder with these records, each in a file of its own."""
    for number, record in enumerate(records):
        save(record, folder / f"record-{number}.json")
    return folder


def many(cells, folder):
    """Entries of `cells` cells as if read from records of four cells each,
    with numbers that scatter.
    """
    dice, kept = random.Random(1), []
    pattern = entries(with_joules(BASE))[0]
    for number in range(cells // 4):
        who = {
            "model": f"org-{number % 17}/model-{number % 61}",
            "hardware": pattern.hardware._replace(kind=f"device-{number % 23}"),
            "created_utc": f"2026-{1 + number % 12:02}-{1 + number % 28:02}"
            f"T{number % 24:02}:00:00Z",
            "text": pattern.text
            if number % 5
            else pattern.text._replace(corpus="other", sha256="f" * 64),
        }
        four = tuple(
            pattern._replace(precision=precision, figures=_scattered(pattern.figures, dice), **who)
            for precision in ("fp32", "fp16", "int8", "int4")
        )
        kept.append(
            LoadedRecord(folder / f"model-{number % 61}--device-{number % 23}--{number}.json", four)
        )
    return kept


def _scattered(figures, dice):
    speed = dice.lognormvariate(0, 1)

    def moved(found, metric):
        if isinstance(found, Absent):
            return found
        value = found.value * speed ** (1 if metric.unit else 0.1) * dice.uniform(0.8, 1.2)
        return (
            Estimate(value=value, low=value * 0.97, high=value * 1.04)
            if metric.unit == ""
            else replace(found, value=value)
        )

    return tuple(moved(f, m) for f, m in zip(figures, FIGURES, strict=True))
