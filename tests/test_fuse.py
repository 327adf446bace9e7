"""graph.fuse: fused graphs against plain ones in the runtime, family by family,
and what must stay plain.
"""

import json
import shutil

import numpy as np
import onnx
import pytest
from conftest import REFERENCE
from exports import export_family, exported, family
from families import SMALL
from onnx import helper, numpy_helper

from edgecap.graph.cost.count import count_graph
from edgecap.graph.cost.shapes import GraphWalk
from edgecap.graph.fusion import match_attention, match_rotary
from edgecap.graph.fusion.edit import drop_identities, retain
from edgecap.graph.fusion.flow import Flow
from edgecap.graph.fusion.fuse import fuse
from edgecap.graph.fusion.store_angles import MOST_POSITIONS, store_angles
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.graph.variants import Form, make_variant
from edgecap.machine.info import int8_may_saturate
from edgecap.runtime.sessions import EXACT_INT8

# kind -> rotations, RMSNorms and sums before them that two layers have
WHOLE = {
    "llama": (4, 5, 4), "qwen2": (4, 5, 4), "qwen3": (4, 9, 4), "gemma": (4, 5, 4),
    "gemma2": (4, 9, 4), "gemma3_text": (4, 13, 4), "phi3": (4, 5, 4), "olmo2": (4, 9, 1),
    "smollm3": (4, 5, 4), "granite": (4, 5, 4), "mistral": (4, 5, 4), "stablelm": (4, 0, 0),
    "gpt_neox": (4, 0, 0), "falcon": (4, 0, 0), "opt": (0, 0, 0), "gpt2": (0, 0, 0),
    "gptj": (0, 0, 0), "codegen": (4, 0, 0), "cohere": (4, 3, 0), "gpt_bigcode": (0, 0, 0),
}  # fmt: skip
# (rows, positions of each run): a prompt, pieces of one through the cache, decoding, two rows
RUNS = ((1, (30,)), (1, (7, 1, 12, 1, 1)), (1, (1, 1, 60)), (2, (14, 1, 1)))


@pytest.fixture
def export(cache, tmp_path):
    """Writes an export of a family, its config changed, into a folder of the test's own."""

    def write(kind, sharpness=6, **changes):
        if changes:
            export_family(tmp_path, kind, **changes)
        else:
            shutil.copytree(family(kind, cache) / "plain", tmp_path / "plain")
        return sharpened(tmp_path / "plain", sharpness)

    return write


def sharpened(folder, sharpness):
    """The graph with weights so large that attention looks at few positions."""
    model = open_graph(folder / "model.onnx")
    for tensor in [
        t
        for t in model.graph.initializer
        if len(t.dims) == 2 and min(t.dims) > 3 and t.data_type == 1
    ]:
        tensor.CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(tensor) * np.float32(sharpness), tensor.name
            )
        )
    write_graph(model, folder)
    return folder / "model.onnx"


def fused_beside(path):
    """The fused graph in a folder of its own, and what was said of it."""
    model, folder = open_graph(path), path.parent.parent / f"{path.parent.name}-fused"
    found = fuse(model)
    folder.mkdir(exist_ok=True)
    write_graph(model, folder)
    return folder / "model.onnx", found


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    if int8_may_saturate():
        options.add_session_config_entry(*EXACT_INT8)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def log_probabilities(path, vocabulary=1009):
    """ln p at every position of RUNS, and every present, in order."""
    opened = session(path)
    return [
        found
        for rows, pieces in RUNS
        for found in _through_the_cache(opened, rows, pieces, vocabulary)
    ]


def _through_the_cache(opened, rows, pieces, vocabulary):
    numbers, done = np.random.default_rng(0), 0
    inputs, outputs = (
        {i.name: i for i in opened.get_inputs()},
        [o.name for o in opened.get_outputs()],
    )
    past = {
        name: np.zeros([d if isinstance(d, int) else 0 for d in (rows, *i.shape[1:])], np.float32)
        for name, i in inputs.items()
        if name.startswith("past")
    }
    for new in pieces:
        feeds = {"input_ids": numbers.integers(1, vocabulary, (rows, new)), **past,
                 "attention_mask": np.ones((rows, done + new), np.int64),
                 "position_ids": np.tile(np.arange(done, done + new), (rows, 1))}  # fmt: skip
        found = dict(
            zip(
                outputs,
                opened.run(None, {n: v for n, v in feeds.items() if n in inputs}),
                strict=True,
            )
        )
        past, done = {n: found[n.replace("past_key_values", "present")] for n in past}, done + new
        logits = found["logits"].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(-1, keepdims=True)), list(past.values())


