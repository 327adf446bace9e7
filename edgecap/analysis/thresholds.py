"""Check comparisons against rules such as `worse:decode_s:10`, for the exit status of compare.

worse                 any metric worse or no longer measured, any cell failed or missing
worse:decode_s        this metric only
worse:decode_s:10     this metric, by more than 10 %
unknown               any metric without a verdict that both cells have
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
    """A verdict that fails: for every metric or one, from a relative change of `share` on."""

    verdict: str
    metric: str | None = None
    share: float = 0.0


class Violation(NamedTuple):
    """A broken rule in words; `metric` is None if the candidate itself failed."""

    baseline: str
    candidate: str
    metric: str | None
    message: str


def parse_rule(text: str) -> FailRule:
    """Parse `worse[:METRIC[:PERCENT]]` or `unknown[:METRIC]`. Raise UsageError."""
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
    """Return the differences that break a rule, each once."""
    return [violation for one in comparisons for violation in _violations(one, rules)]


def _violations(one: Comparison, rules: Sequence[FailRule]) -> list[Violation]:
    if one.failed is not None:
        message = f"failed: {one.failed}"
        worse = any(rule.verdict == "worse" for rule in rules)
        return [Violation(one.baseline, one.candidate, None, message)] if worse else []
    broken = {
        d.metric: describe(d) for d in one.differences if any(_breaks(d, rule) for rule in rules)
    }
    messages = _not_measured(one, rules) | broken
    return [Violation(one.baseline, one.candidate, *item) for item in messages.items()]


def _not_measured(one: Comparison, rules: Sequence[FailRule]) -> dict[str, str]:
    """Return the metrics that a rule cannot be checked on, or that the candidate lost.

    A rule on a metric without a number must fail: a gate that saw nothing is not open.
    """
    lost = [d.metric for d in one.differences if d.candidate is None and d.baseline is not None]
    ratios = {d.metric: d.ratio for d in one.differences if d.metric not in lost}
    messages = {
        rule.metric: _unchecked(rule.metric, ratios) for rule in rules if rule.metric is not None
    }
    if FailRule("worse") in rules:
        messages |= {name: f"{name} was measured in the baseline, and is no more" for name in lost}
    return {name: message for name, message in messages.items() if message}


def _unchecked(metric: str, ratios: dict[str, Estimate | Absent]) -> str:
    """Return why a rule on a metric cannot be checked; empty if it can."""
    if metric not in ratios:
        return f"{metric} was not measured, so that the rule cannot be checked"
    ratio = ratios[metric]
    if isinstance(ratio, Absent):
        return f"{metric}: the rule cannot be checked: {ratio.reason}"
    return ""


def _breaks(difference: Difference, rule: FailRule) -> bool:
    if difference.verdict != rule.verdict or rule.metric not in (None, difference.metric):
        return False
    if rule.verdict == "unknown":
        return difference.baseline is not None and difference.candidate is not None
    return worsening(difference) > rule.share


def worsening(difference: Difference) -> float:
    """Return by what share of the baseline the candidate is worse; negative if it is better."""
    if not isinstance(difference.ratio, Estimate):
        return math.nan
    change = difference.ratio.value - 1
    return change if BY_NAME[difference.metric].less_is_better else -change


def describe(difference: Difference) -> str:
    """Describe a difference: `decode_s worse by 12 % (ratio 1.120, 95 % 1.100..1.140)`."""
    metric, verdict, ratio = difference.metric, difference.verdict, difference.ratio
    if isinstance(ratio, Absent):
        return f"{metric} {verdict}: {ratio.reason}"
    change = f" by {100 * abs(worsening(difference)):.3g} %" if verdict == "worse" else ""
    return f"{metric} {verdict}{change} (ratio {ratio.value:.3f}{_interval(ratio)})"


def _interval(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return ""
    return f", 95 % {ratio.low:.3f}..{ratio.high:.3f}"
