"""edgecap tune: what groups lose, graphs of chosen formats, the folder, and refusals."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from commands import edgecap
from conftest import REFERENCE, ROOT
from exports import stepped
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from edgecap.analysis.assignment import FormatCost, GroupChoices
from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.recommend import parse_limit, recommend
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.graph import variants
from edgecap.graph.activations import graph_with_overridable
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.variants.blocks.formats import BY_CODE, FORMATS
from edgecap.graph.variants.blocks.nodes import pack, unpack
from edgecap.graph.variants.blocks.tuned import TuningFolder, find_groups
from edgecap.graph.variants.blocks.weights import GraphWeights
from edgecap.graph.weight_formats import weight_formats
from edgecap.meters.sensitivity import SensitivityMeter
from edgecap.pipeline import tune as tuning
from edgecap.pipeline.prepare import NO_TEXT
from edgecap.pipeline.run_context import ReadyGraph
from edgecap.pipeline.tune import tune
from edgecap.pipeline.worker import MeasureSensitivity
from edgecap.pipeline.worker.handlers import tuning as handler
from edgecap.runtime.activations import ActivationReader
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.microbench import OrtProbes
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import load
from edgecap.sweep import estimates

SAMPLES = [np.arange(1, 60), np.arange(40, 140)]


@pytest.fixture(scope="module")
def graph(cache):
    folder, built = stepped(REFERENCE, cache)
    return folder / built.files[0]


@pytest.fixture
def opened(graph, tmp_path):
    folder = TuningFolder(tmp_path)
    return folder, folder.calibrate(graph, SAMPLES, ActivationReader(graph, 2))


@pytest.mark.parametrize("width", [32, 48, 64])
def test_packed_codes_come_back(width):
    codes = np.random.default_rng(0).integers(0, 16, (5, width), np.uint8)
    assert np.array_equal(unpack(pack(codes, 4), 4), codes)
    assert np.array_equal(unpack(pack(codes, 8), 8), codes)


def test_every_format_has_a_code_of_its_own():
    assert len(BY_CODE) == len(FORMATS)
    assert all(BY_CODE[f.code] is f for f in FORMATS)


@pytest.mark.export
def test_groups_read_the_same_activations(opened):
    _, weights = opened
    groups = find_groups(weights)
    assert sorted(n for g in groups for n in g.matrices) == sorted(weights.names)
    tables = [g for g in groups if weights.is_table(g.name)]
    assert [len(g.matrices) for g in tables] == [1]
    for group in groups:
        assert len({weights.source(name) for name in group.matrices}) == 1
        assert {"8b32", "4b32z"} <= {f.code for f in group.formats}


@pytest.mark.export
def test_a_graph_of_one_format_is_the_variant_of_that_format(opened, graph, tmp_path):
    """Without moved scales: int8's blocks, matrix by matrix."""
    folder = TuningFolder(tmp_path / "plain")
    weights = folder.calibrate(graph, [], None)
    out, expected = tmp_path / "made", tmp_path / "int8"
    out.mkdir()
    expected.mkdir()
    files = folder.make({name: "8b32" for name in weights.names}, out)
    variants.make_variant(graph, variants.Form("int8"), expected)
    made, other = (
        {t.name: numpy_helper.to_array(t) for t in open_graph(p / files[0]).graph.initializer}
        for p in (out, expected)
    )
    assert made.keys() == other.keys()
    assert all(np.array_equal(made[name], other[name]) for name in made)


@pytest.mark.export
@pytest.mark.parametrize("operators", ["contrib", "standard"])
def test_each_matrix_has_the_format_that_was_chosen(opened, operators, tmp_path):
    folder, weights = opened
    codes = [g.formats[n % len(g.formats)].code for n, g in enumerate(find_groups(weights))]
    formats = {
        name: code
        for group, code in zip(find_groups(weights), codes, strict=True)
        for name in group.matrices
    }
    for name, code in formats.items():
        folder.round(weights, name, BY_CODE[code])
    out = tmp_path / "made"
    out.mkdir()
    files = folder.make(formats, out, operators)
    found = list(weight_formats(open_graph(out / files[0])).by_matrix.values())
    assert sorted(found) == sorted(str(BY_CODE[code]) for code in formats.values())
    engine = OrtEngine(out / files[0], "cpu", 2)
    assert np.isfinite(engine.log_probabilities(np.arange(1, 20))).all()


