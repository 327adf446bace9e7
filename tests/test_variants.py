"""variants: each is recognised, stays near fp32, decodes as it prefills,
and counts the same matrix FLOPs.
"""

import itertools

import numpy as np
import pytest
from conftest import REFERENCE
from exports import exported, small, stepped

from edgecap.errors import UsageError
from edgecap.graph import variants
from edgecap.graph.cost.count import count_graph
from edgecap.graph.fusion.flow import Flow
from edgecap.graph.last_logits import fix_kept_logits
from edgecap.graph.onnx_file import inspect_graph, open_graph, write_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.graph.variants.bf16 import narrowed
from edgecap.graph.weight_formats import arithmetic_of
from edgecap.runtime.activations import ActivationReader
from edgecap.runtime.engine import OrtEngine
from edgecap.text.corpus import read_corpus
from edgecap.text.tokenizer import read_tokenizer

# Variant -> divergence from fp32 at most, bits a token; bytes of the file at most, for each byte of
# fp32's.
# Measured on the reference model (AVX-512 VNNI, 8 documents): half of these or less.
LIMITS = {
    "fp16": (1e-4, 0.54),
    "bf16": (1e-4, 0.52),
    "int8": (4e-3, 0.29),
    "int8d": (0.02, 0.31),
    "int8w": (2e-3, 0.31),
    "int8wb128": (5e-3, 0.29),
    "int8s": (0.03, 0.31),
    "int4": (0.06, 0.25),
    "int4s": (0.16, 0.17),
    "int4b32": (0.25, 0.19),
    "int4b16": (0.2, 0.22),
    "int4b64": (0.3, 0.17),
    "int4b128": (0.35, 0.165),
    "int4hqq": (0.18, 0.22),
}


@pytest.fixture(scope="module")
def exports(cache):
    """The reference model and gpt2: Gemm, learned positions."""
    models = {"reference": REFERENCE, "gpt2": small("gpt2", cache)}
    return {
        name: stepped(model, cache, "plain")[0] / "model.onnx" for name, model in models.items()
    }


@pytest.fixture(scope="module")
def texts():
    tokenizer = read_tokenizer(REFERENCE)
    documents = read_corpus("edgecap-mixed", 12).documents
    return [np.array([0, *tokenizer.encode(d.text[:1000])][:128], np.int64) for d in documents]


@pytest.fixture(scope="module")
def reference(exports):
    return exports["reference"]


@pytest.fixture(scope="module")
def variant(reference, texts, tmp_path_factory):
    """A variant of the reference model, made once."""
    kept = {}

    def make(precision):
        if precision not in kept:
            kept[precision] = made(
                reference, precision, tmp_path_factory.mktemp(precision), texts[4:]
            )
        return kept[precision]

    return make


def engine(path):
    return OrtEngine(path, "cpu", 2, vocabulary=8192)


def divergence(path, base, texts):
    ours, theirs = engine(path), engine(base)
    pairs = [(theirs.log_probabilities(t), ours.log_probabilities(t)) for t in texts]
    return float(np.mean(np.concatenate([(np.exp2(p) * (p - q)).sum(axis=1) for p, q in pairs])))


def made(base, precision, folder, texts):
    observe = ActivationReader(base, 2)
    files = variants.make_variant(base, variants.Form(precision), folder, texts, observe)
    assert files == ["model.onnx"]
    return folder / "model.onnx"


def decoded_divergence(path, ids):
    """KL of the prediction after 24 tokens, five of which are decoded, from that of a prefill."""
    runner = engine(path)
    cache = runner.prefill(ids[:20])
    for token in ids[20:24].tolist():
        cache = runner.decode(cache, token)
    logits = runner.step(cache, ids[24:25])[0][0].astype(np.float64)
    whole = runner.log_probabilities(ids[:25])[-1]
    logits -= logits.max()
    decoded = (logits - np.log(np.exp(logits).sum())) / np.log(2)
    return (np.exp2(whole) * (whole - decoded)).sum()


def test_every_variant_has_a_limit_here():
    assert LIMITS.keys() == variants.VARIANTS.keys()
    sampled = [name for name in variants.NAMES if variants.samples_of(name)]
    assert sorted(sampled) == ["int4", "int4s", "int8s", "w4a16", "w4a32"]
    places = itertools.product(variants.NAMES, ("cpu", "cuda"))
    forms = {variants.form_of(name, provider) for name, provider in places}
    assert len({form.recipe for form in forms}) == len(forms)


