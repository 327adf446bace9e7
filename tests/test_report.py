"""report: every format against its golden, names that want to be more,
and the command that gives a run again.
"""

import csv
import io
import json
import re
import shlex

import msgspec
import pyarrow.csv
import pytest
from click.testing import CliRunner
from conftest import ROOT
from pages import (
    BIDI,
    EVIL,
    MEASURED,
    RECORD,
    failed,
    hostile,
    many,
    replace,
    two_machines,
    with_energy,
    with_operators,
)

from edgecap.analysis.metrics import METRICS
from edgecap.analysis.verdict import decide
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.names import printable
from edgecap.pipeline import profile
from edgecap.record import LEFT_OUT, Absent, Failure
from edgecap.report.cells import display_views
from edgecap.report.data import record_values
from edgecap.report.page.figures import sections
from edgecap.report.page.markdown import markdown
from edgecap.report.page.plots import FEW
from edgecap.report.page.raw_tables import MOST, tables
from edgecap.report.page.report import html
from edgecap.report.page.reproduce import command
from edgecap.report.page.template import as_json
from edgecap.report.page.worth_figures import pareto
from edgecap.report.rows import COLUMNS, as_csv, rows
from edgecap.report.verdict import verdict_texts, verdicts
from edgecap.spec import Spec
from edgecap.storage.records import load

DATA = ROOT / "tests" / "data"
FILE = DATA / "record-5.json"
ALL = {
    "failures": [RECORD],
    "energy": [with_operators(with_energy())],
    "one cell": [replace(MEASURED, cells=MEASURED.cells[:1])],
    "nothing": [failed()],
    "no cells": [replace(RECORD, cells=(), complete=False)],
    "two machines": two_machines(),
    "twice the same": [MEASURED, MEASURED],
    "hostile": [hostile()],
}


# --- goldens: made by python tests/make_data.py ---------------------------------------------------


def goldens():
    """Each format of the frozen record, numbers cut to what every processor computes alike."""
    page = html([RECORD])
    bare = re.sub(r"<(style|script)>.*?</\1>", r"<\1></\1>", page, flags=re.DOTALL)
    texts = {
        "html": bare,
        "md": markdown([RECORD]),
        "csv": as_csv(rows([RECORD])),
        "json": _few_numbers(),
    }
    verdict = "".join(v.text + "\n" for v in verdicts(display_views([MEASURED])))
    return {
        "verdict-1.txt": verdict,
        **{f"report-1.{form}": _cut(text) for form, text in texts.items()},
    }


def _cut(text):
    return re.sub(r"-?\d+\.\d{6,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.6g}", text)


def _few_numbers():
    """One cell with two rounds of samples: a golden that people can read."""
    cell = MEASURED.cells[0]
    text, timed = cell.outcome.compression, cell.outcome.latency
    prefill = replace(
        timed.prefill, samples_s=timed.prefill.samples_s[:2], rounds=(0, 1), warm_up_s=()
    )
    decode = replace(
        timed.decode, samples_s=timed.decode.samples_s[:2], rounds=(0, 1), warm_up_s=()
    )
    latency = replace(timed, prefill=prefill, decode=decode)
    outcome = replace(
        cell.outcome, latency=latency, compression=replace(text, per_document=text.per_document[:2])
    )
    values = record_values(replace(MEASURED, cells=(replace(cell, outcome=outcome),)))
    return json.dumps([values], indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    "name", ["report-1.html", "report-1.md", "report-1.csv", "report-1.json", "verdict-1.txt"]
)
def test_goldens(name):
    assert goldens()[name] == (DATA / name).read_text("utf-8")


def sections_of(views):
    return sections(views, decide(views))


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL)
def test_every_record_becomes_a_page_and_a_text(case):
    page = html(ALL[case])
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "window.evil=1</script><img" not in page
    assert not re.search(r"<img|<link|<iframe|<base", _without_library(page))
    assert "\u202e" not in page and "\u2028" not in _without_library(page)
    assert "None" not in re.sub(
        r"<pre.*?</pre>|<details>.*</details>|None: no cell",
        "",
        _without_library(page),
        flags=re.DOTALL,
    )
    assert markdown(ALL[case]).startswith("<!-- edgecap report -->\n# ")


def _without_library(page):
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_forbids_requests_and_names_no_host_to_load_from():
    page = _without_library(html(ALL["energy"]))
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=(?!"#)""", page)


