"""Data flow of a graph: the producer of a tensor, its users, and the tensors it depends on.

Data is what depends on the tokens themselves; positions, masks and the arithmetic of shapes do not.
A `Flow` describes one state of the graph: call `refreshed` after a change (`edit`).
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

# Primes that are not sizes of any model, so that a shape identifies its axes.
PRIME_SIZES = RunSize(37, 41, 43)
_OF_SHAPES = ("Shape", "Size")


class Flow:
    """Producers, users and shapes of a model's tensors; shapes are computed on first request."""

    def __init__(self, model: Any, before: Flow | None = None) -> None:
        self.model = model
        self.nodes = sorted_nodes(model.graph)
        self.position = {
            name: at for at, node in enumerate(self.nodes) for name in node.output if name
        }
        self.producer = {name: self.nodes[at] for name, at in self.position.items()}
        self.outputs = {o.name for o in model.graph.output}
        self.stored = {t.name: t for t in model.graph.initializer}
        known = before._runs.items() if before else ()
        self._runs: dict[RunSize, RunTensors] = {
            run: RunTensors(self, run, look) for run, look in known
        }

    def refreshed(self) -> Flow:
        """Return the flow of the changed graph, keeping what is known of its tensors.

        A change must not give a tensor's name to another tensor.
        """
        return Flow(self.model, self)

    def tensor(self, name: str, run: RunSize = PRIME_SIZES) -> Tensor:
        """Return a tensor in a run; UNKNOWN if the graph has none of that name."""
        if run not in self._runs:
            self._runs[run] = RunTensors(self, run)
        return self._runs[run].at(name)

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor in a run of PRIME_SIZES."""
        return self.tensor(name).shape

    def number(self, name: str) -> float | None:
        """Return the value of a stored tensor of one number, else None."""
        tensor = self.tensor(name)
        known = tensor.constant and tensor.value is not None and tensor.value.size == 1
        return float(tensor.value.reshape(-1)[0]) if known else None

    @cached_property
    def inputs_of(self) -> list[tuple[str, ...]]:
        """Return the inputs of each node, those of its subgraphs included, each name once."""
        return [tuple(dict.fromkeys(names_used(node))) for node in self.nodes]

    @cached_property
    def users(self) -> dict[str, list[Any]]:
        """Return the nodes that use the values of a tensor, by name; Shape and Size do not."""
        users: dict[str, list[Any]] = {}
        for node, names in zip(self.nodes, self.inputs_of, strict=True):
            for name in names if node.op_type not in _OF_SHAPES else ():
                users.setdefault(name, []).append(node)
        return users

    def index_of(self, node: Any) -> int:
        """Return the position of a node."""
        return next(self.position[name] for name in node.output if name)

    def dependents(self, names: Iterable[str], last: int | None = None) -> set[str]:
        """Return all tensors that depend on the named ones, made by nodes up to index `last`."""
        queue = list(names)
        dependents = set(queue)
        while queue:
            for node in self.users.get(queue.pop(), ()):
                if last is None or self.index_of(node) <= last:
                    queue.extend(name for name in node.output if name not in dependents)
                    dependents.update(node.output)
        return dependents

    def first_common_dependent(self, one: str, other: str) -> Any:
        """Return the first node that depends on both tensors, or None."""
        sides = {one: {1}, other: {2}}
        queue = sorted({self.index_of(node) for name in sides for node in self.users.get(name, ())})
        while queue:
            at = heappop(queue)
            reached = set[int]().union(*(sides.get(name, ()) for name in self.inputs_of[at]))
            if len(reached) == 2:
                return self.nodes[at]
            for name in [name for name in self.nodes[at].output if name not in sides]:
                sides[name] = reached
                for user in self.users.get(name, ()):
                    heappush(queue, self.index_of(user))
        return None

    @cached_property
    def data(self) -> set[str]:
        """Return the tensors that depend on the tokens or on the cache."""
        roots = {i.name for i in self.model.graph.input} - {
            "attention_mask",
            "position_ids",
            *self.stored,
        }
        return self.dependents(roots)

    def data_inputs(self, node: Any) -> list[str]:
        """Return the inputs of a node that are data."""
        return [name for name in self.inputs_of[self.index_of(node)] if name in self.data]

    def dominators(self, name: str) -> Iterator[str]:
        """Yield the dominators of a tensor, nearest first: all its data passes through each."""
        front = {name}
        while front:
            last = max(front, key=lambda n: self.position.get(n, -1))
            if last not in self.producer:
                return
            front.remove(last)
            front.update(self.data_inputs(self.producer[last]))
            if len(front) == 1:
                yield next(iter(front))


class RunTensors:
    """Tensors of a model in one run; only nodes that lead to a requested tensor are walked."""

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
        """Return a tensor, computed from the nodes that lead to it."""
        if name not in self._scope and name in self._flow.position:
            self._through([], [], self._leading_to(name))
        return self._scope.get(name, UNKNOWN)

    def _leading_to(self, name: str) -> list[Any]:
        queue, places = [name], set[int]()
        while queue:
            at = self._flow.position.get(name := queue.pop())
            if at is not None and at not in places and name not in self._scope:
                places.add(at)
                queue.extend(self._flow.inputs_of[at])
        return [self._flow.nodes[at] for at in sorted(places)]

    def _through(self, stored: list[Any], sparse: Iterable[Any], nodes: list[Any]) -> None:
        declared = [self._declared[o] for n in nodes for o in n.output if o in self._declared]
        part = SimpleNamespace(
            initializer=stored,
            sparse_initializer=sparse,
            node=nodes,
            value_info=declared,
            output=[],
        )
        self._walk.graph(part, self._scope)


def names_used(node: Any) -> Iterator[str]:
    """Yield the names that a node takes in, those of its subgraphs included."""
    yield from (name for name in node.input if name)
    for part in node.attribute:
        for inner in [part.g] if part.HasField("g") else part.graphs:
            for graph in nested_graphs(inner):
                yield from (name for below in graph.node for name in below.input if name)
                yield from (o.name for o in graph.output)
