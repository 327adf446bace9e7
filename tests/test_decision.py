"""The table of the decision: its rows, in every form; and the sentence on many pairs."""

import re

import click
import pytest
from click.testing import CliRunner
from conftest import ROOT
from pages import MEASURED, RECORD, many, replace, two_machines, with_energy

from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.compare import compare
from edgecap.analysis.verdict import decide
from edgecap.cli.commands import cli
from edgecap.record import Absent
from edgecap.report.decision import compared_table, decision_table
from edgecap.report.page.markdown import markdown
from edgecap.report.page.report import html
from edgecap.report.terminal.comparison import comparisons
from edgecap.report.terminal.summary import summary
from edgecap.report.terminal.verdict import opening
from edgecap.report.verdict import compared_all, verdicts

DEFAULT = next((ROOT / "profiles" / "default").glob("*.json"))
NOTHING = Absent(reason="not measured")


def table_of(record):
    (decision,) = decide(cell_views([record]))
    return decision_table(decision)


def row_of(table, name):
    row = next(row for row in table.rows if row.name == name)
    headings = [column.heading for column in table.columns]
    return dict(zip(headings, row.cells, strict=True)) | {"mark": row.mark}


def changed(record, name, **parts):
    """The record with other parts of the outcome of one cell."""
    cells = tuple(
        replace(c, outcome=replace(c.outcome, **parts)) if c.precision == name else c
        for c in record.cells
    )
    return replace(record, cells=cells)


def slower(record, name, factor):
    cell = next(c for c in record.cells if c.precision == name)
    latency = cell.outcome.latency
    samples = tuple(s * factor for s in latency.decode.samples_s)
    decode = replace(latency.decode, samples_s=samples)
    return changed(record, name, latency=replace(latency, decode=decode))


# --- rows -----------------------------------------------------------------------------------------


def test_the_one_to_ship_comes_first_and_the_others_by_worth():
    table = table_of(RECORD)
    assert [row.name for row in table.rows] == ["int8d", "fp32", "fp16", "int4b32"]
    assert [row.mark for row in table.rows] == ["ship", "worse", "worse", "failed"]
    assert [cell.text for cell in table.rows[-1].cells] == ["-"] * len(table.columns)


def test_a_baseline_that_stays_comes_first():
    table = table_of(slower(MEASURED, "int8d", 4))
    assert [(row.name, row.mark) for row in table.rows][0] == ("fp32", "keep")
    assert {row.mark for row in table.rows[1:]} == {"worse"}


def test_ratios_are_those_of_compare_with_its_intervals():
    table = table_of(MEASURED)
    for pair in compare([MEASURED]):
        found = {d.metric: d.ratio for d in pair.differences}
        row = row_of(table, pair.candidate)
        worth, time = found["effective_flops_per_s"], found["decode_s"]
        assert row["worth"].value == worth.value
        assert row["worth"].low == f"{worth.low:.2f}" and row["worth"].high == f"{worth.high:.2f}"
        assert row["speed"].value == pytest.approx(1 / time.value)
        assert row["quality"].value == found["effective_flops"].value
        assert row["file"].value == next(
            d.candidate for d in pair.differences if d.metric == "file_bytes"
        )


def test_the_baseline_is_one_and_has_no_interval():
    row = row_of(table_of(MEASURED), "fp32")
    for name in ("worth", "speed", "quality"):
        assert (row[name].text, row[name].interval("-")) == ("1", "")


def test_one_that_is_not_told_apart_from_the_shipped_is_level_or_unknown():
    near = replace(MEASURED.cells[2], precision="twin")
    table = table_of(replace(MEASURED, cells=(*MEASURED.cells, near)))
    assert sorted(row.mark for row in table.rows) == ["level", "ship", "worse", "worse"]


def test_marks_are_beside_the_one_to_ship_not_beside_the_baseline():
    """Twice as fast as fp32, but half as fast as the best."""
    middle = replace(MEASURED.cells[2], precision="middle")
    record = replace(MEASURED, cells=(*MEASURED.cells, middle))
    table = table_of(slower(record, "int8d", 0.5))
    assert row_of(table, "int8d")["mark"] == "ship"
    row = row_of(table, "middle")
    assert row["mark"] == "worse" and row["worth"].verdict == "better"


def test_nothing_to_choose_from_or_by_has_no_table():
    assert table_of(replace(MEASURED, cells=MEASURED.cells[:1])) is None
    untimed = MEASURED
    for name in ("fp32", "fp16", "int8d"):
        untimed = changed(untimed, name, latency=NOTHING)
    assert table_of(untimed) is None
    assert verdicts(cell_views([untimed]))[0].table is None


