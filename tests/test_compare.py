"""compare as a gate: rules, failed candidates, many pairs, Markdown, JUnit,
and how much it costs.
"""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from conftest import ROOT

from edgecap.analysis import metrics
from edgecap.analysis.compare import compare
from edgecap.analysis.thresholds import FailRule, parse_rule, violations
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.record import LEFT_OUT, Absent, Energy, Failure, Window
from edgecap.report.terminal.comparison import comparisons, junit, markdown
from edgecap.storage.records import load, save

FILE = ROOT / "tests" / "data" / "record-1.json"
RECORD = load(FILE)
DATA = ROOT / "tests" / "data"
HOSTILE = "</script> | `x` <b> \u202e" + "y" * 10_000


def with_cells(*cells, **changes):
    return msgspec.structs.replace(RECORD, cells=cells, **changes)


def failed(cell, stage="decode", message="no memory"):
    return msgspec.structs.replace(
        cell, outcome=Failure(stage=stage, error="MemoryError", message=message)
    )


def slower(cell, factor):
    """The cell with every decoded token and prompt taking `factor` times as long;
    a failed cell as it is.
    """
    if isinstance(cell.outcome, Failure):
        return cell
    latency = cell.outcome.latency
    longer = {
        part: msgspec.structs.replace(
            getattr(latency, part),
            samples_s=tuple(factor * s for s in getattr(latency, part).samples_s),
        )
        for part in ("prefill", "decode")
    }
    return msgspec.structs.replace(
        cell,
        outcome=msgspec.structs.replace(
            cell.outcome, latency=msgspec.structs.replace(latency, **longer)
        ),
    )


SLOWER = with_cells(*[slower(c, 1.2) for c in RECORD.cells])


def run(*words):
    return CliRunner().invoke(cli, ["compare", *map(str, words)])


@pytest.fixture
def pair(tmp_path):
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, record in zip(paths, (RECORD, SLOWER), strict=True):
        save(record, path)
    return paths


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("worse", FailRule("worse")),
        ("worse:decode_s", FailRule("worse", "decode_s")),
        (" worse : decode_s : 10 % ".replace(" %", "%"), FailRule("worse", "decode_s", 0.1)),
        ("unknown:bits_per_byte", FailRule("unknown", "bits_per_byte")),
    ],
)
def test_rules(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrose", "did you mean 'worse'"),
        ("", "write worse\\[:METRIC\\[:PERCENT\\]\\]"),
        ("worse:decode", "no metric 'decode'"),
        ("worse:divergence_bits", "no metric 'divergence_bits'"),
        ("worse:decode_s:x", "no percentage"),
        ("worse:decode_s:-1", "no percentage"),
        ("worse:decode_s:nan", "no percentage"),
        ("worse:decode_s:1:2", "is no rule; write worse"),
    ],
)
def test_rules_that_are_none(text, words):
    with pytest.raises(UsageError, match=words):
        parse_rule(text)


@pytest.mark.parametrize(
    ("rules", "metrics"),
    [
        (("worse:decode_s:10",), {"decode_s"}),
        (("worse:decode_s:25",), set()),
        (("worse:bits_per_byte",), set()),
        (("worse:decode_s", "worse:prefill_s"), {"decode_s", "prefill_s"}),
        (("worse:decode_j",), {"decode_j"}),  # never measured: a gate that saw nothing is not open
    ],
)
def test_what_rules_do_not_accept(rules, metrics):
    found = violations(compare([RECORD, SLOWER]), [parse_rule(r) for r in rules])
    assert {v.metric for v in found} == metrics


def test_a_rule_on_what_cannot_be_compared_is_broken():
    other = msgspec.structs.replace(
        RECORD, corpus=msgspec.structs.replace(RECORD.corpus, sha256="other")
    )
    found = violations(compare([RECORD, other]), [parse_rule("worse:bits_per_byte")])
    assert {v.message for v in found} == {
        "bits_per_byte: the rule cannot be checked: the corpus differs"
    }


def test_worse_alone_takes_every_metric():
    found = violations(compare([RECORD, SLOWER]), [FailRule("worse")])
    assert {
        *("decode_s", "prefill_s", "time_capacity", "gain_bits_per_s", "effective_flops_per_s")
    } == {v.metric for v in found}
    assert not violations(compare([RECORD, RECORD]), [FailRule("worse")])
    assert not violations(compare([SLOWER, RECORD]), [FailRule("worse")])


