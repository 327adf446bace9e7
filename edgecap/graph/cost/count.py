"""Count the FLOPs and bytes of one run of a graph, by operator, without running it.

The graph is followed with the sizes of one run (`input_sizes`, `shapes`). `operators` has the FLOPs
of each operator, with the conventions for other than matrix work, and `traffic` its bytes. An
operator that edgecap does not know, or whose shapes are not known, is listed and never taken for
free.

Bytes are those that nodes read and write, each node by itself: what caches of a machine save is not
modelled. Work on stored tensors only is done when the model is loaded and moves nothing in a run.
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
from edgecap.graph.cost.tensors import attribute
from edgecap.graph.cost.traffic import IN_PLACE, input_reads, moves_nothing, new_positions
from edgecap.graph.last_logits import DEPLOYED, fix_kept_logits
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.traversal import nested_graphs, rotary_angle_products

DOMAINS = frozenset({*ONNX_DOMAINS, "ai.onnx.ml", "com.microsoft"})


class OpCost(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of all nodes of one operator; matrix work is 2 FLOPs a multiply-add.

    `other_flops` follow the conventions of `operators`. `bytes` are read and written: weights in
    stored precision (by each node that reads them), activations, cache.
    """

    op: str
    nodes: int
    matrix_flops: int
    other_flops: int
    bytes: int


class GraphCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one run of `sequence` positions in each of `batch` rows after `past` cached ones.

    `weight_bytes`: stored tensors that the run reads, each once, in stored precision; of tables
    that are only gathered from, the rows. `cache_bytes`: past keys and values read, and new
    positions written. `activation_bytes`: all else that nodes read and write, copies of the past
    included. `unknown`: operators whose cost is not known, or known only in part, with their number
    of nodes.
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


def count_graph(
    path: Path, batch: int = 1, sequence: int = 1, past: int = 0, logits: int = DEPLOYED
) -> GraphCosts:
    """Count one run of an ONNX file, without reading its weights.

    `past` is the number of cached positions. A graph that can be asked for them computes `logits`
    of the last positions, 0 for all. Raise UsageError if the graph cannot have these sizes, has
    operators of a domain that edgecap does not know, or is damaged.
    """
    if batch < 1 or sequence < 1 or past < 0:
        raise UsageError(
            f"batch={batch} sequence={sequence} past={past}: "
            "batch and sequence are at least 1, past 0"
        )
    run = RunSize(batch, sequence, past)
    model = inline_functions(open_graph(path, weights=False), path)
    _check_domains(model.graph, path)
    fix_kept_logits(model, logits)
    scope = ChainMap(concrete_inputs(model, run, path))
    angles = rotary_angle_products(model.graph)
    walk = GraphWalk(model, partial(size_of, run=run), lambda steps: _branch_cost(steps, angles))
    steps = walk.graph(model.graph, scope)
    totals = _CostTotals(walk.stored, new_positions(model.graph, scope, run), angles)
    for step in steps:
        totals.add(step)
    return totals.costs(run)


class _CostTotals:
    """Sums over nodes: one row an operator, each stored tensor once, the cache once."""

    def __init__(self, stored: dict[str, int], added: dict[str, int], angles: set[str]) -> None:
        self._stored, self._added, self._angles = stored, added, angles
        self._by_operator: dict[str, Counter[str]] = {}
        self._read_whole: set[str] = set()
        self._read_rows: Counter[str] = Counter()
        self._caches_read: set[str] = set()
        self._cache = self._activations = 0
        self._unknown: Counter[str] = Counter()

    def add(self, step: NodeStep) -> None:
        """Add the cost of a node."""
        if step.note:
            self._unknown[step.note] += 1
            return
        name = _operator_name(step.node)
        matrix, other, known = _flops(step, self._angles)
        moved = 0 if moves_nothing(step) else step.times * (self._read(step) + self._written(step))
        if not known or not (moves_nothing(step) or _shapes_known(step)):
            self._unknown[name] += 1
        self._by_operator.setdefault(name, Counter()).update(
            nodes=1, matrix=matrix, other=other, bytes=moved
        )

    def costs(self, run: RunSize) -> GraphCosts:
        """Return the sums."""
        gathered = {
            n: min(b, self._stored[n])
            for n, b in self._read_rows.items()
            if n not in self._read_whole
        }
        return GraphCosts(
            batch=run.batch,
            sequence=run.sequence,
            past=run.past,
            matrix_flops=sum(row["matrix"] for row in self._by_operator.values()),
            other_flops=sum(row["other"] for row in self._by_operator.values()),
            weight_bytes=sum(self._stored[n] for n in self._read_whole) + sum(gathered.values()),
            cache_bytes=self._cache,
            activation_bytes=self._activations,
            operators=_operator_costs(self._by_operator),
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
            self._read_rows.update(parts)
        else:
            self._read_whole.update(parts)
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


def _operator_costs(rows: dict[str, Counter[str]]) -> tuple[OpCost, ...]:
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


def _flops(step: NodeStep, angles: set[str]) -> tuple[int, int, bool]:
    """Return matrix and other FLOPs of all iterations of a node, and if they are known."""
    node, inputs, outputs = step.node, step.inputs, step.outputs
    if step.folded and (node.op_type != "DequantizeLinear" or attribute(node, "block_size", 0)):
        return 0, 0, True  # blocks are widened inside the product, as in MatMulNBits
    try:
        matrix, other = matrix_flops(node, inputs, outputs), other_flops(node, inputs, outputs)
    except (UnknownShape, IndexError, ValueError, ZeroDivisionError, KeyError):
        # The inputs do not fit the operator.
        return 0, 0, False
    if matrix and node.output[0] in angles:
        matrix, other = 0, matrix + other
    return step.times * matrix, step.times * other, is_known(node)


def _shapes_known(step: NodeStep) -> bool:
    outputs = [t for n, t in zip(step.node.output, step.outputs, strict=True) if n]
    inputs = [t for t in step.inputs if t is not None]
    return all(t is not None and t.shape is not None for t in (*inputs, *outputs))


def _branch_cost(steps: Sequence[NodeStep], angles: set[str]) -> tuple[int, int]:
    """Return FLOPs, then bytes written: the order in which one branch costs more than another."""
    flops = sum(sum(_flops(s, angles)[:2]) for s in steps)
    return flops, sum(
        s.times * t.bytes for s in steps if not moves_nothing(s) for t in s.outputs if t
    )


def _operator_name(node: Any) -> str:
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}:{node.op_type}"


# --- preparation ------------------------------------------------------------------------------


def inline_functions(model: Any, path: Path) -> Any:
    """Return the model with the nodes of local functions in place of their calls.

    Raise UsageError if they do not fit together.
    """
    from onnx import inliner

    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # of many kinds: the functions do not fit together
        raise UsageError(f"{path}: its local functions cannot be inlined ({error})") from error


def _check_domains(graph: Any, path: Path) -> None:
    """Raise UsageError if an operator is of a domain that edgecap does not know."""
    for inner in nested_graphs(graph):
        for node in inner.node:
            if node.domain not in DOMAINS:
                raise UsageError(
                    f"{path}: operators of domain '{node.domain}' ({node.op_type}) "
                    "are not known to edgecap"
                )
