"""Let a decoder compute logits for the last positions only, as many as the caller asks for.

    [-num_logits_to_keep:] of the head's input -> head -> logits

A prompt needs the logits of its last position, text that is scored those of all. The optional input
`num_logits_to_keep` (int64 scalar; 0: all positions) has the name and meaning of transformers and
transformers.js. Without it a graph answers for the last position. So do programs that do not know
the input: onnxruntime-genai and Optimum take the shape of the logits from their declaration, which
is that of the default.

The head is the product with a stored matrix from which `logits` follow element by element: behind a
bias, scale, soft cap or cast, plain or quantized, tied or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgecap.graph.traversal import sorted_nodes

if TYPE_CHECKING:
    import onnx

KEEP = ("num_logits_to_keep", "logits_to_keep")  # inputs with this meaning; the first is added
RECIPE = "logits of the last positions asked for, v1"
DEPLOYED = 1  # positions of a run that generates
_SEQUENCE_AXIS, _TO_END = 1, 2**63 - 1
_LEAST_OPSET = 10  # Slice with inputs
_PRODUCTS = frozenset(
    (
        *("MatMul", "FusedMatMul", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"),
    )
)
_BY_ELEMENT = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Neg", "Tanh", "Clip", "Min", "Max", "Where", "Cast"),
        *("Identity", "QuantizeLinear", "DequantizeLinear"),
    )
)


class _Head(NamedTuple):
    """The head's product, and the tensors from its result to the logits."""

    product: Any
    behind: list[str]


def keep_last_logits(model: onnx.ModelProto) -> bool:
    """Let a decoder with a KV cache take `num_logits_to_keep`, in place; return if it does now.

    A graph that has such an input, or whose head is not recognized, stays as it is.
    """
    head = _find_head(model) if _is_open(model) else None
    if head is None:
        return False
    _insert_slice(model.graph, head.product)
    _declare(model.graph, head.behind)
    return True


def count_on_host(model: onnx.ModelProto) -> None:
    """Let the runtime keep the number of positions on the host, in place.

    It puts arithmetic of shapes there, and takes the number for one if it is compared with a shape.
    Else a device computes the begin of the slice, and each step waits for it.
    """
    from onnx import helper

    graph, own = model.graph, "edgecap_kept"
    node = next((n for n in graph.node if n.name == f"{own}/negative"), None)
    if node is None or not any(i.name == "input_ids" for i in graph.input):
        return
    axis = helper.make_tensor(f"{own}/second", 7, [], [_SEQUENCE_AXIS])
    graph.initializer.append(axis)
    nodes = [
        helper.make_node("Shape", ["input_ids"], [f"{own}/sizes"], name=f"{own}/sizes"),
        helper.make_node(
            "Gather", [f"{own}/sizes", axis.name], [f"{own}/tokens"], name=f"{own}/tokens"
        ),
        helper.make_node(
            "Min", [node.input[0], f"{own}/tokens"], [f"{own}/fewer"], name=f"{own}/fewer"
        ),
    ]
    node.input[0] = nodes[-1].output[0]
    at = list(graph.node).index(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)


def fix_kept_logits(model: onnx.ModelProto, positions: int) -> None:
    """Make the number of positions a constant, in place; 0 means all."""
    from onnx import helper

    graph = model.graph
    for info in [i for i in graph.input if i.name in KEEP]:
        shape = [max(1, d.dim_value) for d in info.type.tensor_type.shape.dim]
        values = [positions] * (shape[0] if shape else 1)
        for tensor in [t for t in graph.initializer if t.name == info.name]:
            graph.initializer.remove(tensor)
        kind = info.type.tensor_type.elem_type
        graph.initializer.append(helper.make_tensor(info.name, kind, shape, values))
        graph.input.remove(info)


def answers_last_only(graph: onnx.GraphProto) -> bool:
    """Test whether a graph declares logits of one position, and no input to ask for more."""
    dims = next((o.type.tensor_type.shape.dim for o in graph.output if o.name == "logits"), ())
    asks = any(i.name in KEEP for i in graph.input)
    return not asks and len(dims) == 3 and dims[_SEQUENCE_AXIS].dim_value == 1


def _is_open(model: onnx.ModelProto) -> bool:
    """Test whether a graph is a decoder with a cache that answers for all positions."""
    graph = model.graph
    names = {v.name for v in (*graph.input, *graph.initializer)}
    logits = next((o for o in graph.output if o.name == "logits"), None)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    return (
        logits is not None
        and names.isdisjoint(KEEP)
        and any(name.startswith("past_key_values") for name in names)
        and opset >= _LEAST_OPSET
    )


def _find_head(model: onnx.ModelProto) -> _Head | None:
    """Walk back from the logits to the product with a stored matrix."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    stored = stored_tensors(graph)
    users = [name for node in graph.node for name in node.input]
    users += [o.name for o in graph.output]
    name, behind = "logits", list[str]()
    while users.count(name) == 1 and name in producers:
        node = producers[name]
        computed = [i for i in node.input if i and i not in stored]
        behind.append(name)
        if node.op_type in _PRODUCTS and computed == [node.input[0]]:
            return _Head(node, behind)
        if node.op_type not in _BY_ELEMENT or len(computed) != 1:
            return None
        name = computed[0]
    return None


def stored_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that follow from stored ones only, and the scales of whole activations."""
    names = {t.name for t in graph.initializer}
    for node in sorted_nodes(graph):
        given = [name for name in node.input if name]
        if node.op_type == "Constant" or (given and names.issuperset(given)):
            names.update(node.output)
        elif node.op_type == "DynamicQuantizeLinear":
            names.update(node.output[1:])
    return names


def _insert_slice(graph: onnx.GraphProto, product: Any) -> None:
    """Let the head's product read the last positions only."""
    from onnx import TensorProto, helper

    constants = {"shape": [1], "end": [_TO_END], "axis": [_SEQUENCE_AXIS]}
    own = "edgecap_kept"
    graph.initializer.extend(
        helper.make_tensor(f"{own}/{name}", TensorProto.INT64, [1], values)
        for name, values in constants.items()
    )
    limits = [f"{own}/{name}" for name in ("begin", "end", "axis")]
    nodes = [
        helper.make_node("Neg", [KEEP[0]], [f"{own}/negative"], name=f"{own}/negative"),
        helper.make_node(
            "Reshape", [f"{own}/negative", f"{own}/shape"], [f"{own}/begin"], name=f"{own}/begin"
        ),
        helper.make_node(
            "Slice", [product.input[0], *limits], [f"{own}/states"], name=f"{own}/states"
        ),
    ]
    at = list(graph.node).index(product)
    product.input[0] = nodes[-1].output[0]
    for offset, node in enumerate(nodes):
        graph.node.insert(at + offset, node)


def _declare(graph: onnx.GraphProto, behind: list[str]) -> None:
    """Declare the input with its default, and shapes that are no longer those of all positions."""
    from onnx import TensorProto, helper

    graph.input.append(helper.make_tensor_value_info(KEEP[0], TensorProto.INT64, []))
    graph.initializer.append(helper.make_tensor(KEEP[0], TensorProto.INT64, [], [DEPLOYED]))
    for info in [v for v in graph.value_info if v.name in behind]:
        graph.value_info.remove(info)
    logits = next(o for o in graph.output if o.name == "logits").type.tensor_type.shape
    if len(logits.dim) > _SEQUENCE_AXIS:
        logits.dim[_SEQUENCE_AXIS].dim_value = DEPLOYED
