"""Sentences that the figures of a report have as titles: what their data show, if it is sure.

Sure is what `compare` gives a verdict on, or what has no error: a file's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgecap import stats
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.verdict import Decision, Differences, JudgedCell, worth_of
from edgecap.record import Estimate, SweepPoint
from edgecap.report.decision import times_text
from edgecap.units import significant

_CLOSE = 0.05  # relative growth that counts as none
_LINEAR = 0.1  # relative distance of a growth from that of the context that counts as none


class BesideBaseline(NamedTuple):
    """An option with its ratio to the baseline in a metric."""

    name: str
    baseline: str
    ratio: Estimate
    found: Differences

    @property
    def times(self) -> str:
        """Return the ratio with its interval."""
        return f"{times_text(self.ratio.value)}{between(self.ratio)}"

    @property
    def share(self) -> str:
        """Return the ratio without its interval."""
        return times_text(self.ratio.value)


def between(ratio: Estimate) -> str:
    """Return the 95 % interval of a ratio in brackets; empty if there is none."""
    if ratio.low is None or ratio.high is None:
        return ""
    return f" (95 % {times_text(ratio.low)} to {times_text(ratio.high)})"


def differences_by_view(decisions: Sequence[Decision]) -> dict[int, Differences]:
    """Return each option's differences from its baseline, by the identity of its view."""
    return {id(option.view): option.against for d in decisions for option in d.options}


def surely_best(decisions: Sequence[Decision], metric: str) -> BesideBaseline | None:
    """Return the option that is better than its baseline beyond doubt, by the most."""
    return _most(decisions, metric, lambda option: option.against.verdict(metric) == "better")


def of_least(decisions: Sequence[Decision], metric: str) -> BesideBaseline | None:
    """Return the option of the least cost in a metric, if it is less than the baseline's."""
    return _most(decisions, metric, lambda option: worth_of(option, metric) > 1)


def _most(
    decisions: Sequence[Decision], metric: str, fits: Callable[[JudgedCell], bool]
) -> BesideBaseline | None:
    judged = [
        (worth_of(option, metric), option, decision, ratio)
        for decision in decisions
        for option in decision.options
        if (ratio := option.against.ratio(metric)) and fits(option)
    ]
    if not judged:
        return None
    _, option, decision, ratio = max(judged, key=lambda one: one[0])
    return BesideBaseline(option.view.name, decision.baseline.name, ratio, option.against)


def compares(decisions: Sequence[Decision], metric: str) -> bool:
    """Return True if an option has a ratio to its baseline in the metric."""
    return any(o.against.ratio(metric) for d in decisions for o in d.options)


def baselines(decisions: Sequence[Decision]) -> str:
    """Return the name of the one baseline that options were compared with, or what there are."""
    named = dict.fromkeys(d.baseline.name for d in decisions if d.options)
    return next(iter(named)) if len(named) == 1 else "its baseline"


def cost_title(decisions: Sequence[Decision], metric: str, says: str, nobody: str) -> str:
    """Say which option costs surely less than the baseline.

    `says` holds {name}, {share}, {base} and {interval}; `nobody` holds {base}. Empty if nothing was
    compared.
    """
    best = surely_best(decisions, metric)
    if best:
        interval = between(best.ratio)
        return says.format(name=best.name, share=best.share, base=best.baseline, interval=interval)
    return nobody.format(base=baselines(decisions)) if compares(decisions, metric) else ""


def worth_title(decisions: Sequence[Decision], metric: str) -> str:
    """Say which option is worth more than the baseline beyond doubt; empty if none was compared."""
    choices = [d for d in decisions if d.options]
    ships = [d for d in choices if d.best]
    if len(choices) > 1:
        pairs = f"{len(ships)} of {len(choices)} pairs of model and machine"
        return f"On {pairs} a variant is surely worth more than the baseline"
    best = surely_best(decisions, metric)
    if best:  # of a decision that ships it
        return f"{best.name} is worth {best.share} times as much as {best.baseline}" + between(
            best.ratio
        )
    return f"No variant is surely worth more than {baselines(decisions)}"