@pytest.mark.export
def test_a_matrix_that_was_not_rounded_is_not_guessed(opened, tmp_path):
    folder, weights = opened
    with pytest.raises(FileNotFoundError):
        folder.make({name: "4b32z" for name in weights.names}, tmp_path)


@pytest.mark.export
def test_roundings_are_read_again(opened, monkeypatch):
    folder, weights = opened
    name, chosen = weights.names[0], BY_CODE["4b64z"]
    first = folder.round(weights, name, chosen)
    monkeypatch.setattr(weights, "round", None)
    again = folder.round(weights, name, chosen)
    assert np.array_equal(first.floats(), again.floats())


@pytest.mark.export
def test_sensitivity_is_that_of_the_replaced_matrices(opened):
    folder, weights = opened
    opened_graph = graph_with_overridable(folder.graph, weights.names)
    meter = SensitivityMeter(OrtEngine(folder.graph, "cpu", 2, scoring=opened_graph), SAMPLES)

    def replaced(name, factor):
        return {name: weights.stored(name, factor * weights.matrix(name))}

    for name in (weights.names[0], weights.names[-1]):
        assert meter.divergence_bits(replaced(name, np.float32(1))) < 1e-9
        assert meter.divergence_bits(replaced(name, np.float32(0.5))) > 1e-4
    assert meter.divergence_bits({}) < 1e-9


@pytest.mark.export
def test_a_run_goes_on_after_the_last_group_that_was_finished(opened, tmp_path, monkeypatch):
    folder, weights = opened
    groups, probed = find_groups(weights), []

    def probe(folder, weights, group, meter):
        probed.append(group.name)
        if len(probed) == 3:
            raise MemoryError
        return handler._Rounding(group.name, 0.1, {"4b32z": 1.0})

    monkeypatch.setattr(handler, "_round_and_probe", probe)
    step = MeasureSensitivity(
        graph="", folder=str(tmp_path), corpus=NO_TEXT, tokenizer="", positions=64, provider="cpu",
        threads=1,
    )  # fmt: skip

    def run():
        return handler._roundings(step, folder, weights, groups, SAMPLES, lambda *given: None)

    with pytest.raises(MemoryError):
        run()
    assert [r.name for r in run()] == [g.name for g in groups]
    assert probed == [*(g.name for g in groups[:3]), *(g.name for g in groups[2:])]


@pytest.mark.parametrize("code", BY_CODE)
def test_the_runtime_has_a_kernel_for_each_format(code):
    chosen = BY_CODE[code]
    probe, count = OrtProbes("cpu", 1).block_products(
        64, 256, chosen.bits, chosen.block, chosen.zero_points
    )
    probe()
    assert count == 64


class Matrices(GraphWeights):
    """Matrices of given widths; a table is gathered as well."""

    def __init__(self, **widths):
        self.widths, self.gathers = widths, {"table": None}

    def shape(self, name):
        return 10, self.widths[name]


@pytest.mark.parametrize(
    ("width", "codes"),
    [
        (64, {"8b16", "8b32", "8b64", "4b16z", "4b32z"}),
        (96, {"8b16", "8b32", "4b16z"}),
        (80, {"8b16", "8b32"}),
        (256, set(BY_CODE)),
    ],
)
def test_zero_points_of_a_gathered_row_fill_bytes(width, codes):
    weights = Matrices(table=width, matrix=width)
    assert {f.code for f in FORMATS if weights.may_have("table", f)} == codes
    plain = {f.code for f in FORMATS if weights.may_have("matrix", f)}
    assert plain == {f.code for f in FORMATS if f.block <= 32 or width % f.block == 0}


def test_a_matrix_of_zeros_has_an_error():
    """Not 0 / 0: the log of groups could not be read again."""
    zeros = numpy_helper.from_array(np.zeros((4, 64), np.float32), "t")
    gather = helper.make_node("Gather", ["t", "input_ids"], ["y"])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n", 64])
    weights = GraphWeights(helper.make_model(helper.make_graph([gather], "g", [ids], [y], [zeros])))
    assert weights.error("t", weights.round("t", BY_CODE["4b32z"])) == 0