def test_a_figure_that_more_is_better_of_counts_downwards():
    found = violations(compare([RECORD, SLOWER]), [parse_rule("worse:gain_bits_per_s:16")])
    assert {v.metric for v in found} == {"gain_bits_per_s"}  # 1 / 1.2 is 16.7 % less
    assert not violations(compare([RECORD, SLOWER]), [parse_rule("worse:gain_bits_per_s:17")])


# --- cells that are not there -----------------------------------------------------------------


def test_a_candidate_that_failed_is_told_and_is_worse():
    found = compare([RECORD, with_cells(failed(RECORD.cells[0]), *RECORD.cells[1:])])
    assert found[0].failed == "decode: MemoryError: no memory"
    assert "failed: decode: MemoryError" in click.unstyle(comparisons(found))
    assert [v.metric for v in violations(found, [FailRule("worse")])] == [None]
    assert not violations(found, [FailRule("unknown")])
    (alone,) = [
        c for c in compare([with_cells(RECORD.cells[0], failed(RECORD.cells[1]))]) if c.failed
    ]
    assert alone.candidate == RECORD.cells[1].precision


def test_a_variant_that_was_left_out_did_not_fail():
    out = failed(RECORD.cells[1], stage=LEFT_OUT)
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([with_cells(RECORD.cells[0], out)])


def test_records_without_a_like_cell():
    with pytest.raises(UsageError, match="--baseline compares unlike cells"):
        compare([with_cells(RECORD.cells[0]), with_cells(RECORD.cells[2])])


def test_a_cell_that_the_other_record_lacks_is_told_and_is_worse():
    found = compare([RECORD, with_cells(RECORD.cells[0])])
    lost = [c for c in found if c.failed]
    assert [c.candidate.split()[0] for c in lost] == ["fp16", "int8d"]
    assert {v.message for v in violations(found, [FailRule("worse")])} == {
        "failed: the record does not hold it"
    }


def test_a_metric_that_is_no_longer_measured_is_worse():
    cell = RECORD.cells[0]
    blind = msgspec.structs.replace(
        cell, outcome=msgspec.structs.replace(cell.outcome, memory=Absent(reason="none"))
    )
    found = compare([with_cells(cell), with_cells(blind)])
    assert {v.metric for v in violations(found, [FailRule("worse")])} == {
        "peak_bytes",
        "file_bytes",
    }


# --- too little to say anything ---------------------------------------------------------------


def with_rounds(cell, rounds):
    """The cell with the first rounds of its seconds only."""
    latency = cell.outcome.latency

    def cut(part):
        kept = [i for i, number in enumerate(part.rounds) if number < rounds]
        return msgspec.structs.replace(
            part,
            samples_s=tuple(part.samples_s[i] for i in kept),
            rounds=tuple(part.rounds[i] for i in kept),
        )

    fewer = msgspec.structs.replace(
        latency, prefill=cut(latency.prefill), decode=cut(latency.decode)
    )
    return msgspec.structs.replace(
        cell, outcome=msgspec.structs.replace(cell.outcome, latency=fewer)
    )


def test_assumed_joules_get_no_verdict():
    cell = RECORD.cells[0]
    window = Window(joules=20.0, seconds=2.0, tokens=500)
    energy = Energy(
        counter="assumed", domains=("all",), provenance="assumed", tick_s=0.1, resolution_j=0.1,
        idle_w=(5.0, 5.0), prefill=(window,) * 3, decode=(window,) * 3,
    )  # fmt: skip
    dearer = msgspec.structs.replace(
        energy, decode=(msgspec.structs.replace(window, joules=40.0),) * 3
    )
    a, b = (
        with_cells(
            msgspec.structs.replace(cell, outcome=msgspec.structs.replace(cell.outcome, energy=e))
        )
        for e in (energy, dearer)
    )
    (found,) = [d for d in compare([a, b])[0].differences if d.metric == "decode_j"]
    assert found.verdict == "unknown"
    assert "assumed" in found.ratio.reason
    assert "assumed" in click.unstyle(comparisons(compare([a, b])))


@pytest.mark.parametrize("rounds", [1, 3])
def test_few_rounds_give_no_verdict_on_seconds(rounds):
    few = with_cells(with_rounds(slower(RECORD.cells[0], 2), rounds))
    found = {d.metric: d for d in compare([with_cells(RECORD.cells[0]), few])[0].differences}
    for name in ("prefill_s", "decode_s", "time_capacity", "gain_bits_per_s"):
        assert found[name].verdict == "unknown"
        assert (
            found[name].ratio.reason == f"{rounds} rounds are too few for a verdict; raise --limit"
        )
    assert found["bits_per_byte"].verdict == "same"


