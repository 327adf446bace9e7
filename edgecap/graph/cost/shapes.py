"""Walk through a graph as a run does: each node with the shapes, types and small values it gets.

onnx's own inference gives the outputs of a node, `contrib_shapes` those of ONNX Runtime's
operators, `values` the values of small tensors. Subgraphs are entered: the branch that is taken, a
body as often as it runs. Nothing is refused here: what is not known is a Tensor without shape, or
None. The cost of a node is left to `count`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple

from edgecap.graph.cost.contrib_shapes import contrib_outputs
from edgecap.graph.cost.control_flow import (
    after_loop,
    scan_slice,
    stacked_outputs,
    trip_count,
    without_value,
)
from edgecap.graph.cost.tensors import (
    Tensor,
    attribute,
    constant_of,
    of_type,
    of_value,
    stored_in,
    type_of,
)
from edgecap.graph.cost.values import shape_value, values_of
from edgecap.graph.traversal import sorted_nodes

ONNX_DOMAINS = ("", "ai.onnx")
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Dropout"})
# Of a stored tensor, these read the same bytes.
_SAME_BYTES = VIEWS | {"Transpose", "Cast", "DequantizeLinear"}
_RANDOM = frozenset({"RandomNormal", "RandomUniform"})
_MAX_INFERENCE_VALUES = 64  # of an input that shape inference may look at

UNKNOWN = Tensor(0, None)  # output of an unknown node; None is an input that is left out
Scope = ChainMap[str, Tensor]
SizeOf = Callable[[str], int | None]


class NodeStep(NamedTuple):
    """A node that runs `times` times; a `folded` one depends on stored tensors and runs at load.

    `note` names what is not known about it beside its operator.
    """

    node: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    times: int = 1
    folded: bool = False
    note: str = ""


class GraphWalk:
    """Follow one model; `size` gives named dimensions, `rank` the cost that ranks two branches.

    `stored` collects the bytes of all stored tensors by name, those made at load time included.
    """

    def __init__(self, model: Any, size: SizeOf, rank: Callable[[Sequence[NodeStep]], Any]) -> None:
        self._opsets = {
            o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import
        }
        self._imports = list(model.opset_import)
        self._ir_version = model.ir_version
        self._size, self._rank = size, rank
        self.stored: dict[str, int] = {}

    def graph(self, graph: Any, scope: Scope) -> list[NodeStep]:
        """Return the steps of a graph in order, and add its tensors to `scope`."""
        for name, tensor in stored_in(graph):
            scope[name] = self._store(name, tensor)
        declared = {v.name: v for v in (*graph.value_info, *graph.output)}
        return [step for node in sorted_nodes(graph) for step in self._node(node, scope, declared)]

    def _store(self, name: str, tensor: Tensor) -> Tensor:
        self.stored[name] = tensor.bytes
        return tensor._replace(constant=True, roots=(name,))

    # --- one node -------------------------------------------------------------------------

    def _node(self, node: Any, scope: Scope, declared: dict[str, Any]) -> list[NodeStep]:
        inputs = tuple(scope.get(name, UNKNOWN) if name else None for name in node.input)
        steps, given = self._enter_subgraphs(node, inputs, scope) or (
            None,
            self._outputs(node, inputs),
        )
        outputs = [
            self._declared(declared.get(n), t)
            for n, t in zip_longest(node.output, given[: len(node.output)])
        ]
        if steps is None:
            outputs, folded = self._with_origins(node, inputs, outputs)
            steps = [NodeStep(node, inputs, tuple(outputs), folded=folded)]
        scope.update((n, t or UNKNOWN) for n, t in zip(node.output, outputs, strict=True) if n)
        return steps

    def _enter_subgraphs(
        self, node: Any, inputs: Sequence[Tensor | None], scope: Scope
    ) -> SubgraphResult | None:
        """Return steps and results of the graphs inside a node.

        None if it has none, or they do not fit it.
        """
        enter = _SUBGRAPHS.get(node.op_type) if node.domain in ONNX_DOMAINS else None
        if enter is None or sum(part.HasField("g") for part in node.attribute) < (
            2 if node.op_type == "If" else 1
        ):
            return None
        try:
            return enter(self, node, inputs, scope)
        except (IndexError, ValueError):
            return None

    def _with_origins(
        self, node: Any, inputs: Sequence[Tensor | None], outputs: list[Tensor | None]
    ) -> tuple[list[Tensor | None], bool]:
        """Return the outputs with the stored tensors they consist of, and if they exist at load."""
        given = [t for t in inputs if t is not None]
        if node.op_type == "Constant":
            return [self._store(node.output[0], t) if t else None for t in outputs], True
        if all(t.constant for t in given) and node.op_type not in _RANDOM:
            return [
                self._folded(node, n, given, t) for n, t in zip(node.output, outputs, strict=True)
            ], True
        if node.op_type in VIEWS and outputs[0] is not None and given:
            return [
                outputs[0]._replace(cache=given[0].cache, roots=given[0].roots),
                *outputs[1:],
            ], False
        return outputs, False

    def _folded(
        self, node: Any, name: str, inputs: list[Tensor], output: Tensor | None
    ) -> Tensor | None:
        if output is None or not name:
            return output
        if node.op_type in _SAME_BYTES and node.domain in (*ONNX_DOMAINS, "com.microsoft"):
            parts = inputs if node.op_type == "DequantizeLinear" else inputs[:1]
            return output._replace(
                constant=True, roots=tuple(dict.fromkeys(r for t in parts for r in t.roots))
            )
        return self._store(name, output)

    def _outputs(self, node: Any, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
        if node.op_type == "Constant" and node.domain in ONNX_DOMAINS:
            return [constant_of(node)]
        outputs = self._inferred(node, inputs) or [None] * len(node.output)
        if node.op_type in ("Shape", "Size") and node.domain in ONNX_DOMAINS:
            values = [shape_value(node, tensor) for tensor in inputs[:1]]
        else:
            values = values_of(node, inputs, outputs, self._opsets.get("", 1))
        return [
            t if v is None or v.dtype.kind in "OSU" else of_value(v)
            for t, v in zip_longest(outputs, values)
        ]

    def _inferred(
        self, node: Any, inputs: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None] | None:
        domain = "" if node.domain in ONNX_DOMAINS else node.domain
        schema = (
            schema_of(node.op_type, domain, self._opsets.get(domain, 1))
            if domain != "com.microsoft"
            else None
        )
        if schema is None or not schema.has_type_and_shape_inference_function:
            return contrib_outputs(node, inputs)
        return None if any(t is UNKNOWN for t in inputs) else self._by_schema(schema, node, inputs)

    def _by_schema(
        self, schema: Any, node: Any, inputs: Sequence[Tensor | None]
    ) -> list[Tensor | None] | None:
        from onnx import numpy_helper, shape_inference

        named = [(n, t) for n, t in zip(node.input, inputs, strict=True) if t is not None]
        types = {n: type_of(t.kind, t.shape) for n, t in named}
        values = {
            n: numpy_helper.from_array(t.value)
            for n, t in named
            if t.value is not None and t.value.size <= _MAX_INFERENCE_VALUES
        }
        try:
            inferred = shape_inference.infer_node_outputs(
                schema,
                node,
                types,
                values,
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except Exception:  # InferenceError and others: inputs that do not fit the operator
            return None
        return [of_type(inferred[n]) if n in inferred else None for n in node.output]

    def _declared(self, info: Any, tensor: Tensor | None) -> Tensor | None:
        """Return the graph's declaration of a tensor if its node does not give the shape."""
        if info is None or (tensor is not None and tensor.shape is not None):
            return tensor
        dims = info.type.tensor_type.shape.dim if info.type.tensor_type.HasField("shape") else None
        sizes = [
            d.dim_value if d.HasField("dim_value") else self._size(d.dim_param) for d in dims or ()
        ]
        known = [s for s in sizes if s is not None]
        shape = tuple(known) if dims is not None and len(known) == len(sizes) else None
        return Tensor(info.type.tensor_type.elem_type, shape)

    # --- subgraphs ------------------------------------------------------------------------

    def _body(
        self, graph: Any, scope: Scope, given: Sequence[Tensor | None]
    ) -> tuple[list[NodeStep], list[Tensor | None]]:
        inner = scope.new_child()
        inner.update((i.name, t) for i, t in zip(graph.input, given, strict=False) if t is not None)
        steps = self.graph(graph, inner)
        return steps, [inner.get(o.name) for o in graph.output]

    def branch(self, node: Any, inputs: Sequence[Tensor | None], scope: Scope) -> SubgraphResult:
        """Enter If: the branch that a known condition takes, else the one that costs more."""
        names: tuple[str, ...] = ("then_branch", "else_branch")
        condition = inputs[0].value if inputs and inputs[0] is not None else None
        if condition is not None:
            names = names[:1] if condition.reshape(-1)[0] else names[1:]
        bodies = [self._body(attribute(node, name, None), scope, ()) for name in names]
        steps, outputs = max(bodies, key=lambda body: self._rank(body[0]))
        after_loop = len(bodies) == 1
        return steps, outputs if after_loop else [
            t and t._replace(value=None, constant=False) for t in outputs
        ]

    def loop(self, node: Any, inputs: Sequence[Tensor | None], scope: Scope) -> SubgraphResult:
        """Enter Loop: the body as often as it is known to run, else once with a note."""
        body, carried = attribute(node, "body", None), list(inputs[2:])
        given = [
            Tensor(7, ()),
            Tensor(9, (), inputs[1].value if len(inputs) > 1 and inputs[1] else None),
            *carried,
        ]
        steps, outputs = self._body(
            body, scope, [without_value(t) if i > 1 else t for i, t in enumerate(given)]
        )
        times = trip_count(inputs, outputs[0] if outputs else None, body)
        note = (
            []
            if times is not None
            else [NodeStep(node, tuple(inputs), (), note="Loop (trip count unknown)")]
        )
        ends = [after_loop(a, b, times) for a, b in zip(carried, outputs[1:], strict=False)]
        scanned = [stacked_outputs(t, times, 0) for t in outputs[1 + len(carried) :]]
        return [*note, *_repeated(steps, 1 if times is None else times)], [*ends, *scanned]

    def scan(self, node: Any, inputs: Sequence[Tensor | None], scope: Scope) -> SubgraphResult:
        """Enter Scan: the body as often as the scanned axis is long."""
        body, scanned = attribute(node, "body", None), attribute(node, "num_scan_inputs", 0)
        states = len(inputs) - scanned
        axes = attribute(node, "scan_input_axes", None) or [0] * scanned
        output_axes = attribute(node, "scan_output_axes", None) or [0] * (len(body.output) - states)
        slices = [scan_slice(t, a) for t, a in zip(inputs[states:], axes, strict=True)]
        steps, outputs = self._body(body, scope, [*map(without_value, inputs[:states]), *slices])
        times = next(
            (t.shape[a] for t, a in zip(inputs[states:], axes, strict=True) if t and t.shape), None
        )
        note = (
            []
            if times is not None
            else [NodeStep(node, tuple(inputs), (), note="Scan (length unknown)")]
        )
        results = [
            stacked_outputs(t, times, a) for t, a in zip(outputs[states:], output_axes, strict=True)
        ]
        ends = [
            after_loop(a, b, times) for a, b in zip(inputs[:states], outputs[:states], strict=True)
        ]
        return [*note, *_repeated(steps, 1 if times is None else times)], [*ends, *results]


SubgraphResult = tuple[list[NodeStep], list[Tensor | None]]
_SUBGRAPHS: dict[
    str, Callable[[GraphWalk, Any, Sequence[Tensor | None], Scope], SubgraphResult]
] = {
    "If": GraphWalk.branch,
    "Loop": GraphWalk.loop,
    "Scan": GraphWalk.scan,
}


def _repeated(steps: Iterable[NodeStep], times: int) -> list[NodeStep]:
    return [s._replace(times=s.times * times) for s in steps]


@lru_cache(maxsize=1024)
def schema_of(op: str, domain: str, version: int) -> Any:
    """Return onnx's definition of an operator in a version of its domain, or None."""
    import onnx

    try:
        return onnx.defs.get_schema(op, version, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None