def test_a_group_that_samples_do_not_reach_is_no_safer_than_the_safest():
    roundings = [
        handler._Rounding("a", 0.2, {"4b32z": 0.1}),
        handler._Rounding("b", 0.0, {"4b32z": 0.1}),
        handler._Rounding("c", 1e-9, {"4b32z": 0.0}),
    ]
    assert [handler._loss(r) for r in roundings] == [2, 0, 0]
    assert handler._least_loss(roundings) == 2


# --- what is built ----------------------------------------------------------------------------


class FixedRecipes:
    """Values of measured fixed recipes, in place of the views of a record."""

    measured, cell = True, SimpleNamespace(graph=None)

    def __init__(self, **values):
        self.value = values.get


@pytest.fixture(autouse=True)
def exact_bytes(monkeypatch):
    monkeypatch.setattr(tuning, "_NAMES_BYTES", 0)


def chooser(groups, **limits):
    """A chooser without a run: int8's file has 40 further bytes, 0.1 further bits."""
    made = object.__new__(tuning._Chooser)
    made._groups, made._limits = groups, limits
    made._uniform = tuning.sum_of(groups, {g.name: "8b32" for g in groups})
    made._views = {
        "int8": FixedRecipes(file_bytes=340, divergence_bits=0.1 + 0.03, peak_bytes=1340),
        "int4": FixedRecipes(file_bytes=240),
        "int4s": FixedRecipes(file_bytes=200),
    }
    return made


GROUPS = [
    GroupChoices(
        f"g{n}",
        (f"m{n}",),
        (FormatCost("8b32", 0.01, 100, 2e-3), FormatCost("4b32z", 0.1 * (n + 1), 50, 1e-3)),
    )
    for n in range(3)
]


def formats_of(candidates):
    return [[c.format for c in candidate.assignment.choices] for candidate in candidates]


def test_there_is_a_tuned_variant_for_the_bytes_of_each_recipe():
    candidates, duels = chooser(GROUPS).candidates()
    assert formats_of(candidates) == [
        ["8b32"] * 3,
        ["4b32z", "4b32z", "8b32"],
        ["4b32z"] * 3,
    ]
    assert [d.fixed for d in duels] == ["int8", "int4", "int4s"]
    assert {d.tuned for d in duels} == {c.name for c in candidates}


def test_a_limit_of_bytes_is_one_of_the_whole_file():
    candidates, duels = chooser(GROUPS, file_bytes=291).candidates()
    assert formats_of(candidates)[0] == ["4b32z", "8b32", "8b32"]
    assert [d.fixed for d in duels] == ["int4", "int4s"]


def test_a_limit_of_memory_counts_what_int8_needs_beside_its_file():
    candidates, _ = chooser(GROUPS, peak_bytes=1291).candidates()
    assert formats_of(candidates)[0] == ["4b32z", "8b32", "8b32"]


def test_a_limit_of_divergence_counts_what_predictions_lack():
    candidates, _ = chooser(GROUPS, divergence_bits=0.1 + 0.13).candidates()
    assert ["4b32z", "8b32", "8b32"] in formats_of(candidates)


def test_nothing_is_built_where_nothing_fits():
    assert chooser(GROUPS, file_bytes=100).candidates() == ([], ())


def test_two_assignments_of_almost_equal_bytes_have_two_names():
    made, found = chooser(GROUPS), {}
    big = [GroupChoices("g", ("m",), (FormatCost(f"f{n}", 0, 10**8 + n, 0),)) for n in range(2)]
    names = [made._add(found, tuning.sum_of([g], {"g": g.formats[0].format})) for g in big]
    assert len(set(names)) == len(found) == 2
    assert made._add(found, found[names[1]]) == names[1]


def test_least_quality_is_a_limit_of_divergence():
    record = load(ROOT / "tests" / "data" / "record-5.json")
    limit = tuning._quality_limit(record, 0.99)
    view = next(v for v in cell_views([record]) if v.cell.precision == "fp32")
    assert limit.metric == "divergence_bits"
    assert math.isclose(limit.most, 0.01 * view.value("gain_bits_per_token"))