def test_what_was_timed_once_has_no_interval_in_any_score():
    cell = with_rounds(RECORD.cells[0], 1)
    found = metrics.quantities(RECORD, cell, seed=1)
    drawn = {name for name, q in found.items() if not isinstance(q, Absent) and q[1] is not None}
    assert {"bits_per_byte", "gain_bits_per_token", "information_capacity"} <= drawn
    assert not drawn & {"prefill_s", "decode_s", "time_capacity", "gain_bits_per_s"}


# --- formats ----------------------------------------------------------------------------------


def produced(form):
    found = compare([RECORD, SLOWER])
    broken = violations(found, [parse_rule("worse:decode_s:10"), parse_rule("worse:decode_j")])
    return {
        "text": lambda: click.unstyle(comparisons(found)),
        "md": lambda: markdown(found, broken),
        "xml": lambda: junit(found, broken),
        "many.txt": lambda: click.unstyle(comparisons(compare([RECORD, *[SLOWER] * 3]))),
    }[form]() + "\n"


@pytest.mark.parametrize("form", ["text", "md", "xml", "many.txt"])
def test_formats_have_not_changed(form):
    """Goldens: look at the difference, and remake them with tests/make_data.py if it is better."""
    assert produced(form) == (DATA / f"compare.{form}").read_text()


def test_junit_adds_up():
    root = ET.fromstring(produced("xml"))
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases) > 0
        assert int(suite.get("failures")) == sum(c.find("failure") is not None for c in cases) == 2
        assert int(suite.get("skipped")) == sum(c.find("skipped") is not None for c in cases)


def test_hostile_words_are_harmless_in_every_format():
    odd = with_cells(
        failed(RECORD.cells[0], message=HOSTILE),
        source=msgspec.structs.replace(RECORD.source, name=HOSTILE),
    )
    found = compare([RECORD, odd])
    broken = violations(found, [FailRule("worse")])
    text = markdown(found, broken)
    assert "<b>" not in text and "\u202e" not in text and "\n| `x`" not in text
    assert ET.fromstring(junit(found, broken)).find(".//failure") is not None
    assert "\u202e" not in comparisons(found)


# --- the command ------------------------------------------------------------------------------


def test_the_gate_sets_the_exit_status(pair, tmp_path):
    old, new = pair
    assert run(old, new).exit_code == 0
    assert run(old, old, "--fail-on", "worse").exit_code == 0
    found = run(
        old, new, "--fail-on", "worse:decode_s:10", "--format", "junit", "-o", tmp_path / "out.xml"
    )
    assert found.exit_code == 1
    assert "decode_s worse by 20 %" in found.stderr
    assert found.stdout == ""
    assert ET.parse(tmp_path / "out.xml").getroot().tag == "testsuites"
    assert (
        len(json.loads(run(old, new, "--json", "--fail-on", "worse").stdout)) == 3
    )  # the fourth failed in both


@pytest.mark.parametrize("command", [("compare",), ("board",), ("report",)])
def test_nothing_is_written_over_that_is_not_a_result(pair, tmp_path, command):
    old, new = pair
    before = new.read_bytes()
    mine, pipe, link = tmp_path / "mine.html", tmp_path / "device", tmp_path / "link.html"
    mine.write_text("precious")
    for place in (new, tmp_path, *([] if command == ("compare",) else [mine])):
        found = CliRunner().invoke(cli, [*command, str(old), str(new), "-o", str(place)])
        assert isinstance(found.exception, UsageError), place
    assert new.read_bytes() == before
    assert mine.read_text() == "precious"
    pipe.symlink_to("/dev/null")
    link.symlink_to(tmp_path / "target.html")
    for place in (pipe, link):
        assert (
            CliRunner().invoke(cli, [*command, str(old), str(new), "-o", str(place)]).exit_code == 0
        )
    assert Path("/dev/null").is_char_device()
    assert link.is_symlink()
    assert (tmp_path / "target.html").stat().st_size > 0


def test_a_record_is_not_written_over(pair):
    old, new = pair
    found = run(old, new, "-o", new)
    assert isinstance(found.exception, UsageError)
    assert load(new) == SLOWER


def test_one_baseline_against_many():
    many = with_cells(
        *RECORD.cells[:1], *[slower(RECORD.cells[1], 1 + n / 1000) for n in range(30)]
    )
    found = compare([many])
    assert len(found) == 30
    assert (
        len({next(d for d in c.differences if d.metric == "decode_s").ratio.value for c in found})
        == 30
    )
