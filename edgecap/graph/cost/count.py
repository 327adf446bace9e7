"""What a graph costs in one run: FLOPs and bytes by operator, counted without running it.

The graph is followed with the numbers of one run (`sizes`, `shapes`); what each operator works is told by
`work`, with the conventions for FLOPs outside of matrix products, and what it moves by `traffic`. An
operator that edgecap does not know, or whose shapes cannot be told, is listed and never taken for nothing.

Bytes are those that nodes read and write, each node by itself: nothing is said of what a machine's caches
spare. What depends on stored tensors only is done when the model is loaded and moves nothing in a run.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.graph.cost.attention import UnknownShape
from edgecap.graph.cost.input_sizes import RunSize, concrete_inputs, size_of
from edgecap.graph.cost.operators import is_known, matrix_flops, other_flops
from edgecap.graph.cost.shapes import ONNX_DOMAINS, GraphWalk, NodeStep
from edgecap.graph.cost.traffic import IN_PLACE, input_reads, moves_nothing, new_positions
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.traversal import nested_graphs, rotary_angle_products

DOMAINS = frozenset({*ONNX_DOMAINS, "ai.onnx.ml", "com.microsoft"})


class OpCost(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes of one operator: 2 matrix FLOPs a multiply-add, other FLOPs by the conventions of `work`.

    `bytes` are read and written: weights in stored precision (each node's own reading), activations, cache.
    """

    op: str
    nodes: int
    matrix_flops: int
    other_flops: int
    bytes: int


