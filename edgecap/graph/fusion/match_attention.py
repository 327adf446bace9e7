"""Find the attention of a layer, and measure what it computes.

A layer is found at its cache: `past_key_values.N.key` joined with the new keys is `present.N.key`;
where tensors that depend on keys meet those that depend on values, the probabilities are multiplied
with the values. What lies between is not read but measured: run by itself on chosen numbers it
shows its scale, its soft cap and its window, and on random numbers it must agree with
GroupQueryAttention's definition (ONNX Runtime, docs/ContribOperators.md). Anything that does not
agree, such as ALiBi, sinks and other masks, is not matched.
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

TOLERANCE = 1e-4  # for results near 1 in fp32
MAX_PROBE_VALUES = 1 << 27  # numbers in the queries of a probe; longer windows are not measured
_TRIALS = (RunSize(2, 3, 5), RunSize(1, 1, 7), RunSize(1, 6, 0))


class NoMatch(Exception):
    """The layer has no attention that GroupQueryAttention computes; the message says why."""


class AttentionMatch(NamedTuple):
    """Attention of one layer: its tensors, its result, and what it computes.

    Queries, keys and values are (batch, heads, sequence, width), the result (batch, sequence, heads
    x width). `new_*` are joined with `past_*` to `key` and `value`.
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
    """Parameters of attention: scores = cap(scale x products) of the last `window` positions.

    A window of -1 is all positions, a soft cap of 0 none.
    """

    scale: float
    softcap: float
    window: int


def find_attention(
    flow: Flow, layer: str, measured: dict[str, AttentionParameters | NoMatch]
) -> AttentionMatch:
    """Return the attention at the cache of a layer.

    Layers of equal structure are measured once; `measured` keeps the results by structure. Raise
    NoMatch.
    """
    match = _locate(flow, layer)
    digest, _ = structure_digest(flow, [match.result], (match.query, match.key, match.value))
    if digest not in measured:
        measured[digest] = _measure_and_check(flow, match)
    parameters = measured[digest]
    if isinstance(parameters, NoMatch):
        raise NoMatch(str(parameters))
    return match._replace(**parameters._asdict())


def _measure_and_check(flow: Flow, match: AttentionMatch) -> AttentionParameters | NoMatch:
    """Measure the parameters and check them in every trial; return the reason if one fails."""
    try:
        parameters = _measure(flow, match)
        for run in (
            *_TRIALS,
            *([RunSize(1, 3, parameters.window + 5)] if parameters.window > 0 else []),
        ):
            _check_trial(flow, match._replace(**parameters._asdict()), run)
    except NoMatch as reason:
        return reason
    return parameters


# --- location in the graph --------------------------------------------------------------------


def _locate(flow: Flow, layer: str) -> AttentionMatch:
    """Return the tensors of attention at the cache of a layer. Raise NoMatch."""
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    joined = [_cache_concat(flow, name) for name in past]
    key, value = (node.output[0] for node in joined)
    result, heads, width = _find_result(flow, key, value)
    kv_heads = (flow.shape(key) or ())[1]
    if flow.shape(key) != flow.shape(value) or heads % kv_heads:
        raise NoMatch("widths of keys, values and result differ, or heads do not share keys evenly")
    query = _find_query(
        flow, key, value, result, (PRIME_SIZES.batch, heads, PRIME_SIZES.sequence, width)
    )
    new_key, new_value = (str(node.input[1]) for node in joined)
    return AttentionMatch(
        query, new_key, new_value, past[0], past[1], key, value, result, heads, kv_heads, width
    )


def _cache_concat(flow: Flow, past: str) -> Any:
    """Return the Concat that makes the present of a past."""
    nodes = [
        n for n in flow.users.get(past, []) if n.op_type == "Concat" and n.output[0] in flow.outputs
    ]
    is_cache = len(nodes) == 1 and len(nodes[0].input) == 2 and nodes[0].input[0] == past
    shape = (flow.shape(nodes[0].output[0]) or ()) if is_cache else ()
    if len(shape) != 4 or (shape[0], shape[2]) != (PRIME_SIZES.batch, PRIME_SIZES.total):
        raise NoMatch(
            f"{past} is not joined with new positions in shape (batch, heads, sequence, width)"
        )
    return nodes[0]


