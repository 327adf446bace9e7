"""Find RMSNorm as exporters write it, and replace it with ONNX Runtime's operator.

SimplifiedLayerNormalization:
    x -> Pow(2) -> ReduceMean -> Add(eps) -> Sqrt -> 1 / . -> Mul(x) -> Mul(weight)

SkipSimplifiedLayerNormalization:
    x = Add(a, b) before it, both (batch, sequence, width)
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgecap.graph.fusion.edit import replace_nodes
from edgecap.graph.fusion.flow import Flow


class NormMatch(NamedTuple):
    """RMSNorm: `result` is `source` over its root mean square, times `weight`."""

    source: str
    weight: str
    epsilon: float
    result: str


def fuse_norms(flow: Flow) -> int:
    """Replace every RMSNorm of a model in place, and return their number."""
    from onnx import helper

    norms = [norm for node in flow.nodes if (norm := _match_norm(flow, node)) is not None]
    nodes = [
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
    replace_nodes(flow.model, {n.result for n in norms}, nodes)
    return len(norms)


def fuse_skips(flow: Flow) -> int:
    """Join norms with the residual added before them in place, and return their number."""
    replaced: set[str] = set()
    nodes = []
    for node in [n for n in flow.nodes if n.op_type == "SimplifiedLayerNormalization"]:
        add = flow.producer.get(node.input[0])
        if add is not None and add.output[0] not in replaced and _is_residual(flow, add):
            replaced.update((add.output[0], node.output[0]))
            nodes.append(_skip_norm(node, add))
    replace_nodes(flow.model, replaced, nodes)
    return len(nodes)


def _skip_norm(norm: Any, add: Any) -> Any:
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


def _match_norm(flow: Flow, mean: Any) -> NormMatch | None:
    """Return the RMSNorm around a ReduceMean, or None."""
    source = (
        _squared(flow, mean)
        if mean.op_type == "ReduceMean" and _is_over_last_axis(flow, mean)
        else None
    )
    with_epsilon = _only_user(flow, mean.output[0], "Add") if source else None
    root = _only_user(flow, with_epsilon.output[0], "Sqrt") if with_epsilon is not None else None
    scaled = _scaled(flow, root.output[0], source) if root is not None and source else None
    weighted = _only_user(flow, scaled, "Mul") if scaled else None
    if source is None or with_epsilon is None or scaled is None or weighted is None:
        return None
    epsilon = flow.number(_other_input(with_epsilon, mean.output[0]))
    weight = _other_input(weighted, scaled)
    width = (flow.shape(source) or (0,))[-1]
    is_weight = flow.tensor(weight).constant and flow.shape(weight) == (width,)
    return (
        NormMatch(source, weight, epsilon, weighted.output[0])
        if is_weight and epsilon is not None
        else None
    )


def _squared(flow: Flow, mean: Any) -> str | None:
    """Return the tensor whose square a ReduceMean takes, or None."""
    power = flow.producer.get(mean.input[0])
    if power is None:
        return None
    is_power = power.op_type == "Pow" and flow.number(power.input[1]) == 2
    is_product = power.op_type == "Mul" and power.input[0] == power.input[1]
    return str(power.input[0]) if is_power or is_product else None


def _is_over_last_axis(flow: Flow, mean: Any) -> bool:
    before, after = flow.shape(mean.input[0]) or (), flow.shape(mean.output[0]) or ()
    return len(before) > 1 and after == (*before[:-1], 1)


def _scaled(flow: Flow, root: str, source: str) -> str | None:
    """Return the source over the root: divided, or times its reciprocal."""
    for user in flow.users.get(root, []):
        if user.op_type == "Div" and list(user.input) == [source, root]:
            return str(user.output[0])
        is_reciprocal = user.op_type == "Reciprocal" or (
            user.op_type == "Div" and flow.number(user.input[0]) == 1
        )
        product = _only_user(flow, user.output[0], "Mul") if is_reciprocal else None
        if product is not None and _other_input(product, user.output[0]) == source:
            return str(product.output[0])
    return None


def _only_user(flow: Flow, name: str, op: str) -> Any:
    """Return the only user of a tensor if it is of that operator, else None."""
    users = flow.users.get(name, [])
    return (
        users[0]
        if len(users) == 1 and users[0].op_type == op and name not in flow.outputs
        else None
    )


def _other_input(node: Any, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])