@pytest.mark.export
@pytest.mark.parametrize("precision", LIMITS)
def test_a_variant_of_the_reference_model(reference, texts, precision, variant):
    path = variant(precision)
    bits, share = LIMITS[precision]
    assert inspect_graph(path).precision == {"int4s": "int4"}.get(precision, precision)
    assert 0 <= divergence(path, reference, texts[:4]) < bits
    assert path.stat().st_size < share * reference.stat().st_size
    # Ranges of int8d are those of each run; in blocks, an activation on a tie may go either way.
    assert decoded_divergence(path, texts[0]) < (0.05 if precision == "int8d" else 5e-3)
    ours, theirs = (count_graph(p, sequence=3, past=100) for p in (path, reference))
    assert ours.matrix_flops == theirs.matrix_flops > 0
    assert ours.unknown == {}


@pytest.mark.export
def test_static_ranges_hold_behind_the_longest_sample(reference, texts, tmp_path):
    """Products without weights are left alone: positions times frequencies would be cut at
    the samples' length.
    """
    path = made(reference, "int8s", tmp_path, [t[:32] for t in texts[4:]])
    ids = np.concatenate([texts[0], texts[1], texts[2]])
    p, q = (engine(g).log_probabilities(ids) for g in (reference, path))
    assert (np.exp2(p) * (p - q)).sum(axis=1)[200:].mean() < 3 * LIMITS["int8s"][0]


@pytest.mark.export
@pytest.mark.parametrize(
    "precision", ["bf16", "int8", "int4", "int8w", "int8s", "int4b64", "int4hqq"]
)
def test_the_scoring_copy_answers_as_the_graph_does(texts, precision, variant):
    path = variant(precision)
    ids = texts[0]
    plain = engine(path).log_probabilities(ids[:-1])[np.arange(len(ids) - 1), ids[1:]]
    scorer = OrtEngine(path, "cpu", 2, vocabulary=8192, scoring=scoring_graph(path))
    assert np.allclose(
        scorer.nll(ids[:-1], ids[1:]), -plain, atol=0.05 if precision == "int8s" else 1e-3
    )


@pytest.mark.export
@pytest.mark.parametrize(
    "precision", ["bf16", "int8", "int4", "int8w", "int8s", "int4b64", "int4hqq"]
)
def test_gemm_and_learned_positions(exports, texts, precision, tmp_path):
    path = made(exports["gpt2"], precision, tmp_path, texts[4:])
    assert inspect_graph(path).precision == precision
    assert 0 <= divergence(path, exports["gpt2"], texts[:2]) < 0.05
    ours, theirs = (count_graph(p, sequence=3, past=10) for p in (path, exports["gpt2"]))
    assert ours.matrix_flops == theirs.matrix_flops


@pytest.mark.export
def test_a_tied_table_is_stored_once(variant):
    """The head's 8192 x 128 numbers, at their width: no second tensor as large."""
    for precision, least in (
        ("bf16", 8192 * 128),
        ("int8", 8192 * 128),
        ("int4", 8192 * 64),
        ("int8w", 8192 * 128),
        ("int8s", 8192 * 128),
        ("int4hqq", 524_288),
    ):
        model = open_graph(variant(precision))
        assert sum(np.prod(t.dims) >= least for t in model.graph.initializer) == 1, precision


@pytest.mark.export
def test_hqq_rows_are_the_heads_columns(variant):
    """The unpacked rows of the tied table times one are what MatMulNBits multiplies with."""
    import onnxruntime
    from onnx import helper

    from edgecap.graph.variants.int8_static import feeds

    model = open_graph(variant("int4hqq"))
    stored = {t.name: t for t in model.graph.initializer}
    head = next(
        n for n in model.graph.node if n.op_type == "MatMulNBits" and n.output[0] == "logits"
    )
    ends = [
        helper.make_tensor_value_info(n, 1, ["n", w])
        for n, w in ((head.input[0], 128), ("logits", 8192))
    ]
    graph = helper.make_graph(
        [head], "head", ends[:1], ends[1:], [stored[n] for n in head.input[1:]]
    )
    lone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    product = onnxruntime.InferenceSession(lone.SerializeToString())
    columns = product.run(None, {head.input[0]: np.eye(128, dtype=np.float32)})[0]

    rows = next(n.output[0] for n in model.graph.node if n.name.endswith("/hqq"))
    model.graph.output.append(helper.make_tensor_value_info(rows, 1, None))
    ids = np.array([3, 8191])
    table = onnxruntime.InferenceSession(model.SerializeToString()).run([rows], feeds(model, ids))[
        0
    ][0]
    assert np.allclose(columns[:, ids].T, table, atol=1e-6)