def test_a_limit_of_latency_is_one_of_the_products(monkeypatch):
    made = chooser(GROUPS, decode_s=10e-3)
    made._context, made._cells = None, {"int8": None}
    monkeypatch.setattr(tuning, "get_or_build", lambda context, cell: ReadyGraph(None, None))
    monkeypatch.setattr(tuning, "decode_seconds_alone", lambda *given: 11e-3)
    candidates, _ = made.candidates()
    assert formats_of(candidates)[0] == ["4b32z", "8b32", "8b32"]
    assert all(c.assignment.seconds <= 5e-3 + 1e-12 for c in candidates)


# --- the command ------------------------------------------------------------------------------


@pytest.mark.export
def test_the_command_writes_a_folder_that_others_take(cache, tmp_path):
    out, records = tmp_path / "tuned", tmp_path / "records"
    words = ("--documents", "1", "--limit", "0.1", "--cache", cache, "--records", records)
    done = edgecap("tune", *words, "--max-bytes", "1.2MB", "--prefer", "quality", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "Ship tuned-1.2MB" in done.stdout
    assert "at their bytes" in done.stdout
    listed = json.loads((out / "edgecap.json").read_text())["graphs"]
    assert [g["precision"] for g in listed] == ["tuned"]
    assert sum(f["bytes"] for f in listed[0]["files"]) <= 1.2e6
    record = next(records.glob("*.json"))
    cells = {c["precision"]: c for c in json.loads(record.read_text())["cells"]}
    assert {"fp32", "int8", "int4", "int4s", "tuned-1.2MB"} <= cells.keys()
    tuned = cells["tuned-1.2MB"]["graph"]
    assert len(set(tuned["formats"].values())) > 1
    assert tuned["divergence_bits"] < cells["int4s"]["graph"]["divergence_bits"]
    assert math.isclose(tuned["bytes"], 1.2e6, rel_tol=0.02)
    page = tmp_path / "front.html"
    assert edgecap("report", record, "-o", page).returncode == 0
    assert "front-divergence" in page.read_text()
    again = edgecap("export", "--model", out, "-o", tmp_path / "copied")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "copied" / "tuned" / "model.onnx").is_file()


def test_a_limit_that_nothing_meets_is_status_1(monkeypatch, tmp_path):
    record = load(ROOT / "tests" / "data" / "record-1.json")
    nothing = recommend([record], [parse_limit("--max-file", "1kB")])
    monkeypatch.setattr(
        tuning, "tune", lambda *given: tuning.TuningResult(record, nothing, (), None, {})
    )
    done = CliRunner().invoke(cli, ["tune", "--max-bytes", "1kB", "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "Nothing fits" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-kl", "0.1", "--min-quality", "0.9"), "give one of them"),
        (("one-model", "--model", "another"), "give one model"),
        (("./nothing",), "no model './nothing'"),
        (("--min-quality", "1.2"), "--min-quality"),
        (("--max-bytes", "fast"), "--max-bytes"),
        (("--prefer", "colour"), "colour"),
        (("--provider", "abacus"), "abacus"),
    ],
)
def test_wrong_requests_are_refused_at_once(words, message, tmp_path):
    done = edgecap("tune", *words, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_overwritten(tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        tune(Spec(), tmp_path, home=resolve_paths(tmp_path / "c", tmp_path / "r"))


def test_an_encoder_is_refused(cache, tmp_path):
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 100}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    save_file({"x": np.zeros(1)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UsageError, match="is an encoder"):
        tune(Spec(model=str(tmp_path / "model")), tmp_path / "out", home=resolve_paths(cache))


def test_a_sweep_does_not_know_the_bytes_of_a_tuned_variant():
    assert estimates.graph_bytes(str(REFERENCE), "int8") > 0
    assert estimates.graph_bytes(str(REFERENCE), "tuned") is None


def test_tuned_is_no_variant_of_a_plain_model(tmp_path):
    done = edgecap("profile", "--precision", "tuned", "-o", tmp_path)
    assert done.returncode == 2
    assert "edgecap tune" in done.stderr
