"""Find the operators of a graph for which an execution provider has no kernel.

The list of kernels is ONNX Runtime's own (`data/kernels.json`, made by scripts/kernels.py from the
registry of a version of it). A node without a kernel runs on the CPU, and its tensors are copied
there and back.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from edgecap.graph.cost.count import inline_functions
from edgecap.graph.cost.input_sizes import RunSize, concrete_inputs, is_cache, size_of
from edgecap.graph.cost.shapes import ONNX_DOMAINS, GraphWalk, NodeStep, schema_of
from edgecap.graph.cost.tensors import Tensor
from edgecap.graph.last_logits import DEPLOYED, fix_kept_logits
from edgecap.graph.onnx_file import open_graph

_LIST = Path(__file__).parents[1] / "data" / "kernels.json"
_POSITIONS = 8  # of the run whose types are followed

Operands = list[tuple[frozenset[str], int]]  # names that a kernel may give them, onnx's type


class MissingKernel(NamedTuple):
    """Nodes of one operator, with the same types of inputs, that a provider has no kernel for.

    `of_shapes` are those that compute with shapes of tensors: the runtime keeps such nodes on the
    CPU even if it has a kernel.
    """

    op: str
    domain: str
    types: tuple[str, ...]
    nodes: tuple[str, ...]
    of_shapes: bool

    def __str__(self) -> str:
        return f"{self.op} of {'/'.join(dict.fromkeys(self.types))} ({len(self.nodes)})"


def missing_kernels(path: Path, provider: str) -> list[MissingKernel]:
    """Return what a provider has no kernel for in an ONNX file, whose weights are not read.

    Empty if there is no list for the provider. Raise UsageError if the graph cannot be followed.
    """
    if provider not in _data()["kernels"]:
        return []
    model = inline_functions(open_graph(path, weights=False), path)
    opsets = {o.domain: o.version for o in model.opset_import}
    found: dict[tuple[str, str, tuple[str, ...], bool], list[str]] = {}
    for step, of_shapes in _steps(model, path):
        version = opsets.get(step.node.domain, opsets.get("", 1))
        if not _has_kernel(step, version, provider):
            types = tuple(_type_name(t.kind) for t in step.inputs if t is not None)
            key = (step.node.op_type, step.node.domain, types, of_shapes)
            found.setdefault(key, []).append(step.node.name or step.node.output[0])
    return [
        MissingKernel(op, domain, types, tuple(nodes), of_shapes)
        for (op, domain, types, of_shapes), nodes in sorted(found.items())
    ]


def _steps(model: Any, path: Path) -> Iterator[tuple[NodeStep, bool]]:
    """Yield the nodes of a run, and if they compute with shapes only."""
    fix_kept_logits(model, DEPLOYED)
    past = _POSITIONS if any(is_cache(i.name) for i in model.graph.input) else 0
    run = RunSize(1, _POSITIONS, past)
    walk = GraphWalk(model, partial(size_of, run=run), len)
    shapes = set[str]()
    for step in walk.graph(model.graph, ChainMap(concrete_inputs(model, run, path))):
        node = step.node
        if step.folded or step.note:
            continue
        given = [n for n, t in zip(node.input, step.inputs, strict=True) if t and not t.constant]
        of_shapes = node.op_type in ("Shape", "Size") or (bool(given) and shapes.issuperset(given))
        if of_shapes:
            shapes.update(node.output)
        yield step, of_shapes


# --- one node ---------------------------------------------------------------------------------


def _has_kernel(step: NodeStep, version: int, provider: str) -> bool:
    """Follow the rules by which the runtime looks for a kernel: version, then types.

    An open range of versions is for its first one only: a later one may have changed the operator.
    """
    node = step.node
    domain = "" if node.domain in ONNX_DOMAINS else node.domain
    since, inputs, outputs = _operands(node.op_type, domain, version)
    operands = [*_typed(inputs, step.inputs), *_typed(outputs, step.outputs)]
    return any(
        first <= since <= last and all(_fits(types, operands) for types in constraints.items())
        for first, last, constraints in _kernels(provider, domain, node.op_type)
    )


def _fits(constraint: tuple[str, frozenset[str]], operands: Operands) -> bool:
    name, types = constraint
    return all(_type_name(kind) in types for names, kind in operands if name in names)


def _typed(
    names: Iterable[frozenset[str]], tensors: Iterable[Tensor | None]
) -> Iterator[tuple[frozenset[str], int]]:
    """Yield names and type of each operand whose type is known; the last name stands for more."""
    listed = list(names)
    for at, tensor in enumerate(tensors):
        if tensor is not None and tensor.kind and listed:
            yield listed[min(at, len(listed) - 1)], tensor.kind


def _operands(
    op: str, domain: str, version: int
) -> tuple[int, list[frozenset[str]], list[frozenset[str]]]:
    """Return the first version of an operator's definition, names of its inputs and outputs."""
    schema = schema_of(op, domain, version)
    if schema is None:
        given, _, made = _data()["operands"].get(domain, {}).get(op, "").partition("->")
        return 1, [frozenset((n,)) for n in given.split()], [frozenset((n,)) for n in made.split()]
    inputs, outputs = (
        [frozenset((o.type_str, o.name)) for o in part] for part in (schema.inputs, schema.outputs)
    )
    return schema.since_version, inputs, outputs


@cache
def _kernels(
    provider: str, domain: str, op: str
) -> tuple[tuple[int, int, dict[str, frozenset[str]]], ...]:
    """Return first and last version, and types by constraint, of each kernel of an operator."""
    lines = _data()["kernels"][provider].get(domain, {}).get(op, ())
    return tuple(map(_kernel, lines))


def _kernel(line: str) -> tuple[int, int, dict[str, frozenset[str]]]:
    versions, *constraints = line.split()
    first, _, last = versions.rstrip("+").partition("-")
    pairs = (part.split("=") for part in constraints)
    return int(first), int(last or first), {n: frozenset(t.split("|")) for n, t in pairs}


@cache
def _data() -> dict[str, Any]:
    return dict(json.loads(_LIST.read_text("utf-8")))


def _type_name(kind: int) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(kind)).lower()
