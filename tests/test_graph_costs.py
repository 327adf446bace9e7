"""graph.costs: against the architecture's own counts,
against shapes that the runtime has, and by hand.
"""

import json
import warnings
from collections import ChainMap
from functools import partial

import numpy as np
import onnx
import pytest
from conftest import REFERENCE, SMALL, VARIANTS, heavy
from exports import built_by_genai, exported, family, small
from families import torch_kit
from onnx import TensorProto, helper, numpy_helper

from edgecap.errors import UsageError
from edgecap.graph.cost.count import count_graph
from edgecap.graph.cost.input_sizes import RunSize, concrete_inputs, size_of
from edgecap.graph.cost.shapes import GraphWalk
from edgecap.graph.last_logits import keep_last_logits
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.traversal import nested_graphs
from edgecap.model import flops
from edgecap.model.architecture import read_architecture

FLOAT, HALF, INT64, INT32, INT8, UINT8, BOOL = 1, 10, 7, 6, 3, 2, 9
ORT = "com.microsoft"


def graph_of(nodes, inputs, outputs, stored=(), values=()):
    info = [helper.make_tensor_value_info(n, k, s) for n, k, s in (*inputs, *outputs, *values)]
    ends = len(inputs), len(inputs) + len(outputs)
    return helper.make_graph(
        nodes,
        "graph",
        info[: ends[0]],
        info[ends[0] : ends[1]],
        list(stored),
        value_info=info[ends[1] :],
    )


def saved(
    folder, nodes, inputs, outputs, stored=(), values=(), functions=(), opset=21, domains=(ORT,)
):
    imports = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, 1) for d in domains]]
    graph = graph_of(nodes, inputs, outputs, stored, values)
    model = helper.make_model(
        graph, opset_imports=imports, functions=list(functions), ir_version=10
    )
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


def weight(name, *shape, kind=np.float32):
    return numpy_helper.from_array(np.ones(shape, kind), name)


def numbers(name, values, kind=np.int64):
    return numpy_helper.from_array(np.array(values, kind), name)


def node(op, inputs, outputs, domain=ORT, **attributes):
    return helper.make_node(op, inputs.split(" "), outputs.split(), domain=domain, **attributes)


def row(costs, op):
    return next(o for o in costs.operators if o.op == op)


def ledger_adds_up(costs):
    assert sum(o.matrix_flops for o in costs.operators) == costs.matrix_flops
    assert sum(o.other_flops for o in costs.operators) == costs.other_flops


def walked(path, run):
    """Every tensor that edgecap followed, by name."""
    model = open_graph(path, weights=False)
    scope = ChainMap(concrete_inputs(model, run, path))
    GraphWalk(model, partial(size_of, run=run), len).graph(model.graph, scope)
    return scope


def as_run(path, run):
    """Shape and type of every tensor that ONNX Runtime makes of zeros, by name."""
    import onnxruntime

    model = onnx.load(str(path))
    inputs = concrete_inputs(model, run, path)
    known = {o.name for o in model.graph.output}
    kept = [o for n in model.graph.node for o in n.output if o and o not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in kept)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for name, tensor in inputs.items():
        kind = helper.tensor_dtype_to_np_dtype(tensor.kind)
        feeds[name] = np.zeros(tensor.shape, kind) if tensor.value is None else tensor.value
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def same_shapes(path, run):
    found, expected = walked(path, run), as_run(path, run)
    wrong = {
        name: (found.get(name), array.shape)
        for name, array in expected.items()
        if found.get(name) is None
        or found[name].shape != array.shape
        or found[name].kind != helper.np_dtype_to_tensor_dtype(array.dtype)
    }
    assert not wrong
    return len(expected)


# --- decoders ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def folders(cache):
    """Every small kind in all variants, exported once;
    the reference model also with nothing fused.
    """
    made = {
        "reference": exported(REFERENCE, cache, VARIANTS),
        "plain": exported(REFERENCE, cache, VARIANTS, fused=False),
    }

    def folder(kind):
        if kind not in made:
            made[kind] = exported(small(kind, cache), cache, VARIANTS)
        return made[kind]

    return folder


def matrix_work(config, sequence, past, logits=1):
    """What `edgecap.model.flops` counts for positions of one run, all of attention included,
    and the head for the last `logits` of them.
    """
    model = read_architecture(config)
    parts = flops.token_parts(model, 1)
    core = sum(
        n.count
        * 2
        * n.attention.heads
        * (n.attention.head_dim + n.attention.value_dim)
        * (past + sequence)
        for n in model.layers
    )
    words = 2 * (model.embedding_dim or model.hidden) * model.vocabulary
    each = parts.projections + parts.mlp + parts.lm_head - words + core
    return sequence * each + logits * words


@pytest.mark.parametrize(
    "kind", heavy(["reference", *SMALL], pytest.mark.export, core=("reference",))
)
def test_the_graph_and_the_architecture_agree(kind, folders):
    folder = folders(kind)
    config = json.loads((folder / "config.json").read_text())
    stored = {}
    for precision in VARIANTS:
        path = folder / precision / "model.onnx"
        for sequence, past in ((1, 0), (1, 100), (48, 0), (16, 32)):
            found = count_graph(path, 1, sequence, past)
            assert found.unknown == {}, precision
            assert found.matrix_flops == pytest.approx(
                matrix_work(config, sequence, past), rel=1e-9
            ), precision
            ledger_adds_up(found)
            scored = count_graph(path, 1, sequence, past, logits=0).matrix_flops
            assert scored == pytest.approx(matrix_work(config, sequence, past, sequence), rel=1e-9)
        stored[precision] = found.weight_bytes
        tensors = open_graph(path, weights=False).graph.initializer
        assert (
            0.5 < found.weight_bytes / sum(_bytes(t) for t in tensors) < 1.01
        )  # less where only rows are read
        assert count_graph(path, 3, 16, 32).matrix_flops == 3 * found.matrix_flops
    assert stored["fp16"] < 0.6 * stored["fp32"]
    assert stored["int4"] < stored["int8"] < stored["fp16"]


