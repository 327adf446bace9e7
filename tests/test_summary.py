"""The output of `profile` and `show` without --details: short, and enough to decide."""

import re
from itertools import pairwise

import click
import msgspec
import pytest
from click.testing import CliRunner
from conftest import ROOT
from msgspec.structs import replace
from samples import ENERGY, latency_with

from edgecap.analysis.warnings.quality import DECODED, NOT_SCORED
from edgecap.cli.commands import cli
from edgecap.record import Caution, Failure, Gpu, Measurement, SweepPoint, Throughput
from edgecap.report.page.report import describe
from edgecap.report.terminal.decisive import DECISIVE
from edgecap.report.terminal.details import details
from edgecap.report.terminal.summary import summary
from edgecap.storage.records import load

DATA = ROOT / "tests" / "data"
RECORD = load(DATA / "record-5.json")
VARIANTS = load(ROOT / "tests" / "data" / "many-variants.json")
SOURCES = [
    *(ROOT / "edgecap" / "analysis").rglob("*.py"),
    *(ROOT / "edgecap" / "pipeline").rglob("*.py"),
]
LONG = "something about this cell that takes a great many words to say, more than fit in two lines"


def lines_of(record, width=80):
    return click.unstyle(summary(record, width)).splitlines()


@pytest.mark.parametrize(
    ("quick", "documents", "pieces", "words"),
    [
        (False, 1200, 0, "1,200 documents"),
        (False, 1, 0, "1 document"),
        (True, 6, 0, "6 documents (--quick)"),  # a short text stays whole
        (True, 24, 20, "24 pieces (--quick)"),
    ],
)
def test_a_text_is_of_documents_or_of_pieces(quick, documents, pieces, words):
    corpus = replace(RECORD.corpus, documents=documents, pieces=pieces)
    record = replace(RECORD, corpus=corpus, spec=replace(RECORD.spec, quick=quick))
    assert f": {words}, " in click.unstyle(details(record, 200))
    assert f": {words}, " in dict(describe(record))["Text"]


def with_cautions(record, codes):
    """Every caution in every cell, each cell with words of its own."""
    cells = tuple(
        replace(
            cell,
            cautions=tuple(
                Caution(code=code, message=f"{cell.precision}: {LONG} {place}", advice=LONG)
                for code in codes
            ),
        )
        for place, cell in enumerate(record.cells)
    )
    return replace(record, cells=cells)


def all_codes():
    text = "".join(path.read_text() for path in SOURCES)
    return {
        *re.findall(r'code="([a-z0-9-]+)"', text),
        "latency-failed",
        "memory-failed",
        DECODED,
        NOT_SCORED,
    }


def with_energy(record, provenance="counter"):
    cells = tuple(
        replace(cell, outcome=replace(cell.outcome, energy=replace(ENERGY, provenance=provenance)))
        if isinstance(cell.outcome, Measurement)
        else cell
        for cell in record.cells
    )
    return replace(record, cells=cells)


def four_of(record):
    return replace(record, cells=record.cells[:4])


def table_of(lines):
    """The lines of the measured values, header included: behind the verdict and the heading."""
    start = next(n for n, line in enumerate(lines) if line.startswith("text ")) + 1
    start += lines[start] == ""
    return lines[start : lines.index("", start)]


def test_the_decisive_cautions_exist():
    assert DECISIVE.keys() <= all_codes()
    assert len(all_codes()) > len(DECISIVE)


@pytest.mark.parametrize("record", [RECORD, four_of(VARIANTS)], ids=["failed", "measured"])
@pytest.mark.parametrize("energy", [False, True])
def test_four_variants_with_every_caution_take_at_most_25_lines_of_80_columns(record, energy):
    whole = with_cautions(with_energy(record) if energy else record, sorted(all_codes()))
    lines = lines_of(replace(whole, complete=False))
    assert len(lines) <= 25 - 2  # the command and the line that names the record's file
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("incomplete") for line in lines)
    hidden = re.search(
        r"^--details adds (\d+) more such cautions?, (\d+) other cautions", lines[-1]
    )
    shown = sum(line.startswith("caution: ") for line in lines)
    alike = len(DECISIVE) - len(set(DECISIVE.values()))  # joined into one
    assert shown + int(hidden[1]) + (record is RECORD) >= len(DECISIVE) - alike
    assert int(hidden[2]) == len(all_codes()) - len(DECISIVE)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_many_variants_leave_little_room_for_notes(width):
    whole = with_cautions(VARIANTS, sorted(all_codes()))
    assert len(whole.cells) == 12
    assert len(lines_of(whole, width)) <= 25 - 1


