"""What makes a comparison fail: rules as `worse:decode_s:10`, and the differences that break them.

worse                 any metric that is worse or no longer measured, and any cell that failed or is missing
worse:decode_s        this metric only
worse:decode_s:10     worse, and by more than 10 %
unknown               any verdict that could not be had, where both sides were measured
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.compare import Comparison, Difference
from edgecap.analysis.metrics import BY_NAME, COMPARED
from edgecap.errors import UsageError, did_you_mean
from edgecap.record import Absent, Estimate

VERDICTS = ("worse", "unknown")


class FailRule(NamedTuple):
    """A verdict that is not accepted, of every metric or of one, beyond a share of the baseline."""

    verdict: str
    metric: str | None = None
    share: float = 0.0


class Violation(NamedTuple):
    """A broken rule in words; `metric` is None where the candidate itself failed."""

    baseline: str
    candidate: str
    metric: str | None
    message: str


def parse_rule(text: str) -> FailRule:
    """Read `worse[:METRIC[:PERCENT]]` or `unknown[:METRIC]`. Raise UsageError."""
    verdict, *rest = (part.strip() for part in text.split(":"))
    if verdict not in VERDICTS or len(rest) > 2:
        hint = did_you_mean(verdict, VERDICTS)
        raise UsageError(
            f"'{text}' is no rule; write worse[:METRIC[:PERCENT]] or unknown[:METRIC]{hint}"
        )
    metric = rest[0] if rest else None
    known = tuple(m.name for m in COMPARED)
    if metric is not None and metric not in known:
        hint = did_you_mean(metric, known) or f" (known: {', '.join(known)})"
        raise UsageError(f"{text}: no metric '{metric}'{hint}")
    return FailRule(verdict, metric, _percent(text, rest[1]) if len(rest) == 2 else 0.0)


def _percent(text: str, word: str) -> float:
    try:
        value = float(word.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"{text}: '{word}' is no percentage of 0 or more")
    return value / 100


def violations(comparisons: Sequence[Comparison], rules: Sequence[FailRule]) -> list[Violation]:
    """What the rules do not accept, each difference once."""
    return [v for one in comparisons for v in _of(one, rules)]


def _of(one: Comparison, rules: Sequence[FailRule]) -> list[Violation]:
    if one.failed is not None:
        worse = any(rule.verdict == "worse" for rule in rules)
        return (
            [Violation(one.baseline, one.candidate, None, f"failed: {one.failed}")] if worse else []
        )
    broken = {
        d.metric: words(d) for d in one.differences if any(_breaks(d, rule) for rule in rules)
    }
    return [
        Violation(one.baseline, one.candidate, *found)
        for found in (_unseen(one, rules) | broken).items()
    ]


def _unseen(one: Comparison, rules: Sequence[FailRule]) -> dict[str, str]:
    """Metrics that a rule names and that the candidate, or neither, has: a gate that saw nothing is not open."""
    had = {d.metric: d.ratio for d in one.differences if d.candidate is not None}
    asked = dict.fromkeys(rule.metric for rule in rules if rule.metric is not None)
    lost = (
        [d.metric for d in one.differences if d.candidate is None]
        if FailRule("worse") in rules
        else []
    )
    return {
        **{
            name: f"{name} was not measured, so that the rule cannot be checked"
            for name in asked
            if name not in had
        },
        **{
            name: f"{name}: the rule cannot be checked: {ratio.reason}"
            for name, ratio in had.items()
            if name in asked and isinstance(ratio, Absent)
        },
        **{name: f"{name} was measured in the baseline, and is no more" for name in lost},
    }


def _breaks(found: Difference, rule: FailRule) -> bool:
    if found.verdict != rule.verdict or rule.metric not in (None, found.metric):
        return False
    if rule.verdict == "unknown":
        return found.baseline is not None and found.candidate is not None
    return worsening(found) > rule.share


def worsening(found: Difference) -> float:
    """By what share of the baseline the candidate is worse; negative where it is better."""
    if not isinstance(found.ratio, Estimate):
        return math.nan
    change = found.ratio.value - 1
    return change if BY_NAME[found.metric].less_is_better else -change


def words(found: Difference) -> str:
    """`decode_s 12 % worse (ratio 1.12, 95 % 1.10..1.14)`."""
    ratio = found.ratio
    if not isinstance(ratio, Estimate):
        return f"{found.metric} {found.verdict}: {ratio.reason}"
    span = (
        ""
        if ratio.low is None or ratio.high is None
        else f", 95 % {ratio.low:.3f}..{ratio.high:.3f}"
    )
    much = f" by {100 * abs(worsening(found)):.3g} %" if found.verdict == "worse" else ""
    return f"{found.metric} {found.verdict}{much} (ratio {ratio.value:.3f}{span})"