@pytest.mark.slow
def test_three_hundred_cells_stay_readable_and_small():
    record = many()
    page = html([record])
    assert len(page.encode()) < 8e6
    lines = display_views([record])
    heights = {
        f.id: f.plot["layout"]["height"] for s in sections_of(lines) for f in s.figures if f.plot
    }
    assert heights["capacity"] > 300 * 20 and heights["split"] > 300 * 20
    assert "The first 2,000 of" in page
    found = {t.title: t for t in tables(lines, [record])}
    assert all(len(t.rows) <= MOST for t in found.values())
    assert found["Every metric with its 95 % interval"].total == 300
    for section in sections_of(lines):
        for figure in section.figures:
            traces = figure.plot["data"] if figure.plot else []
            assert len(traces) <= 30, figure.id
    assert max(len(lines), FEW) == 300


def test_figures_without_data_say_why():
    found = {f.id: f for s in sections_of(display_views([RECORD])) for f in s.figures}
    assert found["energy"].plot is None and "no RAPL counter" in found["energy"].text
    assert found["operators"].plot is None and "--operators" in found["operators"].text
    nothing = {f.id: f for s in sections_of(display_views([failed()])) for f in s.figures}
    assert not any(f.plot for f in nothing.values())
    assert all(f.text for f in nothing.values())


def test_energy_is_told_with_its_counter_and_provenance():
    page = html([with_energy()])
    for words in ("rapl", "counted by the device", "package-0, dram", "psys: contains package-0"):
        assert words in page
    assumed = html([with_energy(provenance="assumed")])
    assert "assumed: 5 W x seconds (--assume-watts)" in assumed
    assert "counted by the device" not in assumed


def test_json_in_a_script_cannot_end_it():
    text = as_json({"a": EVIL + BIDI})
    assert "<" not in text and "\u2028" not in text
    assert json.loads(text) == {"a": EVIL + BIDI}


def test_names_in_figures_are_escaped_for_plotly():
    texts = json.dumps([f.plot for s in sections_of(display_views([hostile()])) for f in s.figures])
    assert "<script" not in texts and "<img" not in texts and "<b>Add" not in texts
    assert "&lt;/script&gt;" in texts


# --- the verdict ----------------------------------------------------------------------------------


def verdict_of(*records):
    (found,) = verdicts(display_views(records))
    return found


def test_the_verdict_ships_what_is_worth_more_and_names_its_price():
    found = verdict_of(MEASURED)
    assert found.decision.shipped.cell.precision == "int8d"
    assert found.decision.metric == "effective_flops_per_s"
    assert found.sentence.startswith("Ship int8d: it decodes 2 times as fast as fp32")
    assert "predicts like a model of 0.67 times the compute" in found.sentence
    assert "this text has no law" in found.caution


def test_equal_cells_are_no_reason_to_change():
    twin = replace(MEASURED.cells[0], provider="cuda")
    found = verdict_of(replace(MEASURED, cells=(MEASURED.cells[0], twin)))
    assert found.decision.best is None
    assert found.sentence.startswith("Keep fp32 cpu: no variant is surely worth more.")
    assert "worth as much" in found.sentence


def test_a_faster_variant_that_predicts_worse_is_not_shipped():
    """At twice the speed and 1 bit a token less it is worth 2 x 2^(-1 / 0.2) at most."""
    cell = MEASURED.cells[-1]
    text = cell.outcome.compression
    worse = tuple(replace(d, nll_bits=d.nll_bits + d.tokens) for d in text.per_document)
    fields = {"nll_bits": text.nll_bits + text.tokens} if hasattr(text, "nll_bits") else {}
    gain = text.gain_bits_per_token - 1
    poor = replace(text, per_document=worse, gain_bits_per_token=gain, **fields)
    cells = (MEASURED.cells[0], replace(cell, outcome=replace(cell.outcome, compression=poor)))
    found = verdict_of(replace(MEASURED, cells=cells))
    assert found.decision.best is None and found.sentence.startswith("Keep fp32")


def test_one_cell_leaves_nothing_to_choose():
    found = verdict_of(replace(MEASURED, cells=MEASURED.cells[:1]))
    assert "Only fp32 was measured" in found.sentence


def test_few_rounds_give_no_verdict():
    def short(cell):
        decode = cell.outcome.latency.decode
        keep = [n for n, r in enumerate(decode.rounds) if r < 2]
        cut = replace(
            decode,
            samples_s=tuple(decode.samples_s[n] for n in keep),
            rounds=tuple(decode.rounds[n] for n in keep),
        )
        latency = replace(cell.outcome.latency, decode=cut)
        return replace(cell, outcome=replace(cell.outcome, latency=latency))

    found = verdict_of(replace(MEASURED, cells=tuple(map(short, MEASURED.cells))))
    assert found.sentence.startswith("No verdict yet: 2 rounds are too few")