# What Optimum exports of the families whose every weight takes part; the others have no export or
# choose experts.
EXPORTED = (
    *(
        "llama",
        "arcee",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "glm",
        "olmo",
        "olmo2",
    ),
    *(
        "smollm3",
        "granite",
        "cohere",
        "nemotron",
        "stablelm",
        "gpt_neox",
        "falcon",
        "gpt2",
        "gptj",
        "codegen",
    ),
    *("gpt_bigcode", "opt", "bloom", "mpt"),
)


@pytest.mark.export
@pytest.mark.parametrize("kind", EXPORTED)
def test_every_family_agrees_with_its_export(kind, cache, tmp_path):
    """A decoded token and a prompt, exactly: no window is shorter than either.

    The head of every family is found, and computes the last position of a prompt only.
    """
    folder = family(kind, cache)
    architecture = read_architecture(json.loads((folder / "hf/config.json").read_text()))
    token = count_graph(folder / "plain/model.onnx", 1, 1, 40)
    prompt = count_graph(folder / "plain/model.onnx", 1, 24, 0)
    assert not token.unknown
    assert token.matrix_flops == pytest.approx(
        flops.total(flops.token_parts_at(architecture, 41)), rel=1e-9
    )
    assert prompt.matrix_flops == pytest.approx(flops.executed_prefill(architecture, 24), rel=1e-9)
    model = open_graph(folder / "plain/model.onnx")
    assert keep_last_logits(model)
    write_graph(model, tmp_path)
    deployed = count_graph(tmp_path / "model.onnx", 1, 24, 0)
    parts = [
        flops.prefill_parts(architecture, 24, all_logits=each).lm_head for each in (True, False)
    ]
    assert prompt.matrix_flops - deployed.matrix_flops == pytest.approx(parts[0] - parts[1])


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_stories260k_three_ways(shared, cache):
    """A real model by other hands: its graph, its config, and PyTorch's counter."""
    folder = shared / "models/stories260K"
    with torch_kit() as (torch, transformers):
        from torch.utils.flop_counter import FlopCounterMode

        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager"
        ).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.ones((1, 64), dtype=torch.long))
    architecture = read_architecture(json.loads((folder / "config.json").read_text()))
    counted = flops.executed_prefill(architecture, 64)
    angles = 2 * 64 * architecture.layers[0].attention.head_dim / 2
    graph = count_graph(exported(folder, cache) / "fp32/model.onnx", 1, 64, 0, logits=0)
    assert graph.matrix_flops == pytest.approx(counted, rel=1e-9)
    assert counter.get_total_flops() - angles == pytest.approx(counted, rel=1e-6)


def _bytes(tensor):
    return (
        np.prod(tensor.dims, dtype=np.int64)
        * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )


def test_a_tied_table_is_read_once_and_an_untied_one_by_rows(folders):
    tied, untied = folders("reference") / "fp32/model.onnx", folders("llama") / "fp32/model.onnx"
    everything = sum(_bytes(t) for t in open_graph(tied, weights=False).graph.initializer)
    assert count_graph(tied).weight_bytes == pytest.approx(everything, rel=0.005)
    one, many = count_graph(untied, 1, 1), count_graph(untied, 1, 9)
    assert 0 <= many.weight_bytes - one.weight_bytes - 8 * 64 * 4 < 100
    everything = sum(_bytes(t) for t in open_graph(untied, weights=False).graph.initializer)
    assert one.weight_bytes == pytest.approx(everything - 8191 * 64 * 4, rel=0.01)


