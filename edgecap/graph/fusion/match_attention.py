"""Finds attention between a cache and the projection of its results, and measures what it computes.

A layer is found at its cache: `past_key_values.N.key` joined with the new keys is `present.N.key`; where
what depends on keys meets what depends on values, the probabilities are multiplied with the values. What
lies between is not read but measured: run by itself on chosen numbers it tells its scale, its soft cap
and its window, and on random numbers it must agree with GroupQueryAttention's definition (ONNX Runtime,
docs/ContribOperators.md). What does not agree, as ALiBi, sinks and masks of any other kind, is not it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from edgecap.graph.cost.input_sizes import RunSize
from edgecap.graph.fusion.evaluate import (
    NotRunnable,
    largest_number,
    run_subgraph,
    structure_digest,
)
from edgecap.graph.fusion.flow import PRIME_SIZES, Flow

TOLERANCE = 1e-4  # of results near 1, in fp32
MAX_PROBE_VALUES = 1 << 27  # of a probe; longer windows are not looked for
_TRIALS = (RunSize(2, 3, 5), RunSize(1, 1, 7), RunSize(1, 6, 0))


class NoMatch(Exception):
    """The layer has no attention that GroupQueryAttention could do; the message says why."""


class AttentionMatch(NamedTuple):
    """Attention of one layer: names of its tensors (batch, heads, sequence, width), its result (batch, sequence,
    heads x width), and what it computes. `new_*` are joined with `past_*` to `key` and `value`.
    """

    query: str
    new_key: str
    new_value: str
    past_key: str
    past_value: str
    key: str
    value: str
    result: str
    heads: int
    kv_heads: int
    width: int
    scale: float = 0.0
    softcap: float = 0.0
    window: int = -1


class AttentionParameters(NamedTuple):
    """What attention computes: scores = cap(scale x products), of the last `window` positions; -1 is all, cap 0 none."""

    scale: float
    softcap: float
    window: int


def find_attention(
    flow: Flow, layer: str, measured: dict[str, AttentionParameters | NoMatch]
) -> AttentionMatch:
    """Attention at the cache of a layer; what is alike is measured once and noted in `measured`. Raises Unfit."""
    at = _placed(flow, layer)
    alike, _ = structure_digest(flow, [at.result], (at.query, at.key, at.value))
    if alike not in measured:
        measured[alike] = _judged(flow, at)
    found = measured[alike]
    if isinstance(found, NoMatch):
        raise NoMatch(str(found))
    return at._replace(**found._asdict())


def _judged(flow: Flow, at: AttentionMatch) -> AttentionParameters | NoMatch:
    """What was measured and holds in every trial, or why not."""
    try:
        found = _measured(flow, at)
        for run in (*_TRIALS, *([RunSize(1, 3, found.window + 5)] if found.window > 0 else [])):
            _try(flow, at._replace(**found._asdict()), run)
    except NoMatch as reason:
        return reason
    return found


# --- where it is ------------------------------------------------------------------------------


def _placed(flow: Flow, layer: str) -> AttentionMatch:
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    joined = [_joined(flow, name) for name in past]
    key, value = (node.output[0] for node in joined)
    result, heads, width = _result(flow, key, value)
    kv_heads = (flow.shape(key) or ())[1]
    if flow.shape(key) != flow.shape(value) or heads % kv_heads:
        raise NoMatch("keys and values have other widths than one another or than the result")
    query = _query(
        flow, key, value, result, (PRIME_SIZES.batch, heads, PRIME_SIZES.sequence, width)
    )
    new_key, new_value = (str(node.input[1]) for node in joined)
    return AttentionMatch(
        query, new_key, new_value, past[0], past[1], key, value, result, heads, kv_heads, width
    )


def _joined(flow: Flow, past: str) -> Any:
    """The Concat that makes the present of a past."""
    nodes = [
        n for n in flow.users.get(past, []) if n.op_type == "Concat" and n.output[0] in flow.outputs
    ]
    fits = len(nodes) == 1 and len(nodes[0].input) == 2 and nodes[0].input[0] == past
    shape = (flow.shape(nodes[0].output[0]) or ()) if fits else ()
    if len(shape) != 4 or (shape[0], shape[2]) != (PRIME_SIZES.batch, PRIME_SIZES.total):
        raise NoMatch(f"{past} is not joined with new positions (batch, heads, sequence, width)")
    return nodes[0]


def _result(flow: Flow, key: str, value: str) -> tuple[str, int, int]:
    """Where keys and values have met, brought to (batch, sequence, heads x width)."""
    meeting = flow.meeting(key, value)
    name = meeting.output[0] if meeting is not None else ""
    shape = flow.shape(name) or ()
    if len(shape) != 4 or (shape[0], shape[2]) != (PRIME_SIZES.batch, PRIME_SIZES.sequence):
        raise NoMatch("keys and values do not meet in one product (batch, heads, sequence, width)")
    flat = (PRIME_SIZES.batch, PRIME_SIZES.sequence, shape[1] * shape[3])
    while flow.shape(name) != flat:
        after = flow.users.get(name, [])
        if len(after) != 1 or after[0].op_type not in ("Transpose", "Reshape"):
            raise NoMatch(
                "the result of attention is not brought to (batch, sequence, heads x width)"
            )
        name = after[0].output[0]
    return name, shape[1], shape[3]


def _query(flow: Flow, key: str, value: str, result: str, shape: tuple[int, ...]) -> str:
    """The one other tensor of data that attention takes, before it is scaled."""
    inside = flow.behind([key, value], last=flow.place[result])
    queue, taken, seen = [result], set[str](), set[str]()
    while queue:
        name = queue.pop()
        for before in flow.data_inputs(flow.maker[name]) if name in flow.maker else ():
            if before not in inside:
                taken.add(before)
            elif before not in (key, value, *seen):
                seen.add(before)
                queue.append(before)
    if len(taken) != 1:
        raise NoMatch(f"attention takes {len(taken)} tensors beside keys and values")
    return _unscaled(flow, taken.pop(), shape)


def _unscaled(flow: Flow, name: str, shape: tuple[int, ...]) -> str:
    further = flow.narrows(name)
    while flow.shape(name) != shape or _is_scaled(flow, name):
        stepped = name in flow.maker and flow.maker[name].op_type in (
            "Mul",
            "Div",
            "Cast",
            "Transpose",
            "Reshape",
        )
        before = next(further, None) if stepped else None
        if before is None:
            break
        name = before
    if flow.shape(name) != shape:
        raise NoMatch("queries are not (batch, heads, sequence, width)")
    return name


def _is_scaled(flow: Flow, name: str) -> bool:
    """Whether the tensor is another one times a number."""
    maker = flow.maker.get(name)
    others = [n for n in maker.input if n not in flow.data] if maker is not None else []
    return (
        maker is not None
        and maker.op_type in ("Mul", "Div")
        and len(others) == 1
        and flow.shape(others[0]) is not None
        and math.prod(flow.shape(others[0]) or ()) == 1
    )


# --- what it computes -------------------------------------------------------------------------


def _measured(flow: Flow, at: AttentionMatch) -> AttentionParameters:
    """Scale, soft cap and window, as two or more positions show them."""
    rough = _score(flow, at, 0.1)
    if not 1e-6 < rough < 1e6:
        raise NoMatch("its scores do not grow with the product of queries and keys")
    rough /= 0.1
    capped = _score(flow, at, 40 / rough)
    softcap = 0.0 if abs(capped - 40) < 0.02 else _rounded(_cap(capped, 40))
    probed = 1 / rough if not softcap else 0.2 / rough
    score = _score(flow, at, probed)
    scale = (softcap * math.atanh(score / softcap) if softcap else score) / probed
    return AttentionParameters(_nice(scale, at.width), softcap, _window(flow, at))


def _score(flow: Flow, at: AttentionMatch, product: float) -> float:
    """The score of a key whose product with the query is given, above that of a key of zeros."""
    query = np.zeros((1, at.heads, 1, at.width), np.float32)
    key, value = (np.zeros((1, at.kv_heads, 2, at.width), np.float32) for _ in "kv")
    query[..., 0], key[:, :, 1, 0], value[:, :, 0] = 1, product, 1
    other = float(_run(flow, at, query, key, value, RunSize(1, 1, 1)).mean())
    if not 0 < other < 1:
        raise NoMatch("its probabilities are not those of a softmax over keys")
    return math.log(1 / other - 1)


def _cap(capped: float, score: float) -> float:
    """The cap c where c tanh(score / c) is what was measured, by bisection."""
    low, high = capped, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tanh(score / middle) < capped else (low, middle)
    return low


def _nice(scale: float, width: int) -> float:
    """The usual scale where it is that one, else without the noise of measuring."""
    usual = 1 / math.sqrt(width)
    return usual if abs(scale / usual - 1) < 2e-5 else _rounded(scale)


def _rounded(number: float) -> float:
    short = float(f"{number:.4g}")
    return short if abs(short / number - 1) < 2e-5 else number


def _window(flow: Flow, at: AttentionMatch) -> int:
    """Positions that a query attends to, its own included, behind a past longer than any window; -1 for all."""
    longest = largest_number(flow, [at.result], (at.query, at.key, at.value)) + 8
    run = RunSize(1, 1, longest)
    if run.total * at.heads * at.width > MAX_PROBE_VALUES:
        raise NoMatch(f"its mask knows the number {longest - 8}, too far to look")
    query = np.zeros((1, at.heads, 1, at.width), np.float32)
    key, value = (np.zeros((1, at.kv_heads, run.total, at.width), np.float32) for _ in "kv")
    value[:, :, -1] = 1
    share = float(_run(flow, at, query, key, value, run).mean())
    seen = round(1 / share) if share > 0 else 0
    return -1 if seen == run.total else seen


def _try(flow: Flow, at: AttentionMatch, run: RunSize) -> None:
    numbers = np.random.default_rng(sum(run))
    query = numbers.standard_normal((run.batch, at.heads, run.sequence, at.width), np.float32)
    key, value = (
        numbers.standard_normal((run.batch, at.kv_heads, run.total, at.width), np.float32)
        for _ in "kv"
    )
    found = _run(flow, at, query, key, value, run)
    if not np.allclose(found, reference_attention(at, query, key, value), atol=TOLERANCE):
        raise NoMatch(
            "it is no plain causal attention: a bias, a sink, or a mask that is not known"
        )


def _run(flow: Flow, at: AttentionMatch, query: Any, key: Any, value: Any, run: RunSize) -> Any:
    try:
        return run_subgraph(
            flow, [at.result], {at.query: query, at.key: key, at.value: value}, run
        )[0]
    except NotRunnable as error:
        raise NoMatch(f"it cannot be tried by itself ({error})") from error


def reference_attention(at: AttentionMatch, query: Any, key: Any, value: Any) -> Any:
    """Attention as GroupQueryAttention defines it: (batch, heads, sequence, width) -> (batch, sequence, all)."""
    batch, heads, new, width = query.shape
    key, value = (np.repeat(x, heads // at.kv_heads, axis=1) for x in (key, value))
    scores = at.scale * (query @ key.swapaxes(2, 3))
    scores = at.softcap * np.tanh(scores / at.softcap) if at.softcap else scores
    ago = (key.shape[2] - new + np.arange(new))[:, None] - np.arange(key.shape[2])
    scores = np.where((ago < 0) | ((at.window > 0) & (ago >= at.window)), -np.inf, scores)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    found = shares / shares.sum(-1, keepdims=True) @ value
    return found.swapaxes(1, 2).reshape(batch, new, heads * width)
