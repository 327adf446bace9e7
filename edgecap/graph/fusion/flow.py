"""How values flow through a graph: who makes a tensor, who uses it, and what it depends on.

Data is what depends on the tokens themselves; positions, masks and the arithmetic of shapes do not.
`Flow` is a picture of one moment: take it `again` when the graph has changed (`changes`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from heapq import heappop, heappush
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgecap.graph.cost.input_sizes import RunSize, concrete_inputs, size_of
from edgecap.graph.cost.shapes import UNKNOWN, GraphWalk, Scope
from edgecap.graph.cost.tensors import Shape, Tensor
from edgecap.graph.traversal import nested_graphs, sorted_nodes

PRIME_SIZES = RunSize(
    37, 41, 43
)  # primes that are no model's sizes: the shape of a tensor tells what its axes are
_OF_SHAPES = ("Shape", "Size")


class Flow:
    """Makers, users and shapes of a model's tensors; a tensor's shape is found out when it is first asked for."""

    def __init__(self, model: Any, before: Flow | None = None) -> None:
        self.model = model
        self.nodes = sorted_nodes(model.graph)
        self.place = {
            name: at for at, node in enumerate(self.nodes) for name in node.output if name
        }
        self.maker = {name: self.nodes[at] for name, at in self.place.items()}
        self.outputs = {o.name for o in model.graph.output}
        self.stored = {t.name: t for t in model.graph.initializer}
        known = before._looks.items() if before else ()
        self._looks: dict[RunSize, RunTensors] = {
            run: RunTensors(self, run, look) for run, look in known
        }

    def again(self) -> Flow:
        """The graph as it is now. What was known of a tensor stays known: no name may have come to mean another."""
        return Flow(self.model, self)

    def tensor(self, name: str, run: RunSize = PRIME_SIZES) -> Tensor:
        """A tensor as it is in a run; UNKNOWN where the graph has none of that name."""
        if run not in self._looks:
            self._looks[run] = RunTensors(self, run)
        return self._looks[run].at(name)

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor in a run of SQUARE."""
        return self.tensor(name).shape

    def number(self, name: str) -> float | None:
        """The value of a stored tensor of one number."""
        tensor = self.tensor(name)
        known = tensor.constant and tensor.value is not None and tensor.value.size == 1
        return float(tensor.value.reshape(-1)[0]) if known else None

    @cached_property
    def taken(self) -> list[tuple[str, ...]]:
        """What each node takes in, its subgraphs included, each name once."""
        return [tuple(dict.fromkeys(names_used(node))) for node in self.nodes]

    @cached_property
    def users(self) -> dict[str, list[Any]]:
        """Nodes that use the numbers of a tensor, not only its shape."""
        found: dict[str, list[Any]] = {}
        for node, names in zip(self.nodes, self.taken, strict=True):
            for name in names if node.op_type not in _OF_SHAPES else ():
                found.setdefault(name, []).append(node)
        return found

    def at(self, node: Any) -> int:
        """The place of a node."""
        return next(self.place[name] for name in node.output if name)

    def behind(self, names: Iterable[str], last: int | None = None) -> set[str]:
        """All tensors whose numbers depend on those of the names, made by nodes no further than the place `last`."""
        queue = list(names)
        found = set(queue)
        while queue:
            for node in self.users.get(queue.pop(), ()):
                if last is None or self.at(node) <= last:
                    queue.extend(name for name in node.output if name not in found)
                    found.update(node.output)
        return found

    def meeting(self, one: str, other: str) -> Any:
        """The first node that depends on both tensors; None where there is none."""
        sides = {one: {1}, other: {2}}
        queue = sorted({self.at(node) for name in sides for node in self.users.get(name, ())})
        while queue:
            at = heappop(queue)
            met = set[int]().union(*(sides.get(name, ()) for name in self.taken[at]))
            if len(met) == 2:
                return self.nodes[at]
            for name in [name for name in self.nodes[at].output if name not in sides]:
                sides[name] = met
                for user in self.users.get(name, ()):
                    heappush(queue, self.at(user))
        return None

    @cached_property
    def data(self) -> set[str]:
        """Tensors that depend on the tokens, or on what the cache holds of them."""
        roots = {i.name for i in self.model.graph.input} - {
            "attention_mask",
            "position_ids",
            *self.stored,
        }
        return self.behind(roots)

    def data_inputs(self, node: Any) -> list[str]:
        """Inputs of a node that are data."""
        return [name for name in self.taken[self.at(node)] if name in self.data]

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


class RunTensors:
    """Tensors of a model in one run; nodes are walked through once, and only those that lead to what is asked."""

    def __init__(self, flow: Flow, run: RunSize, before: RunTensors | None = None) -> None:
        self._flow = flow
        self._walk = GraphWalk(flow.model, partial(size_of, run=run), len)
        inputs = {} if before else concrete_inputs(flow.model, run, Path("model.onnx"))
        self._scope: Scope = before._scope if before else ChainMap(inputs)
        graph = flow.model.graph
        self._declared = {v.name: v for v in (*graph.value_info, *graph.output)}
        self._through(
            [t for t in graph.initializer if t.name not in self._scope],
            graph.sparse_initializer,
            [],
        )

    def at(self, name: str) -> Tensor:
        """A tensor, from the nodes that lead to it."""
        if name not in self._scope and name in self._flow.place:
            self._through([], [], self._leading_to(name))
        return self._scope.get(name, UNKNOWN)

    def _leading_to(self, name: str) -> list[Any]:
        queue, places = [name], set[int]()
        while queue:
            at = self._flow.place.get(name := queue.pop())
            if at is not None and at not in places and name not in self._scope:
                places.add(at)
                queue.extend(self._flow.taken[at])
        return [self._flow.nodes[at] for at in sorted(places)]

    def _through(self, stored: list[Any], sparse: Iterable[Any], nodes: list[Any]) -> None:
        told = [self._declared[o] for n in nodes for o in n.output if o in self._declared]
        part = SimpleNamespace(
            initializer=stored, sparse_initializer=sparse, node=nodes, value_info=told, output=[]
        )
        self._walk.graph(part, self._scope)


def names_used(node: Any) -> Iterator[str]:
    """Names that a node takes in, its subgraphs included."""
    yield from (name for name in node.input if name)
    for part in node.attribute:
        for inner in [part.g] if part.HasField("g") else part.graphs:
            for graph in nested_graphs(inner):
                yield from (name for below in graph.node for name in below.input if name)
                yield from (o.name for o in graph.output)
