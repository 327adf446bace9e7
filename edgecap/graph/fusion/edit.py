"""Changes a graph in place: views and dead ends go, nodes are replaced, shapes are noted.

Weights are never copied, and what is kept stays the object that it was. What a change leaves a `Flow`
to say is told by taking it `again`.
"""

from __future__ import annotations

from typing import Any

from edgecap.graph.fusion.flow import PRIME_SIZES, Flow, names_used
from edgecap.graph.traversal import nested_graphs, sorted_nodes


def rename_inputs(model: Any, names: dict[str, str]) -> None:
    """Lets every node take another tensor instead of one."""
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            for at, name in enumerate(node.input):
                if name in names:
                    node.input[at] = names[name]


def drop_identities(flow: Flow) -> None:
    """Takes out Identity and casts to the type that a tensor has."""
    fixed = flow.outputs | _taken_inside(flow)
    same: dict[str, str] = {}
    gone = set[int]()
    for node in [n for n in flow.nodes if _changes_nothing(flow, n)]:
        source, result = same.get(node.input[0], node.input[0]), node.output[0]
        if result not in fixed:
            same[result] = source
        elif result in flow.outputs and source in flow.maker and source not in fixed:
            _make_as(flow, source, result)
            same |= {name: result for name, kept in same.items() if kept == source} | {
                source: result
            }
            gone.add(id(node))
    retain(flow.model.graph.node, [n for n in flow.nodes if id(n) not in gone])
    rename_inputs(flow.model, same)
    drop_dead(flow.model)


def _taken_inside(flow: Flow) -> set[str]:
    """Tensors that graphs inside of nodes take from around them."""
    pairs = zip(flow.nodes, flow.taken, strict=True)
    return {
        name
        for node, taken in pairs
        if len(node.attribute)
        for name in set(taken).difference(node.input)
    }


def _make_as(flow: Flow, name: str, output: str) -> None:
    """Lets the maker of a tensor make it under the name of an output."""
    made = flow.maker[name].output
    made[list(made).index(name)] = output
    flow.maker[output] = flow.maker[name]


def _changes_nothing(flow: Flow, node: Any) -> bool:
    if node.op_type != "Cast":
        return bool(node.op_type == "Identity")
    kinds = [flow.tensor(name).kind for name in (node.input[0], node.output[0])]
    return kinds[0] == kinds[1] != 0


def replace_nodes(model: Any, gone: set[str], made: list[Any]) -> None:
    """Takes out the makers of tensors and puts new nodes in, sorted, and whatever leads nowhere then out as well."""
    retain(model.graph.node, [n for n in model.graph.node if gone.isdisjoint(n.output)])
    model.graph.node.extend(made)
    drop_dead(model)


def drop_dead(model: Any) -> None:
    """Removes nodes that lead to no output, the stored tensors that only they used, and notes on their results."""
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
    """Notes type and shape of what operators make that onnx itself does not know, for tools that ask it."""
    from onnx import helper

    graph = flow.model.graph
    names = {PRIME_SIZES.batch: "batch_size", PRIME_SIZES.sequence: "sequence_length"}
    known = {v.name for v in (*graph.value_info, *graph.output)}
    for node in flow.nodes:
        foreign = (
            node.domain not in ("", "ai.onnx") or node.op_type == "SimplifiedLayerNormalization"
        )
        for name in node.output if foreign else ():
            tensor = flow.tensor(name)
            if name and name not in known and tensor.shape is not None:
                dims = [names.get(size, size) for size in tensor.shape]
                graph.value_info.append(helper.make_tensor_value_info(name, tensor.kind, dims))


def retain(field: Any, kept: list[Any]) -> None:
    """Lets a field of protobuf hold only what is kept, in that order; nothing is copied, weights are large."""
    order = {id(item): at for at, item in enumerate(kept)}
    for at in [at for at, item in enumerate(field) if id(item) not in order][::-1]:
        del field[at]
    if any(item is not other for item, other in zip(field, kept, strict=True)):
        field.sort(key=lambda item: order[id(item)])
