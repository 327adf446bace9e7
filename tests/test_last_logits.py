"""Logits of the last positions that are asked for: rewritten heads, foreign graphs, what runs."""

import numpy as np
import pytest

from edgecap.errors import UsageError
from edgecap.graph.cost.count import count_graph
from edgecap.graph.last_logits import fix_kept_logits, keep_last_logits
from edgecap.graph.onnx_file import inspect_graph, open_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.runtime.engine import EngineError, OrtEngine

WIDTH, WORDS = 32, 64
IDS = np.random.default_rng(0).integers(0, WORDS, 11)
KEEP = "num_logits_to_keep"
onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def node(op, inputs, output, domain="", **more):
    return helper.make_node(op, inputs, [output], domain=domain, **more)


def decoder(
    head, stored=(), opset=17, cached=True, extra=(), kept=None, logits=("batch", "seq", WORDS)
):
    """A decoder of one table and a head; its cache holds what it embeds. `kept`: shape of an input
    for the number of logits, with the head's states cut as that input says.
    """
    rng = np.random.default_rng(1)
    arrays = {
        "table": rng.normal(size=(WORDS, WIDTH)).astype(np.float32),
        "matrix": rng.normal(size=(WIDTH, WORDS)).astype(np.float32),
        "axis": np.array([1], np.int64),
        **dict(stored),
    }
    past = ["batch", 1, "past", WIDTH]
    inputs = [helper.make_tensor_value_info("input_ids", 7, ["batch", "seq"])]
    outputs = [helper.make_tensor_value_info("logits", 1, logits), *extra]
    nodes = [node("Gather", ["table", "input_ids"], "embedded"), node("Tanh", ["embedded"], "x")]
    if cached:
        inputs.append(helper.make_tensor_value_info("past_key_values.0.key", 1, past))
        outputs.append(
            helper.make_tensor_value_info("present.0.key", 1, ["batch", 1, "total", WIDTH])
        )
        nodes += [
            node("Unsqueeze", ["x", "axis"], "own"),
            node("Concat", ["past_key_values.0.key", "own"], "present.0.key", axis=2),
        ]
    if kept is not None:
        inputs.append(helper.make_tensor_value_info("logits_to_keep", 7, kept))
        arrays |= {"one": np.array([1], np.int64), "end": np.array([2**62], np.int64)}
        nodes += [
            node("Neg", ["logits_to_keep"], "minus"),
            node("Reshape", ["minus", "one"], "begin"),
            node("Slice", ["x", "begin", "end", "axis"], "states"),
        ]
    graph = helper.make_graph(
        [*nodes, *head], "g", inputs, outputs,
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def number(value, dtype=np.float32):
    return np.array(value, dtype)


def quantized_blocks():
    rng = np.random.default_rng(2)
    return {
        "packed": rng.integers(0, 256, (WORDS, 1, 16)).astype(np.uint8),
        "scales": rng.uniform(0.1, 1, WORDS).astype(np.float16),
    }


def int8(name="weights"):
    values = np.random.default_rng(3).integers(-127, 128, (WIDTH, WORDS)).astype(np.int8)
    return {name: values, "scale": number(0.05), "zero": number(0, np.int8)}


HEADS = {
    "plain": ([node("MatMul", ["x", "matrix"], "logits")], {}),
    "tied": (
        [node("Transpose", ["table"], "t", perm=[1, 0]), node("MatMul", ["x", "t"], "logits")],
        {},
    ),
    "bias, scale, soft cap": (
        [
            node("MatMul", ["x", "matrix"], "a"),
            node("Add", ["bias", "a"], "b"),
            node("Div", ["b", "cap"], "c"),
            node("Tanh", ["c"], "d"),
            node("Mul", ["d", "cap"], "logits"),
        ],
        {"bias": np.arange(WORDS, dtype=np.float32), "cap": number(30)},
    ),
    "masked words": (
        [node("MatMul", ["x", "matrix"], "a"), node("Where", ["mask", "low", "a"], "logits")],
        {"mask": np.arange(WORDS) > 60, "low": number(-1e4)},
    ),
    "half precision": (
        [
            node("Cast", ["x"], "half", to=10),
            node("Cast", ["matrix"], "half_matrix", to=10),
            node("MatMul", ["half", "half_matrix"], "a"),
            node("Cast", ["a"], "logits", to=1),
        ],
        {},
    ),
    "blocks of 4 bits, scales in half precision": (
        [
            node("Cast", ["scales"], "wide", to=1),
            node("MatMulNBits", ["x", "packed", "wide"], "logits", "com.microsoft",
                 K=WIDTH, N=WORDS, bits=4, block_size=32),
        ],
        quantized_blocks(),
    ),
    "weights only, 8 bits": (
        [
            node("DequantizeLinear", ["weights", "scale", "zero"], "w"),
            node("MatMul", ["x", "w"], "logits"),
        ],
        int8(),
    ),
    "activations and weights, 8 bits": (
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q_scale", "q_zero"]),
            node("MatMulInteger", ["q", "weights", "q_zero", "zero"], "sums"),
            node("Cast", ["sums"], "a", to=1),
            node("Mul", ["q_scale", "scale"], "both"),
            node("Mul", ["a", "both"], "logits"),
        ],
        int8(),
    ),
}  # fmt: skip


