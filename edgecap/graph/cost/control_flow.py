"""Rounds of Loop and Scan: how many there are, what goes in and what is left when they are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.graph.cost.tensors import Tensor


def without_value(tensor: Tensor | None) -> Tensor | None:
    """A tensor that an earlier round may have changed: its shape, not its numbers."""
    return None if tensor is None else Tensor(tensor.kind, tensor.shape)


def scan_slice(tensor: Tensor | None, axis: int) -> Tensor | None:
    """One slice of a scanned tensor."""
    if tensor is None or not tensor.shape:
        return without_value(tensor)
    axis %= len(tensor.shape)
    return Tensor(tensor.kind, (*tensor.shape[:axis], *tensor.shape[axis + 1 :]))


def stacked_outputs(tensor: Tensor | None, times: int | None, axis: int) -> Tensor | None:
    """What all rounds gave, one beside the other."""
    if tensor is None or tensor.shape is None or times is None:
        return None if tensor is None else Tensor(tensor.kind, None)
    axis %= len(tensor.shape) + 1
    return Tensor(tensor.kind, (*tensor.shape[:axis], times, *tensor.shape[axis:]))


def after_loop(before: Tensor | None, after: Tensor | None, times: int | None) -> Tensor | None:
    """A carried tensor after the last round: known where no round changes its shape, or there is but one."""
    if times == 0 or before is None or after is None:
        return before
    steady = before.shape == after.shape or times == 1
    return Tensor(after.kind, after.shape if steady else None)


def trip_count(inputs: Sequence[Tensor | None], going_on: Tensor | None, body: Any) -> int | None:
    """How often a Loop runs: its limit, if the body cannot end it earlier."""
    limit, first = inputs[0] if inputs else None, inputs[1] if len(inputs) > 1 else None
    if first is not None and first.value is not None and not first.value.reshape(-1)[0]:
        return 0
    always = first is None or (first.value is not None)
    passed_on = (
        going_on is not None and going_on.value is not None and bool(going_on.value.reshape(-1)[0])
    )
    if limit is None or limit.value is None or not (always and (passed_on or _hands_on(body))):
        return None
    return max(0, int(limit.value.reshape(-1)[0]))


def _hands_on(body: Any) -> bool:
    """Whether the condition that the body gives back is the one that it was given."""
    origin = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    name = body.output[0].name
    while name in origin:
        name = origin[name]
    return bool(name == body.input[1].name)