def agree(plain, fused, most=1e-4, vocabulary=1009):
    both = (log_probabilities(path, vocabulary) for path in (plain, fused))
    for (expected, cache), (found, present) in zip(*both, strict=True):
        assert np.abs(expected - found).max() < most
        assert (np.exp(expected) * (expected - found)).sum(-1).mean() / np.log(2) < 1e-5
        assert max(np.abs(a - b).max() for a, b in zip(cache, present, strict=True)) < most


def operators(path):
    return [n.op_type for n in open_graph(path, weights=False).graph.node]


def attributes(path, op="GroupQueryAttention"):
    nodes = [n for n in open_graph(path, weights=False).graph.node if n.op_type == op]
    return [{a.name: helper.get_attribute_value(a) for a in n.attribute} for n in nodes]


@pytest.mark.export
@pytest.mark.parametrize("kind", WHOLE)
def test_every_layer_is_fused_and_says_the_same(kind, export):
    plain = export(kind)
    fused, found = fused_beside(plain)
    assert (found.layers, found.fused, found.missing) == (2, 2, ())
    assert (found.rotary, found.norms, found.skips) == WHOLE[kind]
    names = operators(fused)
    assert names.count("GroupQueryAttention") == 2
    assert not {"Softmax", "LessOrEqual", "IsNaN"} & set(names)
    agree(plain, fused)
    ends = [[o.name for o in open_graph(p, weights=False).graph.output] for p in (plain, fused)]
    assert ends[0] == ends[1]
    for sizes in ((1, 1, 40), (2, 5, 7)):
        before, after = count_graph(plain, *sizes), count_graph(fused, *sizes)
        assert after.matrix_flops == before.matrix_flops
        assert not after.unknown


@pytest.mark.export
@pytest.mark.parametrize(
    ("kind", "windows"),
    [("mistral", [8, 8]), ("phi3", [8, 8]), ("gemma2", [8, -1]), ("gemma3_text", [8, -1])],
)
def test_windows_are_measured(kind, windows, export):
    types = (
        {"layer_types": ["sliding_attention", "full_attention"]} if kind == "gemma3_text" else {}
    )
    plain = export(kind, sliding_window=8, **types)
    fused, found = fused_beside(plain)
    assert found.fused == 2
    assert [a["local_window_size"] for a in attributes(fused)] == windows
    agree(plain, fused)


@pytest.mark.export
def test_scales_are_measured(export):
    plain = export("granite", attention_multiplier=0.0625)
    fused, _ = fused_beside(plain)
    assert [a["scale"] for a in attributes(fused)] == [pytest.approx(0.0625, rel=1e-6)] * 2
    agree(plain, fused)


@pytest.mark.export
@pytest.mark.parametrize("kind", ["bloom", "mpt"])
def test_attention_of_another_kind_stays_plain(kind, export):
    """ALiBi adds a bias by distance."""
    plain = export(kind, 1)
    fused, found = fused_beside(plain)
    assert (found.layers, found.fused) == (2, 0)
    assert [m.split(":")[0] for m in found.missing] == ["layer 0", "layer 1"]
    assert "GroupQueryAttention" not in operators(fused)
    agree(plain, fused)


# --- attention that is changed by hand --------------------------------------------------------


def changed(path, layer, change):
    """The plain graph with nodes between the mask and the softmax of one layer:
    `change` makes them.
    """
    model = open_graph(path)
    softmax = [n for n in model.graph.node if n.op_type == "Softmax"][layer]
    change(model.graph, softmax)
    folder = path.parent.parent / "changed"
    folder.mkdir()
    write_graph(model, folder)
    return folder / "model.onnx"


def before(graph, softmax, make):
    name = softmax.input[0]
    softmax.input[0] = f"{name}/changed"
    graph.node.insert(list(graph.node).index(softmax), make(name, softmax.input[0]))


def capped(cap):
    """Scores capped before the mask is added, as Gemma 2 does in PyTorch's eager attention."""

    def change(graph, softmax):
        mask = next(n for n in graph.node if softmax.input[0] in n.output)
        graph.initializer.append(numpy_helper.from_array(np.float32(cap), "cap"))
        raw, at = mask.input[0], list(graph.node).index(mask)
        mask.input[0] = "capped"
        new = [
            ("Div", [raw, "cap"], "part"),
            ("Tanh", ["part"], "bent"),
            ("Mul", ["bent", "cap"], "capped"),
        ]
        for offset, (op, inputs, output) in enumerate(new):
            graph.node.insert(at + offset, helper.make_node(op, inputs, [output]))

    return change


@pytest.mark.export
@pytest.mark.parametrize("cap", [2.0, 30.0, 50.0])
def test_a_soft_cap_is_measured(cap, export):
    plain = changed(export("llama"), 1, capped(cap))
    fused, found = fused_beside(plain)
    assert found.fused == 2
    assert [a.get("softcap") for a in attributes(fused)] == [None, pytest.approx(cap, rel=1e-4)]
    agree(plain, fused)


