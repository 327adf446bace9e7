"""blocks: rounding, packing, moved scales and mixed formats of int8 and int4."""

import numpy as np
import pytest
from conftest import REFERENCE
from exports import small, stepped
from onnx import helper

from edgecap.errors import UsageError
from edgecap.graph import variants
from edgecap.graph.cost.count import count_graph
from edgecap.graph.onnx_file import inspect_graph, open_graph, write_graph
from edgecap.graph.variants.blocks import rounding
from edgecap.graph.variants.blocks.formats import EIGHT, FOUR, FOUR_LARGE, Format, MatrixNeed, widen
from edgecap.graph.variants.blocks.make import BALANCED, SMALL, make_int4
from edgecap.graph.variants.blocks.moments import measure_moments, relative_error
from edgecap.graph.variants.blocks.nodes import write_contrib
from edgecap.graph.variants.blocks.products import find_products
from edgecap.graph.variants.blocks.smoothing import smooth
from edgecap.graph.variants.blocks.standard import raise_opset, write_standard
from edgecap.graph.weight_formats import weight_formats
from edgecap.runtime.activations import ActivationReader
from edgecap.runtime.engine import OrtEngine
from edgecap.text.corpus import read_corpus
from edgecap.text.tokenizer import read_tokenizer

RNG = np.random.default_rng(7)


def correlated(width, positions=600):
    """Activations with a few large channels, each a mixture of others."""
    mixed = RNG.normal(size=(positions, width)) @ RNG.normal(size=(width, width)) / width**0.5
    return (mixed * np.exp(RNG.normal(size=width))).astype(np.float32)


def moments_of(rows):
    return measure_moments({"x": rows.shape[1]}, [np.arange(len(rows))], lambda n, i: [rows])["x"]


@pytest.mark.parametrize("width", [64, 80, 1100])
def test_fed_back_errors_change_products_least(width):
    matrix, rows = RNG.normal(size=(48, width)).astype(np.float32), correlated(width)
    moments = moments_of(rows)
    errors = [
        relative_error(matrix, rounded.floats()[:, :width], moments)
        for rounded in (
            rounding.round_with_feedback(matrix, 4, 32, moments),
            rounding.round_searched(matrix, 4, 32, moments.diagonal),
            rounding.round_searched(matrix, 4, 32),
        )
    ]
    assert errors[0] < 0.8 * errors[1] < 0.8 * errors[2]