def capacity_title(decisions: Sequence[Decision], metrics: Sequence[str]) -> str:
    """Say which option has more of a capacity, of those that have a cost first."""
    for metric in reversed(metrics):
        best = surely_best(decisions, metric)
        if best:
            words = BY_NAME[metric].words
            return f"{best.name} has {best.ratio.value:.3f} times the {words} of {best.baseline}"
    return f"No variant surely has more capacity than {baselines(decisions)}"


# --- growth -----------------------------------------------------------------------------------


def prefill_growth(sweeps: Sequence[Sequence[SweepPoint]]) -> str:
    """Say how prefill grows from the shortest to the longest context that all sweeps share."""
    ends = _shared_ends(sweeps)
    if ends is None:
        return "Prefill was timed at fewer than two common contexts"
    first, last = ends
    longer = last / first
    grown = [_grown(sweep, ends, lambda p: p.prefill_s) for sweep in sweeps]
    span = _span([ratio.value for ratio in grown])
    if _all(grown, lambda low, high: (1 - _LINEAR) * longer <= low <= high <= longer / 0.9):
        return f"Prefill grows linearly from {first} to {last} tokens"
    if _all(grown, lambda low, high: low > longer / (1 - _LINEAR)):
        return f"Prefill grows faster than the prompt: {span} times from {first} to {last} tokens"
    if _all(grown, lambda low, high: high < (1 - _LINEAR) * longer):
        return f"Prefill grows less than the prompt: {span} times from {first} to {last} tokens"
    if _all(grown, lambda low, high: low > 1):
        return f"Prefill takes {span} times as long for {last} tokens as for {first}"
    return f"Whether prefill grows linearly from {first} to {last} tokens is not sure"


def decode_growth(sweeps: Sequence[Sequence[SweepPoint]]) -> str:
    """Say how a decoded token slows down, likewise."""
    ends = _shared_ends(sweeps)
    if ends is None:
        return "Decoding was timed at fewer than two common contexts"
    first, last = ends
    grown = [_grown(sweep, ends, lambda p: p.decode_s) for sweep in sweeps]
    span = _span([ratio.value for ratio in grown])
    if _all(grown, lambda low, high: low > 1):
        return f"A decoded token takes {span} times as long behind {last} tokens as behind {first}"
    if _all(grown, lambda low, high: 1 - _CLOSE <= low <= high <= 1 + _CLOSE):
        return f"A decoded token takes as long behind {last} tokens as behind {first}"
    return f"Whether a decoded token slows down from {first} to {last} tokens is not sure"


def _shared_ends(sweeps: Sequence[Sequence[SweepPoint]]) -> tuple[int, int] | None:
    """Return the shortest and the longest context of all sweeps; None if they share no two."""
    contexts = [{point.context for point in sweep} for sweep in sweeps]
    shared = set.intersection(*contexts) if contexts else set()
    return (min(shared), max(shared)) if len(shared) > 1 else None


def _grown(
    sweep: Sequence[SweepPoint], ends: tuple[int, int], read: Callable[[SweepPoint], Any]
) -> Estimate:
    """Return seconds at the second context over those at the first, round by round."""
    samples = {point.context: read(point) for point in sweep}
    first, last = (samples[context] for context in ends)
    ratios = [b / a for a, b in zip(first, last, strict=False)]
    draws = stats.bootstrap_medians(ratios) if len(ratios) >= stats.FEW_ROUNDS else None
    return stats.interval(stats.median(ratios), draws)


def _all(grown: Sequence[Estimate], holds: Callable[[float, float], bool]) -> bool:
    return bool(grown) and all(
        x.low is not None and x.high is not None and holds(x.low, x.high) for x in grown
    )


def _span(values: Sequence[float]) -> str:
    low, high = (significant(end, 2) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