@pytest.mark.export
def test_a_bias_is_no_plain_attention(export):
    def change(graph, softmax):
        graph.initializer.append(
            numpy_helper.from_array(np.linspace(0, 1, 4, dtype=np.float32).reshape(1, 4, 1, 1), "b")
        )
        before(
            graph, softmax, lambda a, b: helper.make_node("Mul", [a, "b"], [b])
        )  # another scale for each head

    plain = changed(export("llama"), 0, change)
    fused, found = fused_beside(plain)
    assert found.fused == 1
    assert found.missing[0].startswith("layer 0: ")
    agree(plain, fused)


@pytest.mark.export
def test_attention_to_the_future_is_no_plain_attention(export):
    plain = export("llama")
    model = open_graph(plain)
    for node in [n for n in model.graph.node if n.op_type == "LessOrEqual"]:
        node.op_type = "GreaterOrEqual"
    found = fuse(model)
    assert (found.fused, len(found.missing)) == (0, 2)
    assert all("causal" in m or "softmax" in m or "scores" in m for m in found.missing)


@pytest.mark.export
def test_probabilities_that_do_not_sum_to_one(export):
    def change(graph, softmax):
        name, softmax.output[0] = softmax.output[0], "whole"
        graph.initializer.append(numpy_helper.from_array(np.float32(0.9), "share"))
        graph.node.insert(
            list(graph.node).index(softmax) + 1, helper.make_node("Mul", ["whole", "share"], [name])
        )

    found = fuse(open_graph(changed(export("llama"), 0, change)))
    assert found.fused == 1


# --- what it costs ----------------------------------------------------------------------------


def counted(monkeypatch, room, name):
    """Calls of a function, which go on to it."""
    calls, inner = [], getattr(room, name)
    monkeypatch.setattr(room, name, lambda *given: calls.append(given) or inner(*given))
    return calls


@pytest.mark.export
def test_layers_that_are_alike_are_measured_once(monkeypatch, export):
    """Six layers of two kinds: with a window and without, each with angles of its own."""
    layers = ["sliding_attention", "full_attention"] * 3
    plain = export("gemma3_text", sliding_window=8, layer_types=layers, num_hidden_layers=6)
    attention, rotations = (
        counted(monkeypatch, room, "_measure_and_check") for room in (match_attention, match_rotary)
    )
    fused, found = fused_beside(plain)
    assert (found.fused, found.rotary) == (6, 12)
    assert len(attention) == 2
    assert len(rotations) == 4  # queries and keys
    assert [a["local_window_size"] for a in attributes(fused)] == [8, -1] * 3
    agree(plain, fused)


@pytest.mark.export
def test_each_node_is_walked_through_once(monkeypatch, export):
    model = open_graph(export("llama"))
    drop_identities(Flow(model))
    flow, calls = Flow(model), counted(monkeypatch, GraphWalk, "_node")
    for name in [*flow.position, *flow.position]:
        flow.tensor(name)
    assert len(calls) == len(flow.nodes)
    refreshed = flow.refreshed()
    assert [refreshed.shape(name) for name in refreshed.position] == [
        flow.shape(name) for name in flow.position
    ]
    assert len(calls) == len(flow.nodes)


def test_what_is_kept_is_not_copied():
    model = helper.make_model(
        helper.make_graph([helper.make_node(c, ["x"], [c]) for c in "abcde"], "g", [], [])
    )
    nodes = list(model.graph.node)
    retain(model.graph.node, [nodes[3], nodes[0], nodes[2]])
    assert [n.op_type for n in model.graph.node] == ["d", "a", "c"]
    assert all(
        a is b for a, b in zip(model.graph.node, (nodes[3], nodes[0], nodes[2]), strict=True)
    )


# --- opened without weights, variants, scoring, other hands -----------------------------------


@pytest.mark.export
def test_without_weights_the_same_nodes(export):
    plain = export("llama")
    whole, bare = open_graph(plain), open_graph(plain, weights=False)
    assert fuse(whole) == fuse(bare)
    assert [n.op_type for n in whole.graph.node] == [n.op_type for n in bare.graph.node]


@pytest.mark.export
def test_fusing_twice_changes_nothing_more(export):
    fused, first = fused_beside(export("llama"))
    model = open_graph(fused)
    again = fuse(model)
    assert (again.fused, again.norms, again.skips) == (0, 0, 0)
    assert [n.op_type for n in model.graph.node] == operators(fused)
    assert first.fused == 2


@pytest.fixture(scope="module")
def reference(cache):
    """The project's own small model, plain and fused: the weights are trained."""
    plain = exported(REFERENCE, cache, fused=False) / "fp32/model.onnx"
    return plain, fused_beside(plain)[0]


