"""Nodes of a graph before it is followed: their order, the graphs inside them, and which make rotary angles."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

_GRAPH, _GRAPHS = 5, 10  # AttributeProto.AttributeType
_TO_ANGLES = frozenset(
    {
        *(
            "Transpose",
            "Concat",
            "Cast",
            "Reshape",
            "Mul",
            "Unsqueeze",
            "Squeeze",
            "Identity",
            "Expand",
        ),
        *("Tile", "Slice", "Gather", "GatherND", "GatherElements", "Flatten"),
    }
)


def nested_graphs(graph: Any) -> Iterator[Any]:
    """The graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for part in node.attribute:
            for inner in [part.g] if part.HasField("g") else part.graphs:
                yield from nested_graphs(inner)


def rotary_angle_products(graph: Any) -> set[str]:
    """Results of products of positions and rotary frequencies: they lead to Cos and Sin and to nothing else."""
    return {name for inner in nested_graphs(graph) for name in _angles(inner)}


def _angles(graph: Any) -> set[str]:
    makers = {o: n for n in graph.node for o in n.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {o.name for o in graph.output}
    queue = [i for n in graph.node if n.op_type in ("Cos", "Sin") for i in n.input]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        maker = makers.get(name)
        if (
            maker is not None
            and maker.op_type in ("MatMul", "Einsum")
            and _only_angles(name, users, outputs)
        ):
            found.add(name)
        elif maker is not None and maker.op_type in _TO_ANGLES:
            queue.extend(maker.input)
    return found


def _only_angles(name: str, users: dict[str, list[Any]], outputs: set[str]) -> bool:
    after = users.get(name, [])
    return name not in outputs and all(
        u.op_type in ("Cos", "Sin", "Shape")
        or (u.op_type in _TO_ANGLES and _only_angles(u.output[0], users, outputs))
        for u in after
    )


def sorted_nodes(graph: Any) -> list[Any]:
    """Nodes behind those that they need: ONNX Runtime takes graphs that are not sorted, and its fp16 tool writes them.

    Nodes that wait for one another stay as they are; their shapes will not be known.
    """
    nodes = list(graph.node)
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    waits = {at: {makers[n] for n in _uses(node) if n in makers} for at, node in enumerate(nodes)}
    if all(before < at for at, needed in waits.items() for before in needed):
        return nodes
    try:
        return [nodes[at] for at in TopologicalSorter(waits).static_order()]
    except CycleError:
        return nodes


def _uses(node: Any) -> Iterator[str]:
    """What a node takes in, what its subgraphs take from around them included."""
    yield from node.input
    for part in node.attribute:
        for inner in (part.g, *part.graphs) if part.type in (_GRAPH, _GRAPHS) else ():
            for below in inner.node:
                yield from _uses(below)
            yield from (o.name for o in inner.output)