def _find_result(flow: Flow, key: str, value: str) -> tuple[str, int, int]:
    """Follow the product of keys and values to (batch, sequence, heads x width).

    Return the tensor, the number of heads and their width.
    """
    meeting = flow.first_common_dependent(key, value)
    name = meeting.output[0] if meeting is not None else ""
    shape = flow.shape(name) or ()
    if len(shape) != 4 or (shape[0], shape[2]) != (PRIME_SIZES.batch, PRIME_SIZES.sequence):
        raise NoMatch("no product of keys and values in shape (batch, heads, sequence, width)")
    flat = (PRIME_SIZES.batch, PRIME_SIZES.sequence, shape[1] * shape[3])
    while flow.shape(name) != flat:
        users = flow.users.get(name, [])
        if len(users) != 1 or users[0].op_type not in ("Transpose", "Reshape"):
            raise NoMatch(
                "the result of attention is not reshaped to (batch, sequence, heads x width)"
            )
        name = users[0].output[0]
    return name, shape[1], shape[3]


def _find_query(flow: Flow, key: str, value: str, result: str, shape: tuple[int, ...]) -> str:
    """Return the one other tensor of data that attention takes, before it is scaled."""
    dependents = flow.dependents([key, value], last=flow.position[result])
    queue, inputs, visited = [result], set[str](), set[str]()
    while queue:
        name = queue.pop()
        for source in flow.data_inputs(flow.producer[name]) if name in flow.producer else ():
            if source not in dependents:
                inputs.add(source)
            elif source not in (key, value, *visited):
                visited.add(source)
                queue.append(source)
    if len(inputs) != 1:
        raise NoMatch(f"attention has {len(inputs)} inputs of data beside keys and values, not one")
    return _before_scaling(flow, inputs.pop(), shape)


def _before_scaling(flow: Flow, name: str, shape: tuple[int, ...]) -> str:
    """Return the query before scaling and casts, in the given shape."""
    dominators = flow.dominators(name)
    while flow.shape(name) != shape or _is_scaled(flow, name):
        can_step = name in flow.producer and flow.producer[name].op_type in (
            "Mul",
            "Div",
            "Cast",
            "Transpose",
            "Reshape",
        )
        narrower = next(dominators, None) if can_step else None
        if narrower is None:
            break
        name = narrower
    if flow.shape(name) != shape:
        raise NoMatch("queries are not in shape (batch, heads, sequence, width)")
    return name


def _is_scaled(flow: Flow, name: str) -> bool:
    """Return True if the tensor is another one times a number."""
    producer = flow.producer.get(name)
    others = [n for n in producer.input if n not in flow.data] if producer is not None else []
    return (
        producer is not None
        and producer.op_type in ("Mul", "Div")
        and len(others) == 1
        and flow.shape(others[0]) is not None
        and math.prod(flow.shape(others[0]) or ()) == 1
    )


# --- measurement ------------------------------------------------------------------------------


def _measure(flow: Flow, match: AttentionMatch) -> AttentionParameters:
    """Measure scale, soft cap and window with two or more positions."""
    rough = _score(flow, match, 0.1)
    if not 1e-6 < rough < 1e6:
        raise NoMatch("scores do not grow with the product of queries and keys")
    rough /= 0.1
    capped = _score(flow, match, 40 / rough)
    softcap = 0.0 if abs(capped - 40) < 0.02 else _without_noise(_solve_cap(capped, 40))
    product = 1 / rough if not softcap else 0.2 / rough
    score = _score(flow, match, product)
    scale = (softcap * math.atanh(score / softcap) if softcap else score) / product
    return AttentionParameters(
        _usual_or_rounded(scale, match.width), softcap, _measure_window(flow, match)
    )