def test_cautions_with_the_same_words_are_one():
    text = "\n".join(lines_of(replace(VARIANTS, cells=VARIANTS.cells[:6])))
    assert "caution: fp16, bf16: emulated on this processor" in text


def test_a_far_variant_keeps_its_advice_where_words_are_short():
    advice = {"int4b64": "use int4", "int4b128": "use int4", "int8d": "use int8w: 0.008 bits, 2 MB"}
    cells = tuple(
        replace(cell, cautions=(Caution(code="divergent", message=LONG * 3, advice=advice[name]),))
        if (name := cell.precision) in advice
        else replace(cell, cautions=())
        for cell in VARIANTS.cells[5:]
    )
    text = " ".join(" ".join(lines_of(replace(VARIANTS, cells=cells))).split())
    assert "int4b64, int4b128: predictions are far from fp32; use int4" in text
    assert "int8d: predictions are far from fp32; use int8w: 0.008 bits, 2 MB" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("number", [1, 2, 4, 5, 8, 12])
def test_nothing_is_wider_than_the_terminal(width, number):
    record = replace(VARIANTS, cells=VARIANTS.cells[:number])
    named = replace(record.source, name="organisation/a-model-with-a-name-that-never-ends-" * 3)
    corpus = replace(record.corpus, name="hf:organisation/data-set:folder/file.jsonl" * 2)
    for changed in (record, replace(with_energy(record), source=named, corpus=corpus)):
        lines = lines_of(changed, width)
        assert max(map(len, lines)) <= width
        assert len(lines) <= 22 + max(0, number - 4) or width < 80
        for cell in record.cells:
            assert any(line.split(" ")[0] == cell.precision for line in table_of(lines))


def test_every_value_of_the_table_is_among_the_details_of_all_records():
    for path in [*DATA.glob("record-*.json"), *(ROOT / "profiles").rglob("*.json")]:
        record = load(path)
        known = click.unstyle(details(record, 80))
        values = re.findall(r"\d[\d.,]*(?: [a-zµA-Z]+)?", "\n".join(table_of(lines_of(record))[1:]))
        assert values
        for value in values:
            assert value in known, (path.name, value)


def test_columns_are_dropped_rather_than_wrapped():
    single = replace(VARIANTS, cells=VARIANTS.cells[:2])
    wide = table_of(lines_of(single, 100))
    assert "tokens/s" in wide[0] and "KL bits" in wide[0]
    narrow = table_of(lines_of(with_energy(single), 60))
    assert "tokens/s" not in narrow[0] and "J/token" in narrow[0]
    assert "bits/byte" in narrow[0] and "decode" in narrow[0]


def test_what_the_decision_has_no_room_for_is_among_the_measured_values():
    decided = with_energy(load(DATA / "record-8.json"))
    for width in (60, 72, 80, 100, 120):
        lines = lines_of(decided, width)
        header, values = next(x for x in lines if "  worth  " in x), table_of(lines)[0]
        for name in ("J/token", "peak", "file"):
            assert (name in header) != (name in values), (width, name)


def test_joules_that_are_not_counted_are_marked():
    assumed = with_energy(RECORD, "assumed")
    assert "J/token assumed" in table_of(lines_of(assumed, 100))[0]
    one = replace(RECORD, cells=RECORD.cells[:2])
    mixed = replace(assumed, cells=(assumed.cells[0], RECORD.cells[1]))
    header, first, second = table_of(lines_of(mixed, 100))[:3]
    assert "J/token" in header and "mJ assumed" in first and second.endswith("-")
    sampled = lines_of(with_energy(one, "sampled"), 120)
    assert sum("mJ sampled" in line for line in sampled) == 2


def test_a_minor_caution_is_only_counted():
    minor = with_cautions(RECORD, ["few-documents"])
    assert not any(line.startswith("caution: fp") for line in lines_of(minor))
    assert lines_of(minor)[-1].startswith("--details adds 1 caution, ")