def test_a_verdict_of_nothing_says_so():
    found = verdict_of(failed())
    assert found.decision is None
    assert "Nothing of" in found.sentence and "SIGKILL" in found.sentence


def test_machines_of_one_name_are_told_apart():
    other = replace(MEASURED, machine=replace(MEASURED.machine, cpu="Other CPU"))
    assert len(verdicts(display_views([MEASURED, other]))) == 2


def test_each_machine_has_its_verdict():
    found = verdict_texts(verdicts(display_views(two_machines())))
    assert len(found) == 2
    assert "Example CPU" in found[0] and "Other CPU" in found[1]


def test_a_precision_of_any_name_can_be_shipped():
    cells = tuple(replace(c, precision=f"a,b={n}") for n, c in enumerate(MEASURED.cells))
    found = verdict_of(replace(MEASURED, cells=cells))
    assert found.decision.shipped.cell.precision == "a,b=2"


def test_an_encoder_is_judged_by_its_prefill():
    nothing = Absent(reason="an encoder does not decode")
    cells = []
    for cell in MEASURED.cells:
        latency = replace(cell.outcome.latency, decode=nothing)
        names = ("information_capacity", "time_capacity", "gain_bits_per_s", "roofline_ratio")
        cells.append(
            replace(
                cell,
                outcome=replace(cell.outcome, latency=latency, compression=nothing),
                score=replace(cell.score, **dict.fromkeys(names, nothing)),
            )
        )
    record = replace(MEASURED, cells=tuple(cells), source=replace(MEASURED.source, task="encoder"))
    found = verdict_of(record)
    assert found.decision.metric == "prefill_s" and "reads the prompt" in found.sentence
    assert "encoder" in html([record])


def test_the_front_holds_what_none_beats():
    points = [
        ("a", (1.0, 1.0)),
        ("b", (2.0, 3.0)),
        ("c", (3.0, 2.0)),
        ("d", (2.0, 2.5)),
        ("e", (4.0, 3.0)),
    ]
    assert [name for name, _ in pareto(points)] == ["a", "b"]


# --- rows -----------------------------------------------------------------------------------------


def test_rows_have_every_column_and_every_metric():
    found = rows([RECORD])
    assert len(found) == len(RECORD.cells)
    assert all(tuple(row) == COLUMNS for row in found)
    assert {m.name for m in METRICS} <= set(COLUMNS)
    assert [row["status"] for row in found] == ["measured", "measured", "measured", "failed"]
    assert found[3]["decode_s"] is None and "NaN" in found[3]["failure"]
    assert found[0]["decode_s_low"] <= found[0]["decode_s"] <= found[0]["decode_s_high"]


def test_a_cell_left_out_is_no_failure():
    failure = Failure(stage=LEFT_OUT, error="Unfit", message="will not pay")
    cells = (replace(RECORD.cells[0], outcome=failure),)
    assert rows([replace(RECORD, cells=cells)])[0]["status"] == "left out"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 1, 2]])
def test_arrow_reads_each_column_as_one_type(order):
    """Also where the first row, a failure, is empty; and numbers come back bit for bit."""
    powered = with_energy()
    record = replace(RECORD, cells=tuple([*powered.cells, RECORD.cells[3]][n] for n in order))
    text = as_csv(rows([record]))
    found = pyarrow.csv.read_csv(io.BytesIO(text.encode()))
    types = {
        name: str(kind) for name, kind in zip(found.column_names, found.schema.types, strict=True)
    }
    assert tuple(types) == COLUMNS
    for metric in METRICS:
        without = ("device_peak_bytes", "decoded_divergence_bits", "worth")
        if metric.name not in without and not metric.name.startswith("effective"):
            assert types[metric.name] == "double", metric.name
    assert {types[name] for name in ("documents", "context", "threads")} == {"int64"}
    assert types["model"] == "string" and types["created_utc"].startswith("timestamp")
    had = [row["decode_s"] for row in rows([record])]
    assert found.column("decode_s").to_pylist() == had


def test_csv_survives_names_and_no_spreadsheet_computes_them():
    record = hostile()
    text = as_csv(rows([record]))
    found = list(csv.DictReader(io.StringIO(text)))
    assert len(found) == len(record.cells)
    assert found[0]["machine"].startswith("'=1+1")
    for start in "=+-@\t":
        named = replace(MEASURED, source=replace(MEASURED.source, name=f"{start}cmd\nnext"))
        row = next(csv.DictReader(io.StringIO(as_csv(rows([named])))))
        assert row["model"] == f"'{start}cmd next"
        assert pyarrow.csv.read_csv(io.BytesIO(as_csv(rows([named])).encode())).num_rows == 3
    negative = replace(MEASURED, corpus=replace(MEASURED.corpus, bias_bits=-24.0))
    assert next(csv.DictReader(io.StringIO(as_csv(rows([negative])))))["bias_bits"] == "-24.0"