def run(model, rows=1, **feeds):
    """Return the logits of a batch of texts, which are not the same."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    ids = np.stack([(IDS + row) % WORDS for row in range(rows)])
    names = {i.name for i in session.get_inputs()}
    if "past_key_values.0.key" in names:
        feeds["past_key_values.0.key"] = np.zeros((rows, 1, 0, WIDTH), np.float32)
    return session.run(["logits"], {"input_ids": ids, **feeds})[0]


def written(model, folder):
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_computes_what_is_asked_for(kind):
    model = decoder(*HEADS[kind])
    whole = run(model, 2)
    assert keep_last_logits(model)
    onnx.checker.check_model(model)
    assert whole.shape == (2, len(IDS), WORDS)
    near = 1e-2 if kind == "half precision" else 1e-5  # the runtime computes it in either precision
    for kept in (0, 1, 3, len(IDS), 99):
        logits = run(model, 2, **{KEEP: number(kept, np.int64)})
        assert np.allclose(logits, whole[:, -kept:], atol=near)
    assert np.allclose(
        run(model, 2), whole[:, -1:], atol=near
    )  # a program that does not know the input
    for kept in (0, 3):
        fixed = onnx.ModelProto.FromString(model.SerializeToString())
        fix_kept_logits(fixed, kept)
        assert np.allclose(run(fixed, 2), whole[:, -kept:], atol=near)
        assert KEEP not in {i.name for i in fixed.graph.input}
    assert not keep_last_logits(model)  # it does already


LEFT = {
    "an encoder, or a decoder without a cache": {"cached": False},
    "an old opset": {"opset": 9},
    "a stated number of logits": {
        "kept": [],
        "head": [node("MatMul", ["states", "matrix"], "logits")],
    },
    "a product of activations": {
        "head": [
            node("Transpose", ["x"], "t", perm=[0, 2, 1]),
            node("MatMul", ["x", "t"], "squares"),
            node("MatMul", ["squares", "x"], "y"),
            node("Concat", ["y", "x"], "logits", axis=2),
        ]
    },
    "a scale of each position": {
        "head": [
            node("MatMul", ["x", "matrix"], "a"),
            node("ReduceMax", ["x"], "m", axes=[2], keepdims=1),
            node("Mul", ["a", "m"], "logits"),
        ]
    },
    "a result that is used elsewhere": {
        "head": [node("MatMul", ["x", "matrix"], "a"), node("Tanh", ["a"], "logits")],
        "extra": [helper.make_tensor_value_info("a", 1, ["batch", "seq", WORDS])],
    },
}


@pytest.mark.parametrize("kind", LEFT)
def test_other_graphs_stay_as_they_are(kind):
    model = decoder(**{"head": HEADS["plain"][0], **LEFT[kind]})
    before = model.SerializeToString()
    assert not keep_last_logits(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("kept", [[], [1], ["n"]])
def test_a_graph_that_asks_for_the_number(kept, tmp_path):
    """As transformers.js has them: an input without a default, which edgecap must give."""
    head = [node("MatMul", ["states", "matrix"], "logits")]
    path = written(decoder(head, kept=kept), tmp_path)
    whole = OrtEngine(
        written(decoder(*HEADS["plain"]), tmp_path / "whole"), "cpu", 1
    ).log_probabilities(IDS)
    check_engine(path, whole)
    assert inspect_graph(path).has_cache


@pytest.mark.parametrize("kind", ["tied", "bias, scale, soft cap"])
def test_the_engine_asks_for_what_it_needs(kind, tmp_path):
    model = decoder(*HEADS[kind])
    whole = OrtEngine(written(model, tmp_path / "whole"), "cpu", 1).log_probabilities(IDS)
    keep_last_logits(model)
    check_engine(written(model, tmp_path), whole)


def check_engine(path, whole):
    """Scoring and samples see all positions; prefill, decode and step compute the last one."""
    engine = OrtEngine(path, "cpu", 1)
    assert np.allclose(engine.log_probabilities(IDS), whole)
    assert np.allclose(engine.log_probabilities(IDS, 4), whole[-4:])
    assert np.allclose(engine.next_log_probabilities(IDS[None]), whole[-1:])
    assert np.allclose(engine.log_probabilities_after(IDS[:-2], IDS[-2:]), whole[-2:, None])
    assert np.allclose(engine.outputs(IDS)[0].shape, (len(IDS), WORDS))
    for ids in (IDS, IDS[:1]):
        outputs, _ = engine._run(ids, engine._empty_cache(), ["logits"])
        assert outputs["logits"].shape() == [1, 1, WORDS]
    scorer = OrtEngine(path, "cpu", 1, scoring=scoring_graph(path))
    picked = whole[np.arange(len(IDS) - 1), IDS[1:]]
    assert np.allclose(scorer.nll(IDS[:-1], IDS[1:]), -picked)
    scorer._positions_per_run = lambda n: 4  # in parts behind a cache
    assert np.allclose(scorer.nll(IDS[:-1], IDS[1:]), -picked)
    heads = [count_graph(path, 1, 11, logits=n).matrix_flops for n in (1, 4, 0)]
    assert heads == [2 * WIDTH * WORDS * n for n in (1, 4, 11)]
    assert count_graph(path, 1, 11).matrix_flops == heads[0]


def test_a_provider_that_takes_the_default_for_a_constant(tmp_path):
    """As OpenVINO does: the graph is opened again where all positions are needed."""
    model = decoder(*HEADS["tied"])
    whole = OrtEngine(written(model, tmp_path / "whole"), "cpu", 1).log_probabilities(IDS)
    keep_last_logits(model)
    engine = OrtEngine(written(model, tmp_path), "cpu", 1)
    give = engine._number_of_logits
    engine._number_of_logits = lambda name, logits: give(name, 1)
    assert np.allclose(engine.log_probabilities(IDS, 1), whole[-1:])
    assert np.allclose(engine.log_probabilities(IDS, 4), whole[-4:])
    assert np.allclose(engine.log_probabilities(IDS), whole)
    assert np.allclose(engine.log_probabilities_after(IDS[:-2], IDS[-2:]), whole[-2:, None])


def test_a_graph_of_the_last_position_only_is_refused(tmp_path):
    """As onnxruntime-genai's builder makes them with prune_lm_head."""
    head = [
        node("Gather", ["x", "last"], "row", axis=1),
        node("Unsqueeze", ["row", "axis"], "rows"),
        node("MatMul", ["rows", "matrix"], "logits"),
    ]
    parts = {"head": head, "stored": {"last": number(-1, np.int64)}}
    path = written(decoder(**parts, logits=("batch", 1, WORDS)), tmp_path)
    with pytest.raises(UsageError, match="last position only, so that text cannot be scored"):
        inspect_graph(path)
    undeclared = written(decoder(**parts), tmp_path)
    with pytest.raises(EngineError, match="logits of 1 of 11 positions"):
        OrtEngine(undeclared, "cpu", 1).log_probabilities(IDS)


@pytest.mark.export
@pytest.mark.parametrize("finish", ["fused", "bare", "plain"])
def test_every_finish_answers_for_the_last_position(finish, cache):
    from conftest import REFERENCE
    from exports import stepped

    folder, answer = stepped(REFERENCE, cache, finish)
    model = open_graph(folder / "model.onnx", weights=False)
    assert KEEP in {i.name for i in model.graph.input}
    assert KEEP not in inspect_graph(folder / "model.onnx").inputs  # none that must be given
    assert answer.fidelity_bits < 1e-6
    one, whole = (count_graph(folder / "model.onnx", 1, 9, logits=n) for n in (1, 0))
    assert whole.matrix_flops - one.matrix_flops == 8 * 2 * 128 * 8192
