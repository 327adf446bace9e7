"""How values flow through a graph: who makes a tensor, who uses it, and what it depends on.

Data is what depends on the tokens themselves; positions, masks and the arithmetic of shapes do not.
`Flow` is a picture of one moment: take a new one when the graph has changed.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from edgecap.graph.nodes import graphs_in, ordered
from edgecap.graph.shapes import UNKNOWN, Walk
from edgecap.graph.sizes import Run, concrete_inputs, size_of
from edgecap.graph.tensors import Shape, Tensor

SQUARE = Run(37, 41, 43)  # primes that are no model's sizes: the shape of a tensor tells what its axes are
_OF_SHAPES = ("Shape", "Size")


class Flow:
    """Makers, users and shapes of a model's tensors."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = ordered(model.graph)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.place = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self.outputs = {o.name for o in model.graph.output}
        self.stored = {t.name: t for t in model.graph.initializer}
        self._walked: dict[Run, ChainMap[str, Tensor]] = {}

    def tensors(self, run: Run = SQUARE) -> ChainMap[str, Tensor]:
        """Every tensor as it is in a run, by name."""
        if run not in self._walked:
            scope = ChainMap(concrete_inputs(self.model, run, Path("model.onnx")))
            Walk(self.model, partial(size_of, run=run), len).graph(self.model.graph, scope)
            self._walked[run] = scope
        return self._walked[run]

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor in a run of SQUARE."""
        return self.tensors().get(name, UNKNOWN).shape

    def number(self, name: str) -> float | None:
        """The value of a stored tensor of one number."""
        tensor = self.tensors().get(name, UNKNOWN)
        known = tensor.constant and tensor.value is not None and tensor.value.size == 1
        return float(tensor.value.reshape(-1)[0]) if known else None

    @cached_property
    def users(self) -> dict[str, list[Any]]:
        """Nodes that use the numbers of a tensor, not only its shape."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(uses(node)) if node.op_type not in _OF_SHAPES else ():
                found.setdefault(name, []).append(node)
        return found

    def behind(self, names: Iterable[str]) -> set[str]:
        """All tensors whose numbers depend on those of the names."""
        queue = list(names)
        found = set(queue)
        while queue:
            for node in self.users.get(queue.pop(), ()):
                queue.extend(name for name in node.output if name not in found)
                found.update(node.output)
        return found

    @cached_property
    def data(self) -> set[str]:
        """Tensors that depend on the tokens, or on what the cache holds of them."""
        roots = {i.name for i in self.model.graph.input} - {"attention_mask", "position_ids", *self.stored}
        return self.behind(roots)

    def data_inputs(self, node: Any) -> list[str]:
        """Inputs of a node that are data."""
        return [name for name in dict.fromkeys(uses(node)) if name in self.data]

    def narrows(self, name: str) -> Iterator[str]:
        """Tensors through which alone data reaches the one named, the nearest first: its dominators."""
        front = {name}
        while front:
            last = max(front, key=lambda n: self.place.get(n, -1))
            if last not in self.maker:
                return
            front.remove(last)
            front.update(self.data_inputs(self.maker[last]))
            if len(front) == 1:
                yield next(iter(front))


def uses(node: Any) -> Iterator[str]:
    """Names that a node takes in, its subgraphs included."""
    yield from (name for name in node.input if name)
    for part in node.attribute:
        for inner in [part.g] if part.HasField("g") else part.graphs:
            for graph in graphs_in(inner):
                yield from (name for below in graph.node for name in below.input if name)
                yield from (o.name for o in graph.output)


def rename(model: Any, names: dict[str, str]) -> None:
    """Lets every node take another tensor instead of one."""
    for graph in graphs_in(model.graph):
        for node in graph.node:
            for at, name in enumerate(node.input):
                node.input[at] = names.get(name, name)


def drop_views_of_the_same(model: Any) -> None:
    """Takes out Identity and casts to the type that a tensor has."""
    flow = Flow(model)
    fixed = flow.outputs | _taken_inside(flow)
    same: dict[str, str] = {}
    for node in [n for n in flow.nodes if _changes_nothing(flow, n)]:
        source, result = same.get(node.input[0], node.input[0]), node.output[0]
        if result not in fixed:
            same[result] = source
        elif result in flow.outputs and source in flow.maker and source not in fixed:
            _make_as(flow, source, result)
            same |= {name: result for name, kept in same.items() if kept == source} | {source: result}
            model.graph.node.remove(node)
    rename(model, same)
    drop_dead(model)


def _taken_inside(flow: Flow) -> set[str]:
    """Tensors that graphs inside of nodes take from around them."""
    return {name for node in flow.nodes for name in set(uses(node)).difference(node.input)}


def _make_as(flow: Flow, name: str, output: str) -> None:
    """Lets the maker of a tensor make it under the name of an output."""
    made = flow.maker[name].output
    made[list(made).index(name)] = output
    flow.maker[output] = flow.maker[name]


def _changes_nothing(flow: Flow, node: Any) -> bool:
    kinds = [flow.tensors().get(name, UNKNOWN).kind for name in (*node.input[:1], *node.output[:1])]
    return node.op_type == "Identity" or (node.op_type == "Cast" and kinds[0] == kinds[1] != 0)


def drop_dead(model: Any) -> None:
    """Removes nodes that lead to no output, the stored tensors that only they used, and notes on their results."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    nodes = ordered(graph)
    alive = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            alive.append(node)
            needed.update(uses(node))
    _replace_all(graph.node, alive[::-1])
    _replace_all(graph.initializer, [t for t in graph.initializer if t.name in needed])
    _replace_all(graph.value_info, [v for v in graph.value_info if v.name in needed])


def declare(model: Any) -> None:
    """Notes type and shape of what operators make that onnx itself does not know, for tools that ask it."""
    from onnx import helper

    flow = Flow(model)
    names = {SQUARE.batch: "batch_size", SQUARE.sequence: "sequence_length"}
    known = {v.name for v in (*model.graph.value_info, *model.graph.output)}
    for node in flow.nodes:
        foreign = node.domain not in ("", "ai.onnx") or node.op_type == "SimplifiedLayerNormalization"
        for name in node.output if foreign else ():
            tensor = flow.tensors().get(name, UNKNOWN)
            if name and name not in known and tensor.shape is not None:
                dims = [names.get(size, size) for size in tensor.shape]
                model.graph.value_info.append(helper.make_tensor_value_info(name, tensor.kind, dims))


def _replace_all(field: Any, kept: list[Any]) -> None:
    """Removes from a field of protobuf what is not kept; weights are not copied where nothing changes."""
    if len(kept) == len(field) and all(a is b for a, b in zip(kept, field, strict=True)):
        return
    numbers = {id(item) for item in kept}
    if [id(i) for i in field if id(i) in numbers] == [id(i) for i in kept]:
        for item in [i for i in field if id(i) not in numbers]:
            field.remove(item)
        return
    copies = [type(item).FromString(item.SerializeToString()) for item in kept]
    del field[:]
    field.extend(copies)