def test_joules_are_shown_where_they_were_measured():
    assert "J/token" not in [c.heading for c in table_of(MEASURED).columns]
    table = table_of(with_energy())
    assert row_of(table, "int8d")["J/token"].text.endswith("mJ")
    partly = table_of(changed(with_energy(), "int8d", energy=NOTHING))
    assert row_of(partly, "int8d")["J/token"].text == "-"
    assert row_of(partly, "fp32")["J/token"].text.endswith("mJ")
    assumed = table_of(with_energy(provenance="assumed"))
    assert "J/token" not in [c.heading for c in assumed.columns]
    sampled = table_of(with_energy(provenance="sampled"))
    assert row_of(sampled, "fp32")["J/token"].text.endswith("mJ sampled")


def test_memory_that_is_not_known_is_a_dash():
    row = row_of(table_of(changed(MEASURED, "int8d", memory=NOTHING)), "int8d")
    assert row["peak RAM"].text == row["file"].text == "-"


def test_without_text_the_table_has_speed_only():
    record = MEASURED
    for cell in MEASURED.cells:
        record = changed(record, cell.precision, compression=NOTHING)
    table = table_of(record)
    assert [c.heading for c in table.columns][:1] == ["speed"]
    assert row_of(table, "int8d")["mark"] == "ship"


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("cells", [2, 4, 12])
def test_sentence_and_table_have_at_most_25_lines(width, cells):
    lines = [click.unstyle(line) for line in opening(many(cells), width).lines]
    assert len(lines) <= 25 and max(map(len, lines)) <= width
    assert sum(bool(re.match(r"int4-variant\d+ +\w+ +\d", line)) for line in lines) == cells
    header = next(line for line in lines if re.search("  worth  ", line))
    assert "speed" in header and "quality" in header


@pytest.mark.parametrize("width", [30, 40, 60])
def test_a_narrow_terminal_has_the_decision_too(width):
    lines = [click.unstyle(line) for line in opening(MEASURED, width).lines]
    assert max(map(len, lines)) <= width
    assert any(re.match(r"int8d +ship", line) for line in lines)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_value_of_a_variant_stands_in_a_summary_twice(width):
    text = click.unstyle(summary(with_energy(), width))
    for heading in ("J/token", "peak RAM", "file"):
        headers = [line for line in text.splitlines() if re.search(rf"  {heading}\b", line)]
        assert len(headers) == 1, heading
    assert len(re.findall(r"28\.1 mJ", text)) == 1
    assert "tokens/s" not in text


def test_every_form_has_the_same_rows():
    page, text = html([MEASURED]), markdown([MEASURED])
    shown = click.unstyle("\n".join(opening(MEASURED, 100).lines))
    for row in table_of(MEASURED).rows:
        line = next(x for x in text.splitlines() if x.startswith(f"| {row.name} | {row.mark} |"))
        for cell in row.cells:
            assert cell.text in line and cell.interval(" to ") in line
            assert cell.text in shown and cell.interval("-") in shown
            assert f">{cell.text}</span>" in page and cell.interval(" to ") in page


def test_each_machine_has_its_table():
    page = html(two_machines())
    assert page.count('<table class="decision"') == 2
    assert page.count("<summary>The decision") == 0


# --- compare --------------------------------------------------------------------------------------


def test_many_pairs_begin_with_one_sentence_and_one_table():
    pairs = compare([MEASURED])
    text = click.unstyle(comparisons(pairs, 100))
    assert text.startswith("Better: int8d; worse: fp16 (beside fp32).\n")
    assert [row.mark for row in compared_table(pairs).rows] == ["baseline", "worse", "better"]
    assert "decodes 2 times as fast" not in text  # the table says so


def test_the_sentence_follows_the_pairs():
    pairs = compare([slower(MEASURED, "int8d", 8)])
    assert compared_all(pairs) == "Worse: fp16 and int8d (beside fp32)."
    failed = compared_all(compare([RECORD]))
    assert failed == "Better: int8d; worse: fp16; failed: int4b32 (beside fp32)."
    several = compared_all(compare([many(12)]))
    parts = r"Better: .* and 1 more; level: int4-variant3; worse: .* and 3 more \(beside .*\)\."
    assert re.fullmatch(parts, several)


def test_one_pair_keeps_its_own_sentence():
    pair = compare([replace(MEASURED, cells=(MEASURED.cells[0], MEASURED.cells[2]))])
    assert "better: int8d decodes 2 times as fast" in click.unstyle(comparisons(pair, 100))


def test_compare_of_a_real_record_has_the_table_of_show_beside_fp32():
    shown = CliRunner().invoke(cli, ["show", str(DEFAULT)], env={"COLUMNS": "100"}).output
    compared = CliRunner().invoke(cli, ["compare", str(DEFAULT)], env={"COLUMNS": "100"}).output
    for name in ("fp16", "int8", "int4"):
        of_show, of_compare = (
            re.search(rf"(?m)^{name} +\w+ +(\d.*)$", text)[1].split() for text in (shown, compared)
        )
        assert of_show == of_compare