def test_short_advice_on_rounds_is_that_of_the_record():
    advice = "leave out --quick, or raise --limit"
    quick = Caution(code="few-rounds", message="too short " * 40, advice=advice)
    cell = replace(RECORD.cells[0], cautions=(quick,))
    lines = lines_of(replace(RECORD, cells=(cell,)), 80)
    assert advice in " ".join(lines)


def test_the_gravest_comes_first():
    codes = ["noisy", "divergent", "fallback"]
    lines = lines_of(with_cautions(replace(RECORD, cells=RECORD.cells[:2]), codes))
    places = [
        next(n for n, line in enumerate(lines) if DECISIVE[code].message in line)
        for code in ("divergent", "fallback", "noisy")
    ]
    assert all(a < b for a, b in pairwise(places))


def test_the_same_failure_of_several_cells_is_one_line():
    failure = Failure(stage="export", error="Killed", message="ended by\x1b[2J SIGKILL")
    cells = tuple(replace(cell, outcome=failure) for cell in RECORD.cells)
    text = "\n".join(lines_of(replace(RECORD, cells=cells)))
    assert text.count("SIGKILL") == 1
    assert "fp32 on cpu, fp16 on cpu, int8d on cpu, int4b32 on cpu" in text
    assert "\x1b" not in text


def test_a_cell_that_was_left_out_did_not_fail():
    left_out = Failure(stage="advice", error="fp16-emulated", message="left out: no fp16; use int8")
    cells = tuple(
        replace(cell, outcome=left_out) if cell.precision == "fp16" else cell
        for cell in RECORD.cells
    )
    lines = lines_of(replace(RECORD, cells=cells))
    assert "left out: fp16 on cpu, no fp16; use int8" in lines
    assert any(re.match(r"fp16 +left out", line) for line in lines)


def test_what_was_asked_for_is_shown():
    point = Throughput(
        batch=4,
        streams=2,
        prefill_tokens=100,
        context=50.0,
        steps=10,
        prefill_s=(2.0,),
        decode_s=(0.5,),
        step_s=(0.05,),
    )
    sweep = (SweepPoint(context=333, prefill_s=(1.0,), decode_s=(0.1,)),)
    cell = latency_with(throughput=(point,), sweep=sweep)
    record = replace(RECORD, cells=(cell,))
    plain, spec = lines_of(record), RECORD.spec
    assert not any(line.startswith("333") for line in plain)
    assert "contexts" in plain[-1] and "throughput" in plain[-1]
    asked = lines_of(replace(record, spec=replace(spec, context_sweep=(333,), batches=(4,))))
    assert any(re.match(r"333 +1 s +100 ms", line) for line in asked)
    assert any(re.search(r"4 +2 +400 +160 +50 ms", line) for line in asked)
    assert "contexts" not in asked[-1] and "throughput" not in asked[-1]


def test_the_board_is_named_where_a_cell_ran_on_it():
    gpu = Gpu(name="NVIDIA H100 80GB HBM3", driver="1", memory_bytes=1, users=0)
    machine = replace(
        RECORD.machine, gpus=(gpu,), cpu="Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz"
    )
    record = replace(RECORD, machine=machine)
    assert not any("H100" in line for line in lines_of(record))
    cells = tuple(replace(cell, provider="cuda") for cell in RECORD.cells)
    line = next(x for x in lines_of(replace(record, cells=cells)) if x.startswith("on "))
    assert line.startswith("on Intel Xeon Platinum") and "H100" in line


def test_show_takes_details():
    path = str(DATA / "record-5.json")
    short = CliRunner().invoke(cli, ["show", path]).output
    long = CliRunner().invoke(cli, ["show", path, "--details"]).output
    assert "Scores, with" not in short and "\nRoofline" not in short
    assert "Scores, with" in long and "\nRoofline" in long
    assert len(short.splitlines()) < 25 < len(long.splitlines())
    for command in ("show", "profile"):
        assert "--details" in CliRunner().invoke(cli, [command, "--help"]).output


def test_a_record_as_python_values_is_untouched_by_details():
    path = str(DATA / "record-5.json")
    plain, more = (
        CliRunner().invoke(cli, ["show", path, "--json", *option]).output
        for option in ((), ("--details",))
    )
    assert msgspec.json.decode(plain) == msgspec.json.decode(more)
