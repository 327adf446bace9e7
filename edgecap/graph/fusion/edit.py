"""Change a graph in place: remove identities and dead nodes, replace nodes, declare shapes.

Weights are never copied, and protobuf objects that stay keep their identity. Call `Flow.refreshed`
after a change.
"""

from __future__ import annotations

from typing import Any

from edgecap.graph.fusion.flow import PRIME_SIZES, Flow, names_used
from edgecap.graph.traversal import nested_graphs, sorted_nodes


def rename_inputs(model: Any, names: dict[str, str]) -> None:
    """Replace inputs of all nodes by name, those in subgraphs too."""
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            for at, name in enumerate(node.input):
                if name in names:
                    node.input[at] = names[name]


def drop_identities(flow: Flow) -> None:
    """Remove Identity, and Cast to the type that a tensor has."""
    fixed_names = flow.outputs | _used_in_subgraphs(flow)
    renamed: dict[str, str] = {}
    removed = set[int]()
    for node in [n for n in flow.nodes if _changes_nothing(flow, n)]:
        source, result = renamed.get(node.input[0], node.input[0]), node.output[0]
        if result not in fixed_names:
            renamed[result] = source
        elif result in flow.outputs and source in flow.producer and source not in fixed_names:
            _rename_output(flow, source, result)
            renamed |= {name: result for name, other in renamed.items() if other == source} | {
                source: result
            }
            removed.add(id(node))
    retain(flow.model.graph.node, [n for n in flow.nodes if id(n) not in removed])
    rename_inputs(flow.model, renamed)
    drop_dead(flow.model)


def _used_in_subgraphs(flow: Flow) -> set[str]:
    """Return the tensors that subgraphs take from the graph around them."""
    pairs = zip(flow.nodes, flow.inputs_of, strict=True)
    return {
        name
        for node, names in pairs
        if len(node.attribute)
        for name in set(names).difference(node.input)
    }


def _rename_output(flow: Flow, name: str, output: str) -> None:
    """Rename the output of a tensor's producer to a graph output."""
    outputs = flow.producer[name].output
    outputs[list(outputs).index(name)] = output
    flow.producer[output] = flow.producer[name]


def _changes_nothing(flow: Flow, node: Any) -> bool:
    if node.op_type != "Cast":
        return bool(node.op_type == "Identity")
    types = [flow.tensor(name).kind for name in (node.input[0], node.output[0])]
    return types[0] == types[1] != 0


def replace_nodes(model: Any, replaced: set[str], nodes: list[Any]) -> None:
    """Replace the producers of tensors with new nodes, sort, and remove dead nodes."""
    retain(model.graph.node, [n for n in model.graph.node if replaced.isdisjoint(n.output)])
    model.graph.node.extend(nodes)
    drop_dead(model)


def drop_dead(model: Any) -> None:
    """Remove nodes that lead to no output, stored tensors only they used, and their value infos."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    alive = []
    for node in reversed(sorted_nodes(graph)):
        if needed.intersection(node.output):
            alive.append(node)
            needed.update(names_used(node))
    retain(graph.node, alive[::-1])
    retain(graph.initializer, [t for t in graph.initializer if t.name in needed])
    retain(graph.value_info, [v for v in graph.value_info if v.name in needed])


def declare_shapes(flow: Flow) -> None:
    """Declare type and shape of the outputs of operators that onnx does not know.

    Other tools read these declarations.
    """
    from onnx import helper

    graph = flow.model.graph
    names = {PRIME_SIZES.batch: "batch_size", PRIME_SIZES.sequence: "sequence_length"}
    known = {v.name for v in (*graph.value_info, *graph.output)}
    for node in flow.nodes:
        is_unknown = (
            node.domain not in ("", "ai.onnx") or node.op_type == "SimplifiedLayerNormalization"
        )
        for name in node.output if is_unknown else ():
            tensor = flow.tensor(name)
            if name and name not in known and tensor.shape is not None:
                dims = [names.get(size, size) for size in tensor.shape]
                graph.value_info.append(helper.make_tensor_value_info(name, tensor.kind, dims))


def declare_types(flow: Flow) -> None:
    """Declare the types of results that onnx cannot infer, behind the runtime's own operators."""
    from onnx import TensorProto

    graph = flow.model.graph
    known = {v.name for v in (*graph.value_info, *graph.output)}
    for node in flow.nodes:
        for name in node.output if node.domain not in ("", "ai.onnx") else ():
            kind = flow.tensor(name).kind
            if name and name not in known and kind != TensorProto.UNDEFINED:
                graph.value_info.add(name=name).type.tensor_type.elem_type = kind


def retain(field: Any, items: list[Any]) -> None:
    """Keep only the given items of a protobuf field, in that order, without copying weights."""
    order = {id(item): at for at, item in enumerate(items)}
    for at in [at for at, item in enumerate(field) if id(item) not in order][::-1]:
        del field[at]
    if any(item is not other for item, other in zip(field, items, strict=True)):
        field.sort(key=lambda item: order[id(item)])