def _score(flow: Flow, match: AttentionMatch, product: float) -> float:
    """Return the score of a key, above that of a key of zeros.

    `product` is the product of the key with the query.
    """
    query = np.zeros((1, match.heads, 1, match.width), np.float32)
    key, value = (np.zeros((1, match.kv_heads, 2, match.width), np.float32) for _ in "kv")
    query[..., 0], key[:, :, 1, 0], value[:, :, 0] = 1, product, 1
    probability = float(_run(flow, match, query, key, value, RunSize(1, 1, 1)).mean())
    if not 0 < probability < 1:
        raise NoMatch("probabilities are not those of a softmax over keys")
    return math.log(1 / probability - 1)


def _solve_cap(capped: float, score: float) -> float:
    """Return the cap c for which c tanh(score / c) is the measured score, by bisection."""
    low, high = capped, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tanh(score / middle) < capped else (low, middle)
    return low


def _usual_or_rounded(scale: float, width: int) -> float:
    """Return the usual scale 1/sqrt(width) if it is that, else the scale without noise."""
    usual = 1 / math.sqrt(width)
    return usual if abs(scale / usual - 1) < 2e-5 else _without_noise(scale)


def _without_noise(number: float) -> float:
    """Round to 4 digits if that is within the noise of measuring."""
    short = float(f"{number:.4g}")
    return short if abs(short / number - 1) < 2e-5 else number


def _measure_window(flow: Flow, match: AttentionMatch) -> int:
    """Return the positions that a query attends to, its own included; -1 for all.

    Measured after a past longer than any window in the part.
    """
    longest = largest_number(flow, [match.result], (match.query, match.key, match.value)) + 8
    run = RunSize(1, 1, longest)
    if run.total * match.heads * match.width > MAX_PROBE_VALUES:
        raise NoMatch(f"a window of up to {longest - 8} positions is too long to measure")
    query = np.zeros((1, match.heads, 1, match.width), np.float32)
    key, value = (np.zeros((1, match.kv_heads, run.total, match.width), np.float32) for _ in "kv")
    value[:, :, -1] = 1
    share = float(_run(flow, match, query, key, value, run).mean())
    window = round(1 / share) if share > 0 else 0
    return -1 if window == run.total else window


def _check_trial(flow: Flow, match: AttentionMatch, run: RunSize) -> None:
    """Compare the part with the definition on random numbers. Raise NoMatch if they differ."""
    random = np.random.default_rng(sum(run))
    query = random.standard_normal((run.batch, match.heads, run.sequence, match.width), np.float32)
    key, value = (
        random.standard_normal((run.batch, match.kv_heads, run.total, match.width), np.float32)
        for _ in "kv"
    )
    result = _run(flow, match, query, key, value, run)
    if not np.allclose(result, reference_attention(match, query, key, value), atol=TOLERANCE):
        raise NoMatch("not plain causal attention: it has a bias, a sink, or an unknown mask")


def _run(flow: Flow, match: AttentionMatch, query: Any, key: Any, value: Any, run: RunSize) -> Any:
    try:
        return run_subgraph(
            flow, [match.result], {match.query: query, match.key: key, match.value: value}, run
        )[0]
    except NotRunnable as error:
        raise NoMatch(f"the part cannot be run by itself ({error})") from error


def reference_attention(match: AttentionMatch, query: Any, key: Any, value: Any) -> Any:
    """Compute attention as GroupQueryAttention defines it.

    Takes (batch, heads, sequence, width), returns (batch, sequence, heads x width).
    """
    batch, heads, new, width = query.shape
    key, value = (np.repeat(x, heads // match.kv_heads, axis=1) for x in (key, value))
    scores = match.scale * (query @ key.swapaxes(2, 3))
    scores = match.softcap * np.tanh(scores / match.softcap) if match.softcap else scores
    distance = (key.shape[2] - new + np.arange(new))[:, None] - np.arange(key.shape[2])
    scores = np.where(
        (distance < 0) | ((match.window > 0) & (distance >= match.window)), -np.inf, scores
    )
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    result = weights / weights.sum(-1, keepdims=True) @ value
    return result.swapaxes(1, 2).reshape(batch, new, heads * width)
