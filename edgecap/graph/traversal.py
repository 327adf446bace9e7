"""Traverse a graph: order its nodes, enter nested graphs, find the products of rotary angles."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

_GRAPH, _GRAPHS = 5, 10  # AttributeProto.AttributeType
_KEEPS_ANGLES = frozenset(
    (
        *("Transpose", "Concat", "Cast", "Reshape", "Mul", "Unsqueeze", "Squeeze", "Identity"),
        *("Expand", "Tile", "Slice", "Gather", "GatherND", "GatherElements", "Flatten"),
    )
)


def nested_graphs(graph: Any) -> Iterator[Any]:
    """Yield the graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for part in node.attribute:
            for inner in [part.g] if part.HasField("g") else part.graphs:
                yield from nested_graphs(inner)


def rotary_angle_products(graph: Any) -> set[str]:
    """Return the products of positions and rotary frequencies, by name of the result.

    Such products lead to Cos and Sin and to nothing else.
    """
    return {name for inner in nested_graphs(graph) for name in _angle_products(inner)}


def _angle_products(graph: Any) -> set[str]:
    producers = {o: n for n in graph.node for o in n.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {o.name for o in graph.output}
    queue = [i for n in graph.node if n.op_type in ("Cos", "Sin") for i in n.input]
    products: set[str] = set()
    while queue:
        name = queue.pop()
        producer = producers.get(name)
        if (
            producer is not None
            and producer.op_type in ("MatMul", "Einsum")
            and _leads_to_angles_only(name, users, outputs)
        ):
            products.add(name)
        elif producer is not None and producer.op_type in _KEEPS_ANGLES:
            queue.extend(producer.input)
    return products


def _leads_to_angles_only(name: str, users: dict[str, list[Any]], outputs: set[str]) -> bool:
    next_nodes = users.get(name, [])
    return name not in outputs and all(
        u.op_type in ("Cos", "Sin", "Shape")
        or (u.op_type in _KEEPS_ANGLES and _leads_to_angles_only(u.output[0], users, outputs))
        for u in next_nodes
    )


def sorted_nodes(graph: Any) -> list[Any]:
    """Return the nodes, each behind those that it needs.

    ONNX Runtime takes unsorted graphs, and its fp16 converter writes them. Nodes in a cycle stay in
    their order; their shapes will not be known.
    """
    nodes = list(graph.node)
    producers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    needs = {
        at: {producers[n] for n in _names_used(node) if n in producers}
        for at, node in enumerate(nodes)
    }
    if all(other < at for at, others in needs.items() for other in others):
        return nodes
    try:
        return [nodes[at] for at in TopologicalSorter(needs).static_order()]
    except CycleError:
        return nodes


def _names_used(node: Any) -> Iterator[str]:
    """Yield the inputs of a node, those that its subgraphs take from outside included."""
    yield from node.input
    for part in node.attribute:
        for inner in (part.g, *part.graphs) if part.type in (_GRAPH, _GRAPHS) else ():
            for below in inner.node:
                yield from _names_used(below)
            yield from (o.name for o in inner.output)