def test_markdown_keeps_names_harmless():
    text = markdown([hostile()])
    assert not re.search(r"(?<!\\)<(?!!-- edgecap)", re.sub(r"(?m)^    .*$", "", text))
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) <= 3  # a row of a table has the columns of its heading


# --- again ----------------------------------------------------------------------------------------

SPECS = [
    Spec(),
    Spec(
        model="./my model; rm -rf /",
        precisions=("fp32", "int8"),
        corpus="a'b.jsonl",
        context=512,
        stride=64,
    ),
    Spec(
        providers=(
            "cpu",
            "cuda:device_id=1,cudnn_conv_algo_search=HEURISTIC",
            "openvino:device_type=GPU",
        )
    ),
    Spec(
        optimize=False,
        arena=False,
        skip_unfit=True,
        allow_fallback=True,
        operators=True,
        calibrate=True,
    ),
    Spec(
        bias_bits=-24.0,
        protocol="paper",
        documents=200,
        threads=3,
        affinity=(0, 2, 3),
        graph_level="basic",
    ),
    Spec(
        limit_s=5.5,
        precision_target=0.01,
        timeout_s=60.0,
        trust_remote_code=True,
        revision="abc",
        exporter="genai",
    ),
    Spec(quick=True),
    Spec(quick=True, limit_s=30.0, details=True),
    Spec(context_sweep=(), batches=(1, 4, 16), streams=(1, 2)),
    Spec(context_sweep=(128, 512), energy="require", meter="/tmp/w.csv", meter_offset_s=-0.25),
    Spec(model="--odd", assume_watts=7.5),
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_command_asks_for_the_same_again(spec, monkeypatch):
    asked = []

    def measure(found, home, watch):
        asked.append(found)
        raise UsageError("asked")

    monkeypatch.setattr(profile, "profile", measure)
    program, *words = shlex.split(command(spec))
    CliRunner().invoke(cli, words)
    assert program == "edgecap"
    assert asked == [spec]


def test_every_field_of_a_spec_has_an_option():
    options = {o for p in cli.commands["profile"].params for o in getattr(p, "opts", ())}
    from edgecap.report.page.reproduce import _OPTIONS

    for name in Spec.__struct_fields__:
        assert _OPTIONS.get(name, "--" + name.replace("_", "-")) in options, name


# --- the command ----------------------------------------------------------------------------------


def report(*words):
    return CliRunner().invoke(cli, ["report", *map(str, words)])


def test_formats_on_standard_output():
    plain = json.loads(json.dumps([record_values(RECORD)]))
    assert json.loads(report(FILE, "--format", "json").stdout) == plain
    assert json.loads(report(FILE, "--json").stdout) == plain
    assert report(FILE, "--format", "csv").stdout == as_csv(rows([RECORD]))
    assert report(FILE, "--format", "md").stdout == markdown([RECORD])


@pytest.mark.parametrize("name", ["report.html", "a.md", "a.csv", "a.json", "strange.page"])
def test_a_report_may_be_written_again_and_nothing_else_over(name, tmp_path):
    out = tmp_path / name
    for _ in range(2):
        found = report(FILE, "-o", out)
        assert found.exit_code == 0 and found.stdout == ""
    out.write_text("my own work")
    assert isinstance(report(FILE, "-o", out).exception, UsageError)
    assert out.read_text() == "my own work"


def test_a_record_is_never_written_over(tmp_path):
    mine = tmp_path / "record.json"
    mine.write_bytes(FILE.read_bytes())
    assert isinstance(report(mine, "-o", mine, "--format", "json").exception, UsageError)
    assert load(mine) == RECORD


def test_a_page_without_a_name_is_report_html(tmp_path):
    assert report(FILE).exit_code == 0
    assert "edgecap report" in (tmp_path / "report.html").read_text("utf-8")


def test_what_was_asked_wrongly():
    assert report(FILE, "--json", "--format", "csv").exit_code == 2
    assert report(FILE, "--format", "pdf").exit_code == 2
    assert report("nothing.json").exception.exit_code == 3


def test_the_public_types_are_what_the_rows_say():
    for row in rows([with_energy()]):
        for name, value in row.items():
            if value is not None and name not in ("documents", "context", "threads"):
                assert isinstance(
                    value,
                    float
                    if name == "bias_bits"
                    or name.split("_low")[0].split("_high")[0] in {m.name for m in METRICS}
                    else str,
                )
    assert msgspec.json.encode(rows([RECORD]))