class GraphCosts(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `sequence` positions in each of `batch` rows behind `past` cached ones.

    `weight_bytes`: stored tensors that the run reads, each once, in stored precision; of tables that are
    only gathered from, the rows. `cache_bytes`: past keys and values read, and new positions written.
    `activation_bytes`: all else that nodes read and write, copies of the past included.
    `unknown`: operators whose cost is not known, or known only in part -> number of nodes.
    """

    batch: int
    sequence: int
    past: int
    matrix_flops: int
    other_flops: int
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int
    operators: tuple[OpCost, ...]
    unknown: dict[str, int]


def count_graph(path: Path, batch: int = 1, sequence: int = 1, past: int = 0) -> GraphCosts:
    """Counts one run of an ONNX file, without its weights.

    Raises UsageError where sizes are impossible or the graph cannot have them, where it has operators of
    a domain that edgecap does not know, or is damaged.
    """
    if batch < 1 or sequence < 1 or past < 0:
        raise UsageError(
            f"batch={batch} sequence={sequence} past={past}: batch and sequence are at least 1, past 0"
        )
    run = RunSize(batch, sequence, past)
    model = _inlined(open_graph(path, weights=False), path)
    _refuse_foreign(model.graph, path)
    scope = ChainMap(concrete_inputs(model, run, path))
    turning = rotary_angle_products(model.graph)
    walk = GraphWalk(model, partial(size_of, run=run), lambda steps: _weight(steps, turning))
    steps = walk.graph(model.graph, scope)
    ledger = _Ledger(walk.stored, new_positions(model.graph, scope, run), turning)
    for step in steps:
        ledger.enter(step)
    return ledger.costs(run)


class _Ledger:
    """Sums over steps: one row an operator, each stored tensor once, the cache once."""

    def __init__(self, stored: dict[str, int], added: dict[str, int], turning: set[str]) -> None:
        self._stored, self._added, self._turning = stored, added, turning
        self._rows: dict[str, Counter[str]] = {}
        self._whole: set[str] = set()
        self._parts: Counter[str] = Counter()
        self._caches_read: set[str] = set()
        self._cache = self._activations = 0
        self._unknown: Counter[str] = Counter()

    def enter(self, step: NodeStep) -> None:
        """Adds a step."""
        if step.note:
            self._unknown[step.note] += 1
            return
        name = _label(step.node)
        matrix, other, known = _flops(step, self._turning)
        moved = 0 if moves_nothing(step) else step.times * (self._read(step) + self._written(step))
        if not known or not (moves_nothing(step) or _shapes_known(step)):
            self._unknown[name] += 1
        self._rows.setdefault(name, Counter()).update(
            nodes=1, matrix=matrix, other=other, bytes=moved
        )

    def costs(self, run: RunSize) -> GraphCosts:
        """The sums."""
        gathered = {
            n: min(b, self._stored[n]) for n, b in self._parts.items() if n not in self._whole
        }
        return GraphCosts(
            batch=run.batch,
            sequence=run.sequence,
            past=run.past,
            matrix_flops=sum(row["matrix"] for row in self._rows.values()),
            other_flops=sum(row["other"] for row in self._rows.values()),
            weight_bytes=sum(self._stored[n] for n in self._whole) + sum(gathered.values()),
            cache_bytes=self._cache,
            activation_bytes=self._activations,
            operators=_sorted(self._rows),
            unknown=dict(sorted(self._unknown.items())),
        )

    def _read(self, step: NodeStep) -> int:
        total = 0
        for read in input_reads(step):
            tensor = read.tensor
            size = tensor.bytes
            if tensor.roots:
                size = self._read_stored(tensor.roots, read.rows, read.of)
            elif tensor.cache and tensor.cache not in self._caches_read:
                size = read.of(size)
                self._caches_read.add(tensor.cache)
                self._cache += size
            else:
                size = read.of(size)
                self._activations += step.times * size
            total += size
        return total

    def _read_stored(self, roots: Iterable[str], rows: bool, share: Any) -> int:
        parts = {name: share(self._stored[name]) for name in roots}
        if rows:
            self._parts.update(parts)
        else:
            self._whole.update(parts)
        return sum(parts.values())

    def _written(self, step: NodeStep) -> int:
        total = 0
        for name, tensor in zip(step.node.output, step.outputs, strict=True):
            size = tensor.bytes if tensor and name else 0
            if name in self._added:
                new = min(size, self._added[name])
                size = new if step.node.op_type in IN_PLACE else size
                self._cache += new
                self._activations += size - new
            else:
                self._activations += step.times * size
            total += size
        return total


def _sorted(rows: dict[str, Counter[str]]) -> tuple[OpCost, ...]:
    operators = [
        OpCost(
            op=op,
            nodes=r["nodes"],
            matrix_flops=r["matrix"],
            other_flops=r["other"],
            bytes=r["bytes"],
        )
        for op, r in rows.items()
    ]
    return tuple(sorted(operators, key=lambda o: (-o.matrix_flops - o.other_flops, -o.bytes, o.op)))


def _flops(step: NodeStep, turning: set[str]) -> tuple[int, int, bool]:
    """Matrix and other FLOPs of all times that a step runs, and whether they are known."""
    node, inputs, outputs = step.node, step.inputs, step.outputs
    if step.folded and node.op_type != "DequantizeLinear":
        return 0, 0, True
    try:
        matrix, other = matrix_flops(node, inputs, outputs), other_flops(node, inputs, outputs)
    except (
        UnknownShape,
        IndexError,
        ValueError,
        ZeroDivisionError,
        KeyError,
    ):  # inputs that do not fit the operator
        return 0, 0, False
    if matrix and node.output[0] in turning:
        matrix, other = 0, matrix + other
    return step.times * matrix, step.times * other, is_known(node)


def _shapes_known(step: NodeStep) -> bool:
    named = [t for n, t in zip(step.node.output, step.outputs, strict=True) if n]
    there = [t for t in step.inputs if t is not None]
    return all(t is not None and t.shape is not None for t in (*there, *named))


def _weight(steps: Sequence[NodeStep], turning: set[str]) -> tuple[int, int]:
    """By FLOPs, then by bytes written: what makes one branch dearer than another."""
    flops = sum(sum(_flops(s, turning)[:2]) for s in steps)
    return flops, sum(
        s.times * t.bytes for s in steps if not moves_nothing(s) for t in s.outputs if t
    )


def _label(node: Any) -> str:
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}:{node.op_type}"


# --- the graph before it is followed ----------------------------------------------------------


def _inlined(model: Any, path: Path) -> Any:
    """The model without local functions: their nodes stand where they were called."""
    from onnx import inliner

    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # whatever the library makes of functions that do not fit together
        raise UsageError(f"{path}: its local functions cannot be inlined ({error})") from error


def _refuse_foreign(graph: Any, path: Path) -> None:
    for inner in nested_graphs(graph):
        for node in inner.node:
            if node.domain not in DOMAINS:
                raise UsageError(
                    f"{path}: operators of domain '{node.domain}' ({node.op_type}) are not known to edgecap"
                )
