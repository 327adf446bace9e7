"""Finds RMSNorm as exporters write it and puts ONNX Runtime's operator in its place.

x -> Pow(2) -> ReduceMean -> Add(eps) -> Sqrt -> 1 / . -> Mul(x) -> Mul(weight)   SimplifiedLayerNormalization
x = Add(a, b) before it, both (batch, sequence, width)                           SkipSimplifiedLayerNormalization
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgecap.graph.fusion.edit import replace_nodes
from edgecap.graph.fusion.flow import Flow


class NormMatch(NamedTuple):
    """`source` over its root mean square, times `weight`, is `result`."""

    source: str
    weight: str
    epsilon: float
    result: str


def fuse_norms(flow: Flow) -> int:
    """Replaces every RMSNorm of a model in place; returns how many there were."""
    from onnx import helper

    norms = [norm for node in flow.nodes if (norm := _norm(flow, node)) is not None]
    made = [
        helper.make_node(
            "SimplifiedLayerNormalization",
            [n.source, n.weight],
            [n.result],
            name=f"{n.result}/rms",
            axis=-1,
            epsilon=n.epsilon,
            stash_type=1,
        )
        for n in norms
    ]
    replace_nodes(flow.model, {n.result for n in norms}, made)
    return len(norms)


def fuse_skips(flow: Flow) -> int:
    """Lets norms add the residual themselves, in place; returns how many do."""
    taken: set[str] = set()
    made = []
    for node in [n for n in flow.nodes if n.op_type == "SimplifiedLayerNormalization"]:
        add = flow.maker.get(node.input[0])
        if add is not None and add.output[0] not in taken and _is_residual(flow, add):
            taken.update((add.output[0], node.output[0]))
            made.append(_skip(node, add))
    replace_nodes(flow.model, taken, made)
    return len(made)


def _skip(norm: Any, add: Any) -> Any:
    from onnx import helper

    epsilon = next(a.f for a in norm.attribute if a.name == "epsilon")
    return helper.make_node(
        "SkipSimplifiedLayerNormalization",
        [add.input[0], add.input[1], norm.input[1]],
        [norm.output[0], "", "", add.output[0]],
        name=f"{norm.output[0]}/skip",
        domain="com.microsoft",
        epsilon=epsilon,
    )


def _is_residual(flow: Flow, add: Any) -> bool:
    shapes = [flow.shape(name) for name in add.input]
    return (
        add.op_type == "Add"
        and len(shapes[0] or ()) == 3
        and shapes[0] == shapes[1]
        and len(flow.data_inputs(add)) == 2
        and add.output[0] not in flow.outputs
    )


def _norm(flow: Flow, mean: Any) -> NormMatch | None:
    """RMSNorm around a ReduceMean."""
    source = (
        _squared(flow, mean) if mean.op_type == "ReduceMean" and _over_last(flow, mean) else None
    )
    shifted = _next(flow, mean.output[0], "Add") if source else None
    root = _next(flow, shifted.output[0], "Sqrt") if shifted is not None else None
    scaled = _scaled(flow, root.output[0], source) if root is not None and source else None
    weighted = _next(flow, scaled, "Mul") if scaled else None
    if source is None or shifted is None or scaled is None or weighted is None:
        return None
    epsilon = flow.number(_other(shifted, mean.output[0]))
    weight = _other(weighted, scaled)
    width = (flow.shape(source) or (0,))[-1]
    fits = flow.tensor(weight).constant and flow.shape(weight) == (width,)
    return (
        NormMatch(source, weight, epsilon, weighted.output[0])
        if fits and epsilon is not None
        else None
    )


def _squared(flow: Flow, mean: Any) -> str | None:
    power = flow.maker.get(mean.input[0])
    if power is None:
        return None
    square = power.op_type == "Pow" and flow.number(power.input[1]) == 2
    times = power.op_type == "Mul" and power.input[0] == power.input[1]
    return str(power.input[0]) if square or times else None


def _over_last(flow: Flow, mean: Any) -> bool:
    before, after = flow.shape(mean.input[0]) or (), flow.shape(mean.output[0]) or ()
    return len(before) > 1 and after == (*before[:-1], 1)


def _scaled(flow: Flow, root: str, source: str) -> str | None:
    """The source over the root: divided, or times its reciprocal."""
    for user in flow.users.get(root, []):
        if user.op_type == "Div" and list(user.input) == [source, root]:
            return str(user.output[0])
        turned = user.op_type == "Reciprocal" or (
            user.op_type == "Div" and flow.number(user.input[0]) == 1
        )
        product = _next(flow, user.output[0], "Mul") if turned else None
        if product is not None and _other(product, user.output[0]) == source:
            return str(product.output[0])
    return None


def _next(flow: Flow, name: str, op: str) -> Any:
    """The only user of a tensor, if it is of that kind."""
    users = flow.users.get(name, [])
    return (
        users[0]
        if len(users) == 1 and users[0].op_type == op and name not in flow.outputs
        else None
    )


def _other(node: Any, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])