@pytest.mark.export
@pytest.mark.parametrize(("precision", "most"), [("int8", 3e-2), ("int4", 0.6)])
def test_variants_of_the_fused_graph(precision, most, reference, tmp_path):
    """As near to fp32 as those of the plain graph; both are far on ids drawn at random."""
    expected = [p for p, _ in log_probabilities(reference[0], 8192)]
    far = []
    for kind, path in zip(("plain", "fused"), reference, strict=True):
        (tmp_path / kind).mkdir()
        make_variant(path, Form(precision), tmp_path / kind)
        found = [p for p, _ in log_probabilities(tmp_path / kind / "model.onnx", 8192)]
        pairs = zip(expected, found, strict=True)
        far.append(np.mean([(np.exp(a) * (a - b)).sum(-1).mean() for a, b in pairs]) / np.log(2))
    assert far[0] < most
    assert far[1] == pytest.approx(far[0], rel=0.2, abs=1e-4)
    assert operators(tmp_path / "fused/model.onnx").count("GroupQueryAttention") == 4


def test_the_scoring_head_on_a_fused_graph(reference):
    from edgecap.runtime.engine import OrtEngine

    ids = np.random.default_rng(2).integers(1, 8192, 300)
    bits = [
        OrtEngine(p, "cpu", 2, vocabulary=8192, scoring=scoring_graph(p)).nll(ids[:-1], ids[1:])
        for p in reference
    ]
    assert np.abs(bits[0] - bits[1]).max() < 1e-4


@pytest.mark.oracle
def test_stories260k(shared, cache):
    plain = exported(shared / "models/stories260K", cache, fused=False) / "fp32/model.onnx"
    fused, found = fused_beside(plain)
    config = json.loads((shared / "models/stories260K/config.json").read_text())
    assert (found.fused, found.missing) == (config["num_hidden_layers"], ())
    agree(plain, fused, vocabulary=config["vocab_size"])


def test_onnx_reads_it(reference):
    """Shapes beyond the runtime's own operators are noted in the graph."""
    model = onnx.shape_inference.infer_shapes(open_graph(reference[1]), data_prop=True)
    known = {v.name for v in model.graph.value_info} | {o.name for o in model.graph.output}
    assert all(o in known for n in model.graph.node if n.op_type == "MatMul" for o in n.output)


def test_what_is_fused_already_is_no_layer_that_stayed_plain(reference):
    """Fused once more: nothing is found, nothing is missing, nothing changes."""
    model = open_graph(reference[1])
    before = [n.SerializeToString() for n in model.graph.node]
    found = fuse(model)
    assert (found.layers, found.fused, found.missing) == (0, 0, ())
    assert [n.SerializeToString() for n in model.graph.node] == before


@pytest.mark.export
@pytest.mark.parametrize("width", [24, 32])
@pytest.mark.parametrize("kind", [kind for kind in WHOLE if WHOLE[kind][0]])
def test_stored_angles_turn_as_computed_ones_do(kind, width, export, tmp_path):
    """GroupQueryAttention turns heads of 32 itself; other widths have an operator in front."""
    plain = export(kind, **({"head_dim": 32} if width == 32 and "head_dim" in SMALL[kind] else {}))
    model = open_graph(fused_beside(plain)[0])
    turning = store_angles(model, 211)
    write_graph(model, tmp_path)
    names = operators(tmp_path / "model.onnx")
    assert names.count("RotaryEmbedding") == (0 if turning else 4)
    takes_positions = any(i.name == "position_ids" for i in model.graph.input)
    assert bool({"Cos", "Sin"} & set(names)) != bool(turning or takes_positions)
    agree(plain, tmp_path / "model.onnx")


@pytest.mark.export
def test_angles_that_depend_on_the_length_are_computed(export):
    model = open_graph(fused_beside(export("llama"))[0])
    turning = [n for n in model.graph.node if n.op_type == "RotaryEmbedding"]
    cosines = turning[0].input[2]
    length = [
        helper.make_node("ReduceSum", ["attention_mask"], ["length"], keepdims=0),
        helper.make_node("Cast", ["length"], ["factor"], to=1),
        helper.make_node("Mul", [cosines, "factor"], ["scaled"]),
    ]
    model.graph.node.extend(length)
    for node in turning:
        node.input[2] = "scaled"
    assert store_angles(model, 211) == 0
    assert all(node.input[2] == "scaled" for node in turning)


@pytest.mark.export
def test_angles_of_too_many_positions_are_computed(export):
    model = open_graph(fused_beside(export("llama"))[0])
    assert store_angles(model, MOST_POSITIONS + 1) == 0
    assert "Cos" in {n.op_type for n in model.graph.node}