@pytest.mark.export
def test_static_ranges_are_those_of_all_positions(reference, texts, tmp_path):
    """Also of the head's input, of which a deployed graph reads the last position only."""
    model = open_graph(reference)
    fix_kept_logits(model, 0)
    for name in ("one", "all"):
        (tmp_path / name).mkdir()
    whole = tmp_path / write_graph(model, tmp_path)[0]
    asked, fixed = (
        made(base, "int8s", tmp_path / name, texts[4:])
        for base, name in ((reference, "one"), (whole, "all"))
    )
    ranges = [
        {t.name: t.SerializeToString() for t in open_graph(p).graph.initializer}
        for p in (asked, fixed)
    ]
    assert {n for n in ranges[0] if ranges[0][n] != ranges[1].get(n)} == {"num_logits_to_keep"}


@pytest.mark.export
def test_static_needs_samples(reference, tmp_path):
    with pytest.raises(UsageError, match="int8s needs texts"):
        variants.make_variant(reference, variants.Form("int8s"), tmp_path)


def test_bf16_is_rounded_to_nearest_even(tmp_path):
    import torch
    from onnx import numpy_helper

    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    values[:3] = (1.00390625, 1.01171875, -0.0)  # ties, and minus nothing
    bits = np.frombuffer(narrowed(numpy_helper.from_array(values, "w")).raw_data, np.uint16)
    assert np.array_equal(bits, torch.from_numpy(values).bfloat16().view(torch.uint16).numpy())


@pytest.fixture(scope="module")
def fused(cache):
    return exported(REFERENCE, cache) / "fp32/model.onnx"


def made_in(base, weights, arithmetic, folder, texts):
    (folder / arithmetic).mkdir()
    form, observe = variants.Form(weights, arithmetic), ActivationReader(base, 2)
    variants.make_variant(base, form, folder / arithmetic, texts, observe, positions=512)
    return folder / arithmetic / "model.onnx"


def types(path):
    """Return the float types of all results of a graph."""
    flow = Flow(open_graph(path))
    kinds = {flow.tensor(name).kind for node in flow.nodes for name in node.output}
    return kinds & {1, 10, 16}


@pytest.mark.export
@pytest.mark.parametrize("weights", ["int8", "int4", "int4b128", "int8w"])
def test_products_in_fp16_answer_as_those_in_fp32(fused, texts, weights, tmp_path):
    """Run on the CPU what a GPU is given: no number of a step is in fp32."""
    half, single = (made_in(fused, weights, a, tmp_path, texts[4:]) for a in ("fp16", "fp32"))
    assert types(half) == {10}
    assert [arithmetic_of(open_graph(p)) for p in (half, single)] == ["fp16", "fp32"]
    expected = divergence(single, fused, texts[:4])
    assert divergence(half, fused, texts[:4]) == pytest.approx(expected, rel=0.2, abs=1e-5)
    assert decoded_divergence(half, texts[0]) < 1e-3
    assert half.stat().st_size < 1.05 * single.stat().st_size


@pytest.mark.export
def test_fp16_of_a_fused_graph_has_no_fp32(fused, texts, tmp_path):
    path = made_in(fused, "fp16", "fp16", tmp_path, ())
    assert types(path) == {10}
    assert 0 <= divergence(path, fused, texts[:4]) < LIMITS["fp16"][0]
    assert decoded_divergence(path, texts[0]) < 1e-4


@pytest.mark.export
def test_bf16_is_computed_in_bf16(fused, tmp_path):
    """The CPU has no kernels for it: the runtime accepts all types, and then lacks one."""
    path = made_in(fused, "bf16", "bf16", tmp_path, ())
    assert types(path) == {1, 16}
    model = open_graph(path, weights=False)
    widened = [n.output[0] for n in model.graph.node if Flow(model).tensor(n.output[0]).kind == 1]
    assert widened == ["logits"]
    model, source = open_graph(path), open_graph(fused)
    stored = {t.name: t for t in model.graph.initializer}
    for tensor in source.graph.initializer:
        if tensor.data_type == 1 and len(tensor.dims) == 2 and tensor.name in stored:
            assert stored[tensor.name].raw_data == narrowed(tensor).raw_data
    with pytest.raises(Exception, match="Could not find an implementation"):
        engine(path)