def test_the_moments_are_those_of_all_rows():
    rows = correlated(700)
    moments = moments_of(rows)
    assert [len(s) for s in moments.segments] == [512, 188]
    assert np.allclose(moments.diagonal, np.square(rows).mean(axis=0), rtol=1e-3)
    part = rows[:, 512:]
    assert np.allclose(moments.segments[1], part.T @ part / len(rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1.0, 1e-7, 1e7, 0.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_every_size_are_rounded_as_well(factor, bits):
    matrix = (factor * RNG.normal(size=(16, 100))).astype(np.float32)
    rounded = (
        rounding.round_symmetric(matrix, 8, 32)
        if bits == 8
        else rounding.round_searched(matrix, 4, 32)
    )
    error = np.abs(rounded.floats()[:, :100] - matrix).max()
    assert error <= factor * {4: 0.4, 8: 0.02}[bits]
    assert np.isfinite(rounded.floats()).all()
    assert not rounded.floats()[:, 100:].any()  # padding stands for zero


def test_a_search_is_better_than_the_range():
    matrix = RNG.normal(size=(64, 256)).astype(np.float32)
    searched = rounding.round_searched(matrix, 4, 32).floats()
    low, high = (f(matrix.reshape(64, -1, 32), axis=2, keepdims=True) for f in (np.min, np.max))
    scale = (high - low) / 15
    ranged = np.rint((matrix.reshape(64, -1, 32) - low) / scale) * scale + low
    assert np.square(searched - matrix).sum() < np.square(ranged.reshape(64, -1) - matrix).sum()


WRITERS = {"contrib": write_contrib, "standard": write_standard}
FORMATS = [EIGHT, FOUR, FOUR_LARGE, Format(4, 16, True), Format(4)]


def rounded_to(chosen, width):
    matrix = RNG.normal(size=(48, width)).astype(np.float32)
    if chosen.zero_points:
        return rounding.round_searched(matrix, chosen.bits, chosen.block)
    return rounding.round_symmetric(matrix, chosen.bits, chosen.block)


def written(operators, rounded, width, gathers):
    """A graph that multiplies with a matrix, and gathers rows of it if asked: y, then rows."""
    shapes = {"x": ["n", width], "y": ["n", 48], "ids": ["b", "s"], "rows": ["b", "s", width]}
    kinds = {"ids": 7}
    ends = {n: helper.make_tensor_value_info(n, kinds.get(n, 1), s) for n, s in shapes.items()}
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    gather = helper.make_node("Gather", ["w", "ids"], ["rows"], name="gather")
    nodes, names = ([product, gather], list(ends)) if gathers else ([product], ["x", "y"])
    values = [ends[n] for n in names]
    graph = helper.make_graph(nodes, "one", values[::2], values[1::2])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    first, *others = model.graph.node
    WRITERS[operators](model.graph, "w", rounded, width, [first], others)
    raise_opset(model)
    return model


@pytest.mark.parametrize("operators", WRITERS)
@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize("width", [64, 100])
def test_the_runtime_multiplies_with_the_rounded_weights(operators, chosen, width):
    """Identity rows give back the weights; int8 activations hold 0 and 1 exactly."""
    import onnxruntime

    rounded = rounded_to(chosen, width)
    model = written(operators, rounded, width, gathers=False)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result = session.run(None, {"x": np.eye(width, dtype=np.float32)})[0]
    assert np.allclose(result.T, rounded.floats()[:, :width], rtol=1e-4, atol=1e-5)
    stored = [t for t in model.graph.initializer if t.data_type != 7]  # but sizes
    expected = chosen._replace(zero_points=operators == "standard" or chosen.zero_points)
    filled = 48 if operators == "standard" else 0  # standard zero points fill no last byte of a row
    assert 0 <= expected.size(48, width) - sum(len(t.raw_data) for t in stored) <= filled


@pytest.mark.parametrize("operators", WRITERS)
@pytest.mark.parametrize("chosen", FORMATS)
def test_rows_are_gathered_from_the_bytes_of_the_product(operators, chosen):
    import onnxruntime

    rounded, ids = rounded_to(chosen, 128), np.array([[0, 47, 5], [5, 1, 46]])
    model = written(operators, rounded, 128, gathers=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result, rows = session.run(None, {"x": np.eye(128, dtype=np.float32), "ids": ids})
    assert np.allclose(result.T, rounded.floats(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(rows, rounded.floats()[ids])
    stored = [t for t in model.graph.initializer if t.data_type != 7]
    expected = chosen._replace(zero_points=operators == "standard" or chosen.zero_points)
    assert sum(len(t.raw_data) for t in stored) == expected.size(48, 128)


def test_an_old_graph_gets_no_standard_blocks():
    model = written("contrib", rounded_to(FOUR, 64), 64, gathers=False)
    model.opset_import[0].version = 17
    with pytest.raises(UsageError, match="opset 18 or newer, and this is 17"):
        raise_opset(model)


def test_matrices_that_need_it_get_8_bits_within_the_limit():
    small = {"v": (32, 64, 1e-6, 1), "big": (640, 64, 0.1, 2), "bad": (64, 64, 0.2, 2)}
    candidates = {
        name: MatrixNeed(rows * columns, *(f.size(rows, columns) for f in (FOUR, EIGHT)), error, t)
        for name, (rows, columns, error, t) in small.items()
    }
    bits = FOUR.size(32, 64) * 8 / (32 * 64)
    assert widen(candidates, bits) == []
    assert widen(candidates, 5.2) == ["v", "bad"]
    assert widen(candidates, 8.5) == ["v", "bad", "big"]


@pytest.fixture(scope="module")
def graphs(cache):
    models = {"reference": REFERENCE, "gpt2": small("gpt2", cache), "qwen2": small("qwen2", cache)}
    return {
        (name, finish): stepped(model, cache, finish)[0] / "model.onnx"
        for name, model in models.items()
        for finish in ("plain", "fused")
        if (name, finish) != ("gpt2", "fused")
    }


CASES = [("reference", "plain"), ("reference", "fused"), ("gpt2", "plain"), ("qwen2", "fused")]


def samples(name="reference", count=4, length=96):
    """Ids of texts; models of random weights have smaller vocabularies."""
    tokenizer = read_tokenizer(REFERENCE)
    documents = list(read_corpus("edgecap-calibration").documents)[:count]
    rows = [np.array(tokenizer.encode(d.text)[:length]) for d in documents]
    return rows if name == "reference" else [row % 250 for row in rows]


def answers(path, name="reference"):
    engine = OrtEngine(path, "cpu", 2, vocabulary=8192)
    return engine.log_probabilities(samples(name)[1])


@pytest.mark.export
@pytest.mark.parametrize("case", [c for c in CASES if c[0] != "gpt2"])
def test_moved_scales_leave_the_model_as_it_is(graphs, case, tmp_path):
    path = graphs[case]
    model = open_graph(path)
    products = find_products(model.graph)
    observe, texts = ActivationReader(path, 2), samples(case[0])
    moments = measure_moments({p.source: p.inputs for p in products}, texts, observe)
    moved = smooth(model.graph, products, moments)
    changed = [n for n in moments if not np.allclose(moved[n].diagonal, moments[n].diagonal)]
    assert changed, "nothing was moved"
    write_graph(model, tmp_path)
    p, q = answers(path, case[0]), answers(tmp_path / "model.onnx", case[0])
    assert np.abs((np.exp2(p) * (p - q)).sum(axis=1)).max() < 1e-6
    reader = ActivationReader(tmp_path / "model.onnx", 2)
    again = measure_moments({p.source: p.inputs for p in products}, texts, reader)
    for name in again:  # the moments that were computed are those that a run has
        assert np.allclose(again[name].diagonal, moved[name].diagonal, rtol=1e-3, atol=1e-6)


@pytest.mark.export
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["int8", "int4", "int4s"])
def test_variants_of_other_families_run(graphs, case, precision, tmp_path):
    path = graphs[case]
    texts = samples(case[0])
    variants.make_variant(
        path, variants.Form(precision), tmp_path, texts, ActivationReader(path, 2)
    )
    made = tmp_path / "model.onnx"
    assert inspect_graph(made).precision == ("int8" if precision == "int8" else "int4")
    p, q = answers(path, case[0]), answers(made, case[0])
    assert (np.exp2(p) * (p - q)).sum(axis=1).mean() < 0.3
    described = weight_formats(open_graph(made, weights=False))
    assert described.by_matrix
    assert 4 < described.bits < 10


@pytest.mark.export
@pytest.mark.parametrize("case", [c for c in CASES if c[1] == "plain"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_standard_operators_hold_the_same_weights(graphs, case, precision, tmp_path):
    """Both forms are one variant: size, formats and work; only activations are not rounded."""
    path, texts = graphs[case], samples(case[0])
    paths = {}
    for operators in WRITERS:
        (tmp_path / operators).mkdir()
        paths[operators] = tmp_path / operators / "model.onnx"
        observe = ActivationReader(path, 2)
        form = variants.Form(precision, operators=operators)
        variants.make_variant(path, form, paths[operators].parent, texts, observe)
    contrib, standard = (open_graph(p) for p in paths.values())
    assert "DequantizeLinear" in {n.op_type for n in standard.graph.node}
    assert not any(n.domain == "com.microsoft" for n in standard.graph.node)
    described = [weight_formats(m) for m in (contrib, standard)]
    assert described[0].by_matrix == described[1].by_matrix
    assert described[0].bits == pytest.approx(described[1].bits, rel=0.05)
    facts = [inspect_graph(p) for p in paths.values()]
    for name in ("precision", "vocabulary", "matrix_weights", "positions", "inputs"):
        assert getattr(facts[0], name) == getattr(facts[1], name), name
    costs = [count_graph(p, 1, 1) for p in paths.values()]
    assert costs[0].matrix_flops == costs[1].matrix_flops
    assert costs[0].other_flops == pytest.approx(costs[1].other_flops, rel=0.05)
    assert costs[0].weight_bytes == pytest.approx(costs[1].weight_bytes, rel=0.05)
    p, q = (answers(p, case[0]) for p in paths.values())
    assert (np.exp2(p) * (p - q)).sum(axis=1).mean() < 0.01


@pytest.mark.export
def test_the_same_samples_make_the_same_file(graphs, tmp_path):
    path = graphs["reference", "fused"]
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        variants.make_variant(
            path, variants.Form("int4"), folder, samples(), ActivationReader(path, 2)
        )
    assert len({(f / "model.onnx").read_bytes() for f in folders}) == 1


@pytest.mark.export
def test_samples_make_int4_better_and_it_does_without(graphs, tmp_path):
    path, made = graphs["reference", "fused"], {}
    for name, observe in (("with", ActivationReader(path, 2)), ("without", None)):
        folder = tmp_path / name
        folder.mkdir()
        variants.make_variant(path, variants.Form("int4"), folder, samples(), observe)
        p, q = answers(path), answers(folder / "model.onnx")
        made[name] = (np.exp2(p) * (p - q)).sum(axis=1).mean()
    assert made["with"] < made["without"] < 0.2


@pytest.mark.export
def test_mixed_formats_stay_within_their_limit(graphs):
    path = graphs["reference", "fused"]
    for recipe in (BALANCED, SMALL):
        model = make_int4(open_graph(path), samples(), ActivationReader(path, 2), recipe)
        formats = weight_formats(model).by_matrix
        assert {f[0] for f in formats.values()} <= {"4", "8"}
        sizes = {
            n.name: {a.name: a.i for a in n.attribute}
            for n in model.graph.node
            if n.op_type == "MatMulNBits" and n.output[0] != "logits"
        }
        weights = sum(s["K"] * s["N"] for s in sizes.values())
        stored = sum(
            Format(s["bits"], s["block_size"], s["bits"] == 4).size(s["N"], s["K"])
            for s in sizes.values()
        )
        assert 8 * stored / weights <= max(recipe.limit, 4.63)  # 352 inputs: blocks of 32
        assert weight_formats(model).bits < {SMALL: 4.6, BALANCED: 7.2}[recipe]
