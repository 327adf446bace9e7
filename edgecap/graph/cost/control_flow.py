"""Iterations of Loop and Scan: how many there are, and the tensors that enter and leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.graph.cost.tensors import Tensor


def without_value(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor that an earlier iteration may have changed: its shape, not its value."""
    return None if tensor is None else Tensor(tensor.kind, tensor.shape)


def scan_slice(tensor: Tensor | None, axis: int) -> Tensor | None:
    """Return one slice of a scanned tensor."""
    if tensor is None or not tensor.shape:
        return without_value(tensor)
    axis %= len(tensor.shape)
    return Tensor(tensor.kind, (*tensor.shape[:axis], *tensor.shape[axis + 1 :]))


def stacked_outputs(tensor: Tensor | None, times: int | None, axis: int) -> Tensor | None:
    """Return the outputs of all iterations, stacked along an axis."""
    if tensor is None or tensor.shape is None or times is None:
        return None if tensor is None else Tensor(tensor.kind, None)
    axis %= len(tensor.shape) + 1
    return Tensor(tensor.kind, (*tensor.shape[:axis], times, *tensor.shape[axis:]))


def after_loop(before: Tensor | None, after: Tensor | None, times: int | None) -> Tensor | None:
    """Return a carried tensor after the last iteration.

    Its shape is known if no iteration changes it, or if there is only one.
    """
    if times == 0 or before is None or after is None:
        return before
    steady = before.shape == after.shape or times == 1
    return Tensor(after.kind, after.shape if steady else None)


def trip_count(inputs: Sequence[Tensor | None], condition: Tensor | None, body: Any) -> int | None:
    """Return how often a Loop runs, or None if its body may end it earlier."""
    limit, first = inputs[0] if inputs else None, inputs[1] if len(inputs) > 1 else None
    if first is not None and first.value is not None and not first.value.reshape(-1)[0]:
        return 0
    always = first is None or (first.value is not None)
    stays_true = (
        condition is not None
        and condition.value is not None
        and bool(condition.value.reshape(-1)[0])
    )
    if (
        limit is None
        or limit.value is None
        or not (always and (stays_true or _passes_condition_on(body)))
    ):
        return None
    return max(0, int(limit.value.reshape(-1)[0]))


def _passes_condition_on(body: Any) -> bool:
    """Return True if the body returns the condition that it was given."""
    origin = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    name = body.output[0].name
    while name in origin:
        name = origin[name]
    return bool(name == body.input[1].name)
