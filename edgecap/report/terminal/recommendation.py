"""A recommendation: the answer in a sentence, the table of cells, and the cost of each limit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import click

from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.compare import Comparison, Difference
from edgecap.analysis.metrics import BY_NAME, MAIN
from edgecap.analysis.recommend import Candidate, Limit, Recommendation
from edgecap.analysis.recommend.candidates import Held
from edgecap.analysis.recommend.costs import Change, LimitCost, Relaxed
from edgecap.names import printable
from edgecap.record import Absent, Profile
from edgecap.report.format import table, wrapped
from edgecap.report.metric_text import metric_text
from edgecap.report.terminal.candidates import (
    amount,
    contenders,
    in_lines,
    legend,
    short,
)
from edgecap.report.verdict import WORTH, Verdict, verdicts
from edgecap.units import significant

_LISTED, _LONGEST = 3, 400  # failures and reasons, characters of a note


def advised(
    recommendation: Recommendation, width: int = 100, records: Sequence[Profile] = ()
) -> str:
    """Return the recommendation with its table, the cost of limits, and what to try.

    Where only worth decides among the cells of `records`, it begins with their verdict.
    """
    verdict = _verdict(recommendation, records)
    parts = [_answer(recommendation, width, verdict), "", contenders(recommendation, width)]
    parts += [
        text for text in (legend(recommendation), *_unmeasured(recommendation, width)) if text
    ]
    for title, text in (
        ("What each limit costs", _costs(recommendation, width)),
        ("Changes of the limits that would admit a cell", _relaxations(recommendation, width)),
        ("What to try", _steps(recommendation, width)),
    ):
        parts += ["", click.style(title, bold=True), text] if text else []
    notes = [
        *[(text, "red") for text in _failures(recommendation)],
        *[(f"caution: {c}", "yellow") for c in _cautions(recommendation)],
    ]
    if notes:
        parts += ["", *[_note(text, width, colour) for text, colour in notes]]
    return "\n".join(parts)


def _note(text: str, width: int, colour: str | None = None) -> str:
    text = printable(text)
    return wrapped(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...", width, colour)


# --- the answer -------------------------------------------------------------------------------


def _verdict(recommendation: Recommendation, records: Sequence[Profile]) -> Verdict | None:
    """Return the verdict on all cells, where it is the answer: without limits, decided by worth."""
    if recommendation.limits or recommendation.preference.metric != "worth":
        return None
    found = verdicts(cell_views(records)) if records else []
    decided = len(found) == 1 and found[0].decision and not found[0].decision.doubt
    return found[0] if decided else None


def _answer(recommendation: Recommendation, width: int, verdict: Verdict | None) -> str:
    if verdict is not None:
        head, _, rest = verdict.text.partition(": ")
        head = f"{head}:"
    elif recommendation.best is None:
        head, rest = "Nothing fits.", _nearness(recommendation)
    else:
        head, rest = (
            f"Ship {short(recommendation.best.name)}:",
            f"{_why(recommendation, recommendation.best)}{_runner_up(recommendation)}.",
        )
    lines = [
        _filled(f"{head} {rest}", width),
        *_trade(recommendation, width),
        *_deciding_metric(recommendation, width),
    ]
    colour = "green" if recommendation.best else "red"
    return "\n".join(
        [lines[0].replace(head, click.style(head, bold=True, fg=colour), 1), *lines[1:]]
    )


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _why(recommendation: Recommendation, best: Candidate) -> str:
    metric, fitting = (
        recommendation.preference.metric,
        [c for c in recommendation.candidates if c.state == "fits"],
    )
    where = "within the limits" if recommendation.limits else "measured"
    if len(fitting) == 1:
        value = _in_brackets(best, metric).replace("(", f"({BY_NAME[metric].heading} ", 1)
        return f"the only one of {_measured(recommendation)} {where}{value}"
    if metric == "worth" and any(_more(c, best, metric) for c in fitting):
        return f"none of the other {len(fitting) - 1} {where} is surely worth more"
    return (
        f"{_superlative(metric)} {BY_NAME[metric].heading}{_in_brackets(best, metric)} of the "
        f"{len(fitting)} {where}"
    )


def _more(candidate: Candidate, best: Candidate, metric: str) -> bool:
    value, own = candidate.figures[metric], best.figures[metric]
    return isinstance(value, float) and isinstance(own, float) and value > own


def _measured(recommendation: Recommendation) -> int:
    return sum(c.state != "failed" for c in recommendation.candidates)


def _in_brackets(candidate: Candidate, metric: str) -> str:
    value = candidate.figures[metric]
    return f" ({metric_text(metric, value)})" if isinstance(value, float) else " (not measured)"


def _superlative(metric: str) -> str:
    less = {"s": "the fastest", "J": "the fewest", "B": "the smallest", "bit/B": "the fewest"}
    return less.get(BY_NAME[metric].unit, "the highest")


def _runner_up(recommendation: Recommendation) -> str:
    """Return the runner-up, and whether it is significantly behind."""
    second, metric = recommendation.runner_up, recommendation.preference.metric
    if second is None or recommendation.beside is None:
        return ""
    compared = WORTH if metric == "worth" else metric
    between = next((d for d in recommendation.beside.differences if d.metric == compared), None)
    return f". Runner-up: {short(second.name)}{_in_brackets(second, metric)}, {_behind(between)}"


def _behind(between: Difference | None) -> str:
    if between is None:
        return "not comparable"
    if isinstance(between.ratio, Absent):
        return f"not comparable: {between.ratio.reason}"
    return {
        "better": "clearly behind",
        "same": f"level with it (within {significant(100 * between.margin, 2)} %)",
        "worse": "ahead in the rounds that both ran: repeat the run",
    }.get(between.verdict, "no significant difference")


def _trade(recommendation: Recommendation, width: int) -> list[str]:
    """Compare the best with the runner-up in the other metrics."""
    if recommendation.beside is None or recommendation.runner_up is None:
        return []
    words = {
        "better": "better in",
        "same": "the same in",
        "worse": "worse in",
        "unknown": "unclear in",
    }
    verdicts = [
        f"{words[verdict]} {', '.join(names)}"
        for verdict, names in _verdicts(recommendation, recommendation.beside).items()
        if names
    ]
    return (
        [
            _filled(
                f"Against {short(recommendation.runner_up.name)} it is {'; '.join(verdicts)}.",
                width,
            )
        ]
        if verdicts
        else []
    )


def _verdicts(recommendation: Recommendation, beside: Comparison) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {
        verdict: [] for verdict in ("better", "worse", "same", "unknown")
    }
    for d in beside.differences:
        if d.metric in MAIN and d.metric != recommendation.preference.metric:
            named[d.verdict].append(BY_NAME[d.metric].heading)
    return named


def _deciding_metric(recommendation: Recommendation, width: int) -> list[str]:
    reason, metric = recommendation.preference.reason, recommendation.preference.metric
    return (
        [_note(f"Decided by {BY_NAME[metric].heading}: {reason}.", width)]
        if reason and recommendation.best
        else []
    )


def _nearness(recommendation: Recommendation) -> str:
    near = recommendation.nearest
    if near is None:
        return f"None of {_measured(recommendation)} measured has every limited metric."
    missed = [
        _missed(h, limit)
        for h, limit in zip(near.held, recommendation.limits, strict=True)
        if h.state == "missed"
    ]
    return (
        f"Of {_measured(recommendation)} measured, {short(near.name)} comes nearest: "
        f"{'; '.join(missed)}."
    )


def _missed(held: Held, limit: Limit) -> str:
    assert held.value is not None and held.over is not None
    noise = ", within its noise" if held.in_noise else ""
    return (
        f"{BY_NAME[held.metric].heading} {metric_text(held.metric, held.value)}, "
        f"{_above(held.over)} {amount(limit)}{noise}"
    )


def _above(over: float) -> str:
    return f"{_percent(over)} above" if over < 10 else f"{significant(over + 1, 2)} times"


def _percent(share: float) -> str:
    return f"{significant(100 * share, 2)} %"


# --- what each limit costs --------------------------------------------------------------------


def _costs(recommendation: Recommendation, width: int) -> str:
    if not recommendation.costs:
        return ""
    if all(not c.changes for c in recommendation.costs):
        them = "it" if len(recommendation.costs) == 1 else "any of them"
        return wrapped(
            f"Nothing: {short(recommendation.costs[0].winner)} also wins without {them}.",
            width,
            None,
        )
    metrics = list(dict.fromkeys(c.metric for cost in recommendation.costs for c in cost.changes))
    rows = [[*_without(cost), *_changes(cost, metrics)] for cost in recommendation.costs]
    return table(
        ["without", "would win", *[BY_NAME[name].heading for name in metrics]], rows, width
    )


def _without(cost: LimitCost) -> list[str]:
    limit = f"{cost.limit.option}\n{amount(cost.limit)}" if cost.limit else "all of them"
    return [limit, in_lines(cost.winner) if cost.changes else "the same"]


def _changes(cost: LimitCost, metrics: Sequence[str]) -> list[str]:
    changes = {c.metric: c for c in cost.changes}
    return [_change(changes[name]) if name in changes else "" for name in metrics]


def _change(change: Change) -> str:
    if change.freed is None:
        return "not measured"
    value = metric_text(change.metric, change.freed)
    if not change.kept:
        return value
    ratio = change.freed / change.kept
    if f"{ratio:.4f}" == "1.0000":
        return f"{value}\nno change"
    word = "better" if (ratio < 1) == BY_NAME[change.metric].less_is_better else "worse"
    return f"{value}\n{_percent(abs(ratio - 1))} {word}"


# --- what is missing --------------------------------------------------------------------------


def _unmeasured(recommendation: Recommendation, width: int) -> list[str]:
    reasons = dict.fromkeys(
        f"{BY_NAME[h.metric].heading} not measured: {h.reason}"
        for c in recommendation.candidates
        for h in c.held
        if h.reason
    )
    return [_note(reason, width) for reason in list(reasons)[:_LISTED]]


def _relaxations(recommendation: Recommendation, width: int) -> str:
    lines = [
        f"{short(r.name)}: {', '.join(map(_relaxed, r.changes))}"
        for r in recommendation.relaxations
    ]
    return "\n".join(_item(line, width) for line in lines)


def _relaxed(change: Relaxed) -> str:
    return change.typed if change.over is None else f"{change.typed} ({_percent(change.over)} more)"


def _steps(recommendation: Recommendation, width: int) -> str:
    return "\n".join(_item(step, width) for step in recommendation.steps)


def _item(text: str, width: int) -> str:
    return textwrap.fill(
        printable(text), width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
    )


def _failures(recommendation: Recommendation) -> list[str]:
    failed = [c for c in recommendation.candidates if c.failure]
    more = (
        [f"failed: {len(failed) - _LISTED} more, see edgecap show"] if len(failed) > _LISTED else []
    )
    return [f"failed: {short(c.name)}, {c.failure}" for c in failed[:_LISTED]] + more


def _cautions(recommendation: Recommendation) -> list[str]:
    known = any("one after another" in caution for caution in recommendation.cautions)
    turns = (
        recommendation.beside is not None and recommendation.beside.one_after_another and not known
    )
    drift = (
        "best and runner-up were timed one after another: repeat the run before trusting a "
        "difference below 5 %"
    )
    return [*recommendation.cautions, *([drift] if turns else [])]