def test_the_cache_is_read_once_and_grows_by_the_new_positions(folders):
    position = 4 * 2 * 2 * 32 * 4  # layers, key and value, heads, width, bytes
    path = folders("reference") / "fp32/model.onnx"
    assert count_graph(path, 1, 1, 100).cache_bytes == 101 * position
    assert count_graph(path, 2, 16, 32).cache_bytes == 2 * 48 * position
    assert count_graph(path, 1, 64, 0).cache_bytes == 64 * position
    assert (
        count_graph(folders("reference") / "fp16/model.onnx", 1, 1, 100).cache_bytes
        == 101 * position // 2
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_every_shape_is_that_of_the_runtime(precision, folders):
    assert same_shapes(folders("plain") / precision / "model.onnx", RunSize(2, 3, 5)) > 400
    assert same_shapes(folders("reference") / precision / "model.onnx", RunSize(1, 3, 5)) > 80


@pytest.mark.export
@pytest.mark.parametrize("kind", SMALL)
def test_every_shape_of_every_kind(kind, folders):
    assert same_shapes(folders(kind) / "fp32/model.onnx", RunSize(1, 4, 6)) > 80


@pytest.mark.export
@pytest.mark.parametrize(("precision", "ours"), [("fp32", "fp32"), ("int4", "int4b32")])
def test_a_graph_of_the_genai_builder(precision, ours, cache):
    pytest.importorskip("onnxruntime_genai")
    graph = built_by_genai(precision, cache) / "model.onnx"
    found = count_graph(graph, 1, 3, 100)
    folder = exported(REFERENCE, cache, ("fp32", "int4b32"), fused=False)
    plain = count_graph(folder / ours / "model.onnx", 1, 3, 100, logits=0)
    assert found.unknown == {}
    assert (found.matrix_flops, found.cache_bytes) == (plain.matrix_flops, plain.cache_bytes)
    assert found.weight_bytes == pytest.approx(plain.weight_bytes, rel=0.01)
    assert found.activation_bytes < plain.activation_bytes / 3
    assert row(found, "com.microsoft:GroupQueryAttention").nodes == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same_shapes(graph, RunSize(1, 3, 0)) > 20


# --- fused attention --------------------------------------------------------------------------

PAST = ["batch_size", 2, "past_sequence_length", 16]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rotary", [0, 1])
def test_group_query_attention(packed, rotary, tmp_path):
    """4 heads and 2 of keys and values, 16 wide: packed (4 + 2 + 2) x 16."""
    widths = [("q", 128)] if packed else [("q", 64), ("k", 32), ("v", 32)]
    inputs = [(n, FLOAT, ["batch_size", "sequence_length", w]) for n, w in widths]
    inputs += [(f"past_key_values.0.{n}", FLOAT, PAST) for n in ("key", "value")]
    inputs += [("seqlens_k", INT32, ["batch_size"]), ("total_sequence_length", INT32, [])]
    names = ["q", "" if packed else "k", "" if packed else "v", *[i[0] for i in inputs[-4:]]]
    fused = node("GroupQueryAttention", " ".join([*names, *["cos", "sin"] * rotary]),
                 "out present.0.key present.0.value", num_heads=4, kv_num_heads=2,
                 do_rotary=rotary)  # fmt: skip
    outputs = [(n, FLOAT, None) for n in fused.output]
    path = saved(tmp_path, [fused], inputs, outputs, [weight("cos", 64, 8), weight("sin", 64, 8)])
    found = count_graph(path, 2, 3, 10)
    assert found.matrix_flops == 2 * 2 * 4 * 3 * 13 * (16 + 16)
    assert found.other_flops == 2 * 4 * 3 * 13 * 6 + rotary * 3 * 2 * 3 * (4 + 2) * 16
    assert found.cache_bytes == 2 * 2 * 2 * 13 * 16 * 4
    assert found.weight_bytes == rotary * 2 * 6 * 8 * 4  # of 64 rows, those of 2 x 3 tokens
    assert found.activation_bytes == 4 * (2 * 3 * 128 + 2 * 3 * 64 + 2 + 1)
    assert same_shapes(path, RunSize(1, 3, 0)) == 3  # a first prompt in rows of one length
    assert same_shapes(path, RunSize(1, 1, 10)) == 3


def test_multi_head_attention(tmp_path):
    inputs = [(n, FLOAT, ["batch", "sequence", 32]) for n in ("q", "k", "v")]
    inputs += [(f"past_{n}", FLOAT, ["batch", 4, "past_length", 8]) for n in ("key", "value")]
    fused = node(
        "MultiHeadAttention",
        "q k v    past_key past_value",
        "out present_key present_value",
        num_heads=4,
    )
    path = saved(tmp_path, [fused], inputs, [(n, FLOAT, None) for n in fused.output])
    found = count_graph(path, 2, 3, 5)
    assert found.matrix_flops == 2 * 2 * 4 * 3 * 8 * 16
    assert found.cache_bytes == 2 * 2 * 4 * 8 * 8 * 4
    assert same_shapes(path, RunSize(2, 3, 5)) == 3
    (tmp_path / "p").mkdir()
    fused = node("MultiHeadAttention", "qkv", "out", num_heads=4)
    path = saved(
        tmp_path / "p",
        [fused],
        [("qkv", FLOAT, ["batch", "sequence", 4, 3, 8])],
        [("out", FLOAT, None)],
    )
    assert count_graph(path, 2, 3).matrix_flops == 2 * 2 * 4 * 3 * 3 * 16


def test_attention_that_projects(tmp_path):
    inputs = [
        ("x", FLOAT, ["batch", "sequence", 32]),
        ("past", FLOAT, [2, "batch", 4, "past_length", 8]),
    ]
    fused = node("Attention", "x w b  past", "out present", num_heads=4, unidirectional=1)
    path = saved(tmp_path, [fused], inputs, [("out", FLOAT, None), ("present", FLOAT, None)],
                 [weight("w", 32, 96), weight("b", 96)])  # fmt: skip
    found = count_graph(path, 2, 3, 5)
    assert found.matrix_flops == 2 * 2 * 3 * 32 * 96 + 2 * 2 * 4 * 3 * 8 * 16
    assert found.cache_bytes == 2 * 2 * 4 * 8 * 8 * 4
    assert same_shapes(path, RunSize(2, 3, 5)) == 2


@pytest.mark.parametrize("wide", [True, False])
def test_attention_of_onnx(wide, tmp_path):
    def shape(heads):
        return ["batch", heads, "sequence", 16] if wide else ["batch", "sequence", heads * 16]

    inputs = [("q", FLOAT, shape(4)), ("k", FLOAT, shape(2)), ("v", FLOAT, shape(2))]
    inputs += [(f"past_key_values.0.{n}", FLOAT, PAST) for n in ("key", "value")]
    heads = {} if wide else {"q_num_heads": 4, "kv_num_heads": 2}
    names = "out present.0.key present.0.value"
    fused = node(
        "Attention",
        "q k v  past_key_values.0.key past_key_values.0.value",
        names,
        domain="",
        **heads,
    )
    outputs = [(n, FLOAT, None) for n in fused.output]
    found = count_graph(saved(tmp_path, [fused], inputs, outputs, opset=23), 2, 3, 5)
    assert found.unknown == {}
    assert found.matrix_flops == 2 * 2 * 4 * 3 * 8 * 32
    assert found.cache_bytes == 2 * 2 * 2 * 8 * 16 * 4


def test_packed_and_masked_attention(tmp_path):
    """Padding removed: 7 tokens of 2 x 5; and one query against a past that the
    runtime keeps in place.
    """
    fused = node("PackedMultiHeadAttention", "q k v  offset lengths", "out", num_heads=4)
    inputs = [(n, FLOAT, [7, 32]) for n in "qkv"] + [
        ("offset", INT32, [2, 5]),
        ("lengths", INT32, [3]),
    ]
    found = count_graph(saved(tmp_path, [fused], inputs, [("out", FLOAT, None)]), 1, 1)
    assert (found.matrix_flops, found.unknown) == (2 * 2 * 4 * 5 * 5 * 16, {})
    fused = node("PackedAttention", "q w b offset lengths", "out", num_heads=4)
    path = saved(tmp_path, [fused], [inputs[0], *inputs[3:]], [("out", FLOAT, None)],
                 [weight("w", 32, 96), weight("b", 96)])  # fmt: skip
    assert count_graph(path).matrix_flops == 2 * 7 * 32 * 96 + 2 * 2 * 4 * 5 * 5 * 16
    inputs = [(n, FLOAT, ["batch", 1, 32]) for n in "qkv"]
    inputs += [(f"past_{n}", FLOAT, ["batch", 4, 20, 8]) for n in ("key", "value")] + [
        ("past_sequence_length", INT32, [1])
    ]
    fused = node("DecoderMaskedMultiHeadAttention",
                 "q k v   past_key past_value past_sequence_length",
                 "out present_key present_value", num_heads=4,
                 past_present_share_buffer=1)  # fmt: skip
    found = count_graph(
        saved(tmp_path, [fused], inputs, [(n, FLOAT, None) for n in fused.output]), 1, 1, 9
    )
    assert (found.matrix_flops, found.unknown) == (2 * 4 * 10 * 16, {})
    assert found.cache_bytes == 2 * 4 * 8 * 4 * (20 + 1)


# --- quantised matrices -----------------------------------------------------------------------


def test_qlinear_matmul(tmp_path):
    stored = [
        weight("w", 32, 48, kind=np.int8),
        weight("s", kind=np.float32),
        weight("z", kind=np.uint8),
        weight("zw", kind=np.int8),
    ]
    product = node("QLinearMatMul", "x s z w s zw s z", "y", domain="")
    path = saved(
        tmp_path, [product], [("x", UINT8, ["batch", "sequence", 32])], [("y", UINT8, None)], stored
    )
    found = count_graph(path, 2, 3)
    assert found.matrix_flops == 2 * 6 * 32 * 48
    assert found.weight_bytes == 32 * 48 + 4 + 1 + 1
    assert found.activation_bytes == 6 * 32 + 6 * 48
    assert same_shapes(path, RunSize(2, 3, 0)) == 1


@pytest.mark.parametrize(("kind", "size"), [(TensorProto.INT8, 8), (TensorProto.INT4, 4)])
def test_qdq(kind, size, tmp_path):
    """The stored numbers are read once, and nothing of what they are widened to."""
    values = np.ones((32, 48), helper.tensor_dtype_to_np_dtype(kind))
    stored = [numpy_helper.from_array(values, "w"), weight("s")]
    nodes = [
        node("DequantizeLinear", "w s", "wide", domain=""),
        node("Transpose", "wide", "turned", domain="", perm=[1, 0]),
        node("QuantizeLinear", "x s", "narrow", domain=""),
        node("DequantizeLinear", "narrow s", "x2", domain=""),
        node("MatMul", "x2 turned", "y", domain=""),
    ]
    path = saved(
        tmp_path, nodes, [("x", FLOAT, ["batch", "sequence", 48])], [("y", FLOAT, None)], stored
    )
    found = count_graph(path, 1, 3)
    assert found.matrix_flops == 2 * 3 * 32 * 48
    assert found.weight_bytes == 32 * 48 * size // 8 + 4
    assert found.other_flops == 2 * 32 * 48 + (3 + 2) * 3 * 48
    assert found.activation_bytes == 3 * 48 * (4 + 1 + 1 + 4 + 4) + 3 * 32 * 4
    assert row(found, "DequantizeLinear").nodes == 2


def test_other_quantised_products(tmp_path):
    def one(op, names, stored, kind=FLOAT, shape=("batch", "sequence", 32), **attributes):
        path = saved(
            tmp_path,
            [node(op, names, "y", **attributes)],
            [("x", kind, shape)],
            [("y", FLOAT, None)],
            stored,
        )
        found = count_graph(path, 1, 3)
        assert found.unknown == {}, op
        assert found.operators[0].matrix_flops == 2 * 3 * 32 * 48, op
        return found

    w, s, z = weight("w", 32, 48, kind=np.int8), weight("s"), weight("z", kind=np.int8)
    assert one("DynamicQuantizeMatMul", "x w s", [w, s]).weight_bytes == 32 * 48 + 4
    one("MatMulIntegerToFloat", "x w s s z z", [w, s, z], kind=INT8)
    one("MatMulInteger16", "x w", [weight("w", 32, 48, kind=np.int16)], kind=TensorProto.INT16)
    one("QGemm", "x s z w s z", [w, s, z], kind=INT8, shape=[3, 32])
    one("FusedMatMul", "x w", [weight("w", 48, 32)], transB=1)
    one(
        "FusedGemm",
        "x w b",
        [weight("w", 48, 32), weight("b", 48)],
        shape=[3, 32],
        transB=1,
        activation="Relu",
    )
    one(
        "MatMulBnb4",
        "x w s",
        [weight("w", 768, kind=np.uint8), weight("s", 24)],
        K=32,
        N=48,
        block_size=64,
        quant_type=1,
    )
    one(
        "MatMulFpQ4",
        "x w n",
        [weight("w", 900, kind=np.uint8), numbers("n", [32, 48])],
        blk_quant_type=1,
    )
    one("GemmFastGelu", "x w b", [weight("w", 32, 48), weight("b", 48)])


def nbits(rows, width, bits=4, block=32):
    return [
        weight("w", rows, width // block, block * bits // 8, kind=np.uint8),
        weight("s", rows * width // block),
    ]


@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_nbits(bits, tmp_path):
    product = node("MatMulNBits", "x w s", "y", K=64, N=48, bits=bits, block_size=32)
    path = saved(
        tmp_path,
        [product],
        [("x", FLOAT, ["batch", "sequence", 64])],
        [("y", FLOAT, None)],
        nbits(48, 64, bits),
    )
    found = count_graph(path, 2, 3)
    assert found.matrix_flops == 2 * 6 * 64 * 48
    assert found.weight_bytes == 64 * 48 * bits // 8 + 4 * 48 * 2
    assert (
        row(found, "com.microsoft:MatMulNBits").bytes == found.weight_bytes + found.activation_bytes
    )
    assert same_shapes(path, RunSize(2, 3, 0)) == 1


@pytest.mark.parametrize("multiplied", [False, True])
def test_gather_block_quantized(multiplied, tmp_path):
    """Rows of a table, and the whole of it once where it is multiplied too."""
    stored = [
        weight("t", 100, 32, kind=np.uint8),
        weight("s", 100, 2),
        numbers("shape", [100, 2, 16]),
    ]
    nodes = [
        node(
            "GatherBlockQuantized",
            "t input_ids s",
            "x",
            gather_axis=0,
            quantize_axis=1,
            block_size=32,
            bits=4,
        )
    ]
    if multiplied:
        nodes += [
            node("Reshape", "t shape", "w", domain=""),
            node("MatMulNBits", "x w s", "y", K=64, N=100, bits=4, block_size=32),
        ]
    path = saved(
        tmp_path,
        nodes,
        [("input_ids", INT64, ["b", "s"])],
        [("y" if multiplied else "x", FLOAT, None)],
        stored,
    )
    found = count_graph(path, 1, 3)
    assert found.weight_bytes == (100 if multiplied else 3) * (32 + 2 * 4)
    assert found.matrix_flops == multiplied * 2 * 3 * 64 * 100
    assert (
        row(found, "com.microsoft:GatherBlockQuantized").bytes == 3 * (32 + 8) + 3 * 8 + 3 * 64 * 4
    )
    assert same_shapes(path, RunSize(1, 3, 0)) >= 1


# --- experts, norms, convolutions -------------------------------------------------------------


def test_moe(tmp_path):
    """8 experts, 2 a token: 64 -> 48 and back, with a gate."""
    stored = [weight("a", 8, 48, 64), weight("b", 8, 64, 48), weight("c", 8, 48, 64)]
    mixed = node("MoE", "x router a  b  c", "y", k=2, activation_type="silu")
    inputs = [("x", FLOAT, ["batch", "sequence", 64]), ("router", FLOAT, ["tokens", 8])]
    found = count_graph(saved(tmp_path, [mixed], inputs, [("y", FLOAT, None)], stored), 1, 3)
    assert found.matrix_flops == 2 * 3 * 2 * (3 * 48 * 64)
    assert found.weight_bytes == 6 * 3 * 48 * 64 * 4  # at most 3 x 2 of the 8 experts
    assert count_graph(tmp_path / "model.onnx", 1, 9).weight_bytes == 8 * 3 * 48 * 64 * 4
    assert found.activation_bytes == 4 * (2 * 3 * 64 + 3 * 8)


@pytest.mark.parametrize("bits", [4, 8])
def test_qmoe(bits, tmp_path):
    """Gate and inner width interleaved in one matrix of 2 x 48 rows, packed."""
    pack = 8 // bits
    stored = [weight("a", 8, 96, 64 // pack, kind=np.uint8), weight("as", 8, 96),
              weight("b", 8, 64, 48 // pack, kind=np.uint8), weight("bs", 8, 64)]  # fmt: skip
    mixed = node(
        "QMoE",
        "x router a as  b bs",
        "y",
        k=2,
        expert_weight_bits=bits,
        activation_type="swiglu",
        swiglu_fusion=1,
    )
    inputs = [("x", FLOAT, ["batch", "sequence", 64]), ("router", FLOAT, ["tokens", 8])]
    found = count_graph(saved(tmp_path, [mixed], inputs, [("y", FLOAT, None)], stored), 1, 3)
    assert found.matrix_flops == 2 * 3 * 2 * (3 * 48 * 64)
    assert found.weight_bytes == 6 * ((96 * 64 + 64 * 48) // pack + (96 + 64) * 4)


def test_norms_and_gelus(tmp_path):
    """Every one's convention, on 2 x 3 x 32 numbers;
    the sum that Skip forms give is written too.
    """
    stored = [weight("g", 32), weight("b", 32)]

    def one(op, names, outputs="y", **attributes):
        inputs = [
            (n, FLOAT, ["batch", "sequence", 32]) for n in ("x", "skip") if n in names.split(" ")
        ]
        path = saved(
            tmp_path, [node(op, names, outputs, **attributes)], inputs, [("y", FLOAT, None)], stored
        )
        found = count_graph(path, 2, 3)
        assert found.unknown == {}, op
        assert found.matrix_flops == 0
        return found.other_flops / (2 * 3 * 32)

    assert one("SkipSimplifiedLayerNormalization", "x skip g") == 5
    assert one("SkipSimplifiedLayerNormalization", "x skip g b") == 6
    assert one("SkipLayerNormalization", "x skip g b") == 8
    assert one("SimplifiedLayerNormalization", "x g", domain="", axis=-1) == 4
    assert one("LayerNormalization", "x g b", domain="") == 7
    assert one("LayerNormalization", "x g", domain="") == 6
    assert one("Gelu", "x") == one("Gelu", "x", domain="") == 5
    assert one("Gelu", "x", domain="", approximate="tanh") == 9
    assert one("FastGelu", "x b") == 10
    assert one("BiasGelu", "x b") == 6
    assert one("QuickGelu", "x") == 3
    assert one("Softmax", "x", domain="") == 5
    assert one("ReduceSum", "x", domain="") == 1
    assert one("DynamicQuantizeLinear", "x", "y s z", domain="") == 5


def test_skip_norm_gives_the_sum(tmp_path):
    names = ["y", "", "", "sum"]
    skip = helper.make_node(
        "SkipSimplifiedLayerNormalization", ["x", "skip", "g"], names, domain=ORT
    )
    inputs = [(n, FLOAT, ["batch", "sequence", 32]) for n in ("x", "skip")]
    path = saved(
        tmp_path, [skip], inputs, [("y", FLOAT, None), ("sum", FLOAT, None)], [weight("g", 32)]
    )
    assert count_graph(path, 2, 3).activation_bytes == 4 * 4 * (2 * 3 * 32)
    assert same_shapes(path, RunSize(2, 3, 0)) == 2


def test_convolution_and_einsum(tmp_path):
    path = saved(tmp_path, [node("Conv", "x w b", "y", domain="", pads=[1, 1], group=2)],
                 [("x", FLOAT, ["batch", 8, "length"])], [("y", FLOAT, None)],
                 [weight("w", 16, 4, 3), weight("b", 16)])  # fmt: skip
    found = count_graph(path, 2, 10)
    assert (found.matrix_flops, found.other_flops) == (2 * (2 * 16 * 10) * 4 * 3, 2 * 16 * 10)
    for equation, flops_, shape in (("bsd,df->bsf", 2 * 6 * 32 * 48, (32, 48)),
                                    ("...d,df", 2 * 6 * 32 * 48, (32, 48)),
                                    ("bsd,f->bsdf", 0, (48,))):  # fmt: skip
        path = saved(tmp_path, [node("Einsum", "x w", "y", domain="", equation=equation)],
                     [("x", FLOAT, ["batch", "sequence", 32])], [("y", FLOAT, None)],
                     [weight("w", *shape)])  # fmt: skip
        assert count_graph(path, 2, 3).matrix_flops == flops_, equation


# --- subgraphs and functions ------------------------------------------------------------------

X = ("x", FLOAT, ["batch", "sequence", 32])


def branches():
    """then: 32 x 48 and back; else: nothing but a sum."""
    nodes = [node("MatMul", "x w", "m", domain=""), node("MatMul", "m v", "t", domain="")]
    dear = graph_of(nodes, [], [("t", FLOAT, None)], [weight("w", 32, 48), weight("v", 48, 32)])
    cheap = graph_of([node("Add", "x x", "e", domain="")], [], [("e", FLOAT, None)])
    return {"then_branch": dear, "else_branch": cheap}


@pytest.mark.parametrize(("condition", "work"), [(True, 2), (False, 0), (None, 2)])
def test_if(condition, work, tmp_path):
    """The branch that is taken; the dearer one where nobody knows."""
    stored = [] if condition is None else [numbers("c", condition, bool)]
    inputs = [X] if stored else [X, ("c", BOOL, [])]
    nodes = [node("If", "c", "y", domain="", **branches()), node("Relu", "y", "z", domain="")]
    found = count_graph(saved(tmp_path, nodes, inputs, [("z", FLOAT, None)], stored), 1, 3)
    assert found.matrix_flops == work * 2 * 3 * 32 * 48
    assert found.unknown == {}
    assert row(found, "Relu").other_flops == 3 * 32
    assert found.weight_bytes == (2 * 32 * 48 * 4 if work else 0)


def looped(carried="a", condition="more"):
    body = [
        node("MatMul", "a w", "b", domain=""),
        node("Identity", condition, "go", domain=""),
        node("Identity", "b", "scanned", domain=""),
    ]
    return graph_of(body, [("i", INT64, []), ("more", BOOL, []), ("a", FLOAT, None)],
                    [("go", BOOL, []), ("b", FLOAT, None), ("scanned", FLOAT, None)])  # fmt: skip


@pytest.mark.parametrize("condition", ["more", "always", "asked"])
def test_loop(condition, tmp_path):
    """As often as its limit where the body cannot end it; else once, and that is said."""
    stored = [numbers("n", 5), numbers("always", True, bool), weight("w", 32, 32)]
    inputs = [X, ("asked", BOOL, [])]
    nodes = [node("Loop", "n always x", "y all", domain="", body=looped(condition=condition)),
             node("Relu", "y", "z", domain=""), node("Relu", "all", "zs", domain="")]  # fmt: skip
    found = count_graph(
        saved(tmp_path, nodes, inputs, [("z", FLOAT, None), ("zs", FLOAT, None)], stored), 1, 3
    )
    known = condition != "asked"
    assert found.matrix_flops == (5 if known else 1) * 2 * 3 * 32 * 32
    assert found.weight_bytes == 32 * 32 * 4
    assert found.unknown == ({} if known else {"Loop (trip count unknown)": 1, "Relu": 1})
    assert row(found, "Relu").other_flops == 3 * 32 * (6 if known else 1)


def test_scan(tmp_path):
    """As often as the scanned axis is long."""
    nodes = [
        node("MatMul", "row w", "m", domain=""),
        node("Add", "state m", "next", domain=""),
        node("Identity", "m", "out", domain=""),
    ]
    body = graph_of(
        nodes,
        [("state", FLOAT, [1, 48]), ("row", FLOAT, None)],
        [("next", FLOAT, None), ("out", FLOAT, None)],
    )
    scan = node("Scan", "zero x", "last all", domain="", body=body, num_scan_inputs=1)
    stored = [weight("zero", 1, 48), weight("w", 32, 48)]
    path = saved(tmp_path, [scan, node("Relu", "all", "y", domain="")],
                 [("x", FLOAT, ["sequence", 1, 32])], [("last", FLOAT, None), ("y", FLOAT, None)],
                 stored)  # fmt: skip
    found = count_graph(path, 1, 7)
    assert found.matrix_flops == 7 * 2 * 32 * 48
    assert found.other_flops == 7 * 48 + 7 * 48
    assert found.unknown == {}


def test_local_function(tmp_path):
    inner = [node("MatMul", "a b", "m", domain=""), node("Relu", "m", "y", domain="")]
    function = helper.make_function(
        "pkg.own", "Layer", ["a", "b"], ["y"], inner, [helper.make_opsetid("", 21)]
    )
    nodes = [
        node("Layer", "x w", "h", domain="pkg.own"),
        node("Layer", "h v", "y", domain="pkg.own"),
    ]
    path = saved(tmp_path, nodes, [X], [("y", FLOAT, None)],
                 [weight("w", 32, 48), weight("v", 48, 32)], functions=[function],
                 domains=("pkg.own",))  # fmt: skip
    found = count_graph(path, 1, 3)
    assert found.matrix_flops == 2 * 2 * 3 * 32 * 48
    assert row(found, "Relu").nodes == 2


# --- what is not known ------------------------------------------------------------------------


def test_an_unknown_operator_is_listed(tmp_path):
    """Its shape is the graph's word, if it gives one; else what follows is listed with it."""
    nodes = [
        node("DecoderAttention", "x", "h"),
        node("MatMul", "h w", "y", domain=""),
        node("Relu", "y", "z", domain=""),
    ]
    path = saved(
        tmp_path,
        nodes,
        [X],
        [("z", FLOAT, None)],
        [weight("w", 32, 48)],
        values=[("h", FLOAT, ["batch", "sequence", 32])],
    )
    found = count_graph(path, 1, 3)
    assert found.unknown == {"com.microsoft:DecoderAttention": 1}
    assert found.matrix_flops == 2 * 3 * 32 * 48
    path = saved(tmp_path, nodes, [X], [("z", FLOAT, None)], [weight("w", 32, 48)])
    found = count_graph(path, 1, 3)
    assert found.unknown == {"MatMul": 1, "Relu": 1, "com.microsoft:DecoderAttention": 1}
    assert found.weight_bytes == 32 * 48 * 4


def test_inferable_is_not_known(tmp_path):
    """Onnx tells an LSTM's shapes; its cost is still not in edgecap's tables."""
    recurrent = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=16)
    stored = [weight("w", 1, 64, 32), weight("r", 1, 64, 16)]
    path = saved(
        tmp_path,
        [recurrent],
        [("x", FLOAT, ["sequence", "batch", 32])],
        [("y", FLOAT, None)],
        stored,
    )
    found = count_graph(path, 1, 3)
    assert found.unknown == {"LSTM": 1}
    assert found.weight_bytes == 64 * 48 * 4


def test_factors_that_do_not_fit_are_listed(tmp_path):
    path = saved(
        tmp_path,
        [node("MatMul", "x w", "y", domain="")],
        [X],
        [("y", FLOAT, None)],
        [weight("w", 31, 48)],
    )
    assert count_graph(path).unknown == {"MatMul": 1}


def test_an_unknown_domain_is_refused(tmp_path):
    nodes = [node("If", "c", "y", domain="", **branches())]
    nodes[0].attribute[0].g.node[0].domain = "com.example"
    path = saved(tmp_path, nodes, [X, ("c", BOOL, [])], [("y", FLOAT, None)])
    with pytest.raises(
        UsageError, match=r"operators of domain 'com.example' \(\w+\) are not known to edgecap"
    ):
        count_graph(path)


@pytest.mark.parametrize("sizes", [(0, 1, 0), (1, 0, 0), (-1, 1, 0), (1, 1, -1)])
def test_impossible_sizes(sizes, tmp_path):
    with pytest.raises(UsageError, match="batch and sequence are at least 1, past 0"):
        count_graph(tmp_path / "none.onnx", *sizes)


def test_sizes_that_the_graph_does_not_have(tmp_path):
    table = [weight("t", 100, 32)]
    path = saved(
        tmp_path,
        [node("Gather", "t input_ids", "y", domain="")],
        [("input_ids", INT64, [1, 16])],
        [("y", FLOAT, None)],
        table,
    )
    assert count_graph(path, 1, 16).weight_bytes == 16 * 32 * 4
    with pytest.raises(UsageError, match="fixes sequence=16 in 'input_ids'"):
        count_graph(path, 1, 1)
    with pytest.raises(UsageError, match="has no cache"):
        count_graph(path, 1, 16, 5)


def test_damaged_graphs_are_listed(tmp_path):
    """Inputs left out, a branch that is missing, sizes of -1 for open ones: no exception,
    nothing taken for nothing.
    """
    nodes = [node("If", "c", "y", domain=""), node("Shape", "", "s", domain=""),
             node("MatMul", "x", "m", domain=""), node("Gather", "x", "g", domain="")]  # fmt: skip
    inputs = [("x", FLOAT, [-1, -1, 32]), ("c", BOOL, [])]
    path = saved(tmp_path, nodes, inputs, [(n, FLOAT, None) for n in "ysmg"])
    assert count_graph(path, 2, 3).unknown == {"Gather": 1, "If": 1, "MatMul": 1}
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UsageError, match="not an ONNX file"):
        count_graph(tmp_path / "text.onnx")


def joined(folder, shape, width, present=None):
    """A cache that keys of 2 heads are joined to, its width left open."""
    nodes = [
        node("Reshape", "x shape", "new", domain=""),
        node("Concat", "past_key_values.0.key new", "present.0.key", domain="", axis=2),
    ]
    inputs = [
        ("x", FLOAT, ["batch", "sequence", 16]),
        ("past_key_values.0.key", FLOAT, ["batch", 2, "past_sequence_length", "head_dim"]),
    ]
    return saved(
        folder,
        nodes,
        inputs,
        [("present.0.key", FLOAT, present)],
        [numbers("shape", [0, 2, -1, width])],
    )


def test_a_width_that_the_cache_leaves_open(tmp_path):
    path = joined(tmp_path, "shape", 8)
    assert count_graph(path, 1, 3, 5).cache_bytes == 2 * 8 * 8 * 4
    path = saved(tmp_path, [node("Neg", "past_key_values.0.key", "present.0.key", domain="")],
                 [("past_key_values.0.key", FLOAT,
                   ["batch", 2, "past_sequence_length", "head_dim"])],
                 [("present.0.key", FLOAT,
                   ["batch", 2, "total_sequence_length", "head_dim"])])  # fmt: skip
    with pytest.raises(
        UsageError, match="leaves dimension 'head_dim' of 'past_key_values.0.key' open"
    ):
        count_graph(path, 1, 3, 5)


# --- the arithmetic of shapes -----------------------------------------------------------------


def test_shapes_that_a_graph_computes(tmp_path):
    """Shape -> Gather -> Concat -> Reshape, as exporters write it,
    and NonZero of a mask of ones.
    """
    nodes = [
        node("Shape", "x", "sizes", domain=""),
        node("Gather", "sizes one", "length", domain=""),
        node("Mul", "length four", "more", domain=""),
        node("Concat", "minus more eight", "wanted", domain="", axis=0),
        node("Reshape", "x wanted", "y", domain=""),
        node("Relu", "y", "z", domain=""),
        node("NonZero", "attention_mask", "where", domain=""),
        node("Cast", "where", "floats", domain="", to=FLOAT),
    ]
    stored = [numbers(n, [v]) for n, v in (("one", 1), ("four", 4), ("minus", -1), ("eight", 8))]
    inputs = [X, ("attention_mask", INT64, ["batch_size", "total_sequence_length"])]
    path = saved(tmp_path, nodes, inputs, [("z", FLOAT, None), ("floats", FLOAT, None)], stored)
    found = walked(path, RunSize(2, 3, 0))
    assert found["y"].shape == (2, 12, 8)
    assert found["floats"].shape == (2, 6)
    assert found["wanted"].value.tolist() == [-1, 12, 8]
    assert same_shapes(path, RunSize(2, 3, 0)) == 8
    assert count_graph(path, 2, 3).other_flops == 2 * 3 * 32  # whole numbers are no FLOPs


def test_a_graph_that_is_not_sorted(tmp_path):
    """ONNX Runtime takes it, and its fp16 tool writes it."""
    nodes = [node("Relu", "h", "y", domain=""), node("MatMul", "x w", "h", domain="")]
    path = saved(tmp_path, nodes, [X], [("y", FLOAT, None)], [weight("w", 32, 48)])
    assert count_graph(path, 1, 3).unknown == {}
    nodes[1].input[0] = "y"
    path = saved(tmp_path, nodes, [X], [("y", FLOAT, None)], [weight("w", 32, 48)])
    assert count_graph(path, 1, 3).unknown == {"MatMul": 1, "Relu": 1}


def test_rotary_frequencies_are_no_matrix_work(tmp_path):
    """Positions times frequencies; a product that goes elsewhere too is one."""
    nodes = [
        node("MatMul", "f x", "p", domain=""),
        node("Transpose", "p", "t", domain=""),
        node("Cos", "t", "c", domain=""),
    ]
    ends = [("c", FLOAT, None)]
    path = saved(tmp_path, nodes, [("x", FLOAT, [1, "sequence"])], ends, [weight("f", 16, 1)])
    found = count_graph(path, 1, 3)
    assert (found.matrix_flops, row(found, "MatMul").other_flops) == (0, 2 * 3 * 16)
    path = saved(tmp_path, [*nodes, node("Relu", "p", "r", domain="")],
                 [("x", FLOAT, [1, "sequence"])], [*ends, ("r", FLOAT, None)],
                 [weight("f", 16, 1)])  # fmt: skip
    assert count_graph(path, 1, 3).matrix_flops == 2 * 3 * 16


def test_what_only_stored_tensors_make_is_made_when_loading(tmp_path):
    """A transposed table is read as stored; a product of two stored tensors is
    read as what it is.
    """
    nodes = [
        node("Cast", "w", "wide", domain="", to=FLOAT),
        node("Transpose", "wide", "turned", domain=""),
        node("MatMul", "x turned", "h", domain=""),
        node("Mul", "a b", "ab", domain=""),
        node("Add", "h ab", "y", domain=""),
    ]
    stored = [weight("w", 48, 32, kind=np.float16), weight("a", 1, 48), weight("b", 5, 1)]
    path = saved(tmp_path, nodes, [("x", FLOAT, ["batch", 5, 32])], [("y", FLOAT, None)], stored)
    found = count_graph(path)
    assert found.weight_bytes == 48 * 32 * 2 + 5 * 48 * 4
    assert found.activation_bytes == 4 * 5 * (32 + 48 + 48 + 48)
    assert found.other_flops == 5 * 48


def test_names_of_dimensions():
    run = RunSize(2, 3, 10)
    names = {"batch_size": 2, "sequence_length": 3, "past_sequence_length": 10,
             "past_sequence_length + sequence_length": 13, "total_sequence_length": 13,
             "past_sequence_length + 1": 11, "kv_cache_dim": None, "unk__7": None,
             "batch_size*num_heads": None}  # fmt: skip
    assert {n: size_of(n, run) for n in names} == names


@pytest.mark.slow
def test_ten_thousand_nodes(tmp_path):
    """2,500 blocks of four; every one is counted."""
    nodes, last = [], "x"
    for i in range(2500):
        nodes += [node("MatMul", f"{last} w", f"m{i}", domain=""),
                  node("Shape", f"m{i}", f"s{i}", domain=""),
                  node("Reshape", f"m{i} s{i}", f"r{i}", domain=""),
                  node("Add", f"r{i} b", f"a{i}", domain="")]  # fmt: skip
        last = f"a{i}"
    path = saved(
        tmp_path, nodes, [X], [(last, FLOAT, None)], [weight("w", 32, 32), weight("b", 32)]
    )
    found = count_graph(path, 1, 3)
    assert found.matrix_flops == 2500 * 2 * 3 * 32 * 32
    assert sum(o.nodes for o in found.operators) == 10_000
    assert found.weight_bytes == 4 * (32 * 32 + 32)


def test_graphs_inside_graphs():
    graph = graph_of(
        [node("If", "c", "y", domain="", **branches())], [X, ("c", BOOL, [])], [("y", FLOAT, None)]
    )
    assert len(list(nested_graphs(graph))) == 3
