"""A recommendation as text: the answer in a sentence, the table of cells, what each limit costs, or how near they come."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import click

from edgecap.analysis.compare import Comparison, Difference
from edgecap.analysis.metrics import BY_NAME, MAIN
from edgecap.analysis.recommend import Candidate, Limit, Recommendation
from edgecap.analysis.recommend.candidates import Held
from edgecap.analysis.recommend.costs import Change, LimitCost, Relaxed
from edgecap.names import printable
from edgecap.record import Absent
from edgecap.report.format import table, wrapped
from edgecap.report.metric_text import metric_text
from edgecap.report.terminal.candidates import (
    amount,
    contenders,
    in_lines,
    legend,
    short,
)
from edgecap.units import significant

_TOLD, _LONGEST = 3, 400  # failures and reasons that are told, characters of a note


def advised(found: Recommendation, width: int = 100) -> str:
    """The whole recommendation."""
    parts = [_answer(found, width), "", contenders(found, width)]
    parts += [text for text in (legend(found), *_unmeasured(found, width)) if text]
    for title, text in (
        ("What each limit costs", _costs(found, width)),
        ("What would let one in", _relaxations(found, width)),
        ("What to try", _steps(found, width)),
    ):
        parts += ["", click.style(title, bold=True), text] if text else []
    notes = [
        *[(text, "red") for text in _failures(found)],
        *[(f"caution: {c}", "yellow") for c in _cautions(found)],
    ]
    if notes:
        parts += ["", *[_note(text, width, colour) for text, colour in notes]]
    return "\n".join(parts)


def _note(text: str, width: int, colour: str | None = None) -> str:
    text = printable(text)
    return wrapped(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...", width, colour)


# --- the answer -------------------------------------------------------------------------------


def _answer(found: Recommendation, width: int) -> str:
    if found.best is None:
        head, rest = "Nothing fits.", _nearness(found)
    else:
        head, rest = (
            f"Ship {short(found.best.name)}:",
            f"{_why(found, found.best)}{_runner_up(found)}.",
        )
    lines = [_filled(f"{head} {rest}", width), *_trade(found, width), *_decided(found, width)]
    colour = "green" if found.best else "red"
    return "\n".join(
        [lines[0].replace(head, click.style(head, bold=True, fg=colour), 1), *lines[1:]]
    )


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _why(found: Recommendation, best: Candidate) -> str:
    metric, fitting = found.preference.metric, [c for c in found.candidates if c.state == "fits"]
    where = "within the limits" if found.limits else "measured"
    if len(fitting) == 1:
        told = _valued(best, metric).replace("(", f"({BY_NAME[metric].heading} ", 1)
        return f"the only one of {_measured(found)} {where}{told}"
    return f"{_most(metric)} {BY_NAME[metric].heading}{_valued(best, metric)} of the {len(fitting)} {where}"


def _measured(found: Recommendation) -> int:
    return sum(c.state != "failed" for c in found.candidates)


def _valued(candidate: Candidate, metric: str) -> str:
    value = candidate.figures[metric]
    return f" ({metric_text(metric, value)})" if isinstance(value, float) else " (not measured)"


def _most(metric: str) -> str:
    less = {"s": "the fastest", "J": "the fewest", "B": "the smallest", "bit/B": "the fewest"}
    return less.get(BY_NAME[metric].unit, "the highest")


def _runner_up(found: Recommendation) -> str:
    """The runner-up, and whether it is really behind."""
    second, metric = found.runner_up, found.preference.metric
    if second is None or found.beside is None:
        return ""
    between = next((d for d in found.beside.differences if d.metric == metric), None)
    return f". Runner-up: {short(second.name)}{_valued(second, metric)}, {_behind(between)}"


def _behind(between: Difference | None) -> str:
    if between is None:
        return "which cannot be held against it"
    if isinstance(between.ratio, Absent):
        return f"which cannot be held against it: {between.ratio.reason}"
    return {
        "better": "clearly behind",
        "same": f"level with it (within {significant(100 * between.margin, 2)} %)",
        "worse": "which was ahead in the rounds they took in turns: repeat the run",
    }.get(between.verdict, "too close to tell apart")


def _trade(found: Recommendation, width: int) -> list[str]:
    """The best against the runner-up in the other figures."""
    if found.beside is None or found.runner_up is None:
        return []
    words = {
        "better": "better in",
        "same": "the same in",
        "worse": "worse in",
        "unknown": "unclear in",
    }
    said = [
        f"{words[verdict]} {', '.join(names)}"
        for verdict, names in _verdicts(found, found.beside).items()
        if names
    ]
    return (
        [_filled(f"Against {short(found.runner_up.name)} it is {'; '.join(said)}.", width)]
        if said
        else []
    )


def _verdicts(found: Recommendation, beside: Comparison) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {
        verdict: [] for verdict in ("better", "worse", "same", "unknown")
    }
    for d in beside.differences:
        if d.metric in MAIN and d.metric != found.preference.metric:
            named[d.verdict].append(BY_NAME[d.metric].heading)
    return named


def _decided(found: Recommendation, width: int) -> list[str]:
    reason, metric = found.preference.reason, found.preference.metric
    return (
        [_note(f"Decided by {BY_NAME[metric].heading}: {reason}.", width)]
        if reason and found.best
        else []
    )


def _nearness(found: Recommendation) -> str:
    near = found.nearest
    if near is None:
        return f"None of {_measured(found)} measured has all that the limits ask for."
    missed = [
        _missed(h, limit)
        for h, limit in zip(near.held, found.limits, strict=True)
        if h.state == "missed"
    ]
    return f"Of {_measured(found)} measured, {short(near.name)} comes nearest: {'; '.join(missed)}."


def _missed(held: Held, limit: Limit) -> str:
    assert held.value is not None and held.over is not None
    noise = ", within its noise" if held.in_noise else ""
    return f"{BY_NAME[held.metric].heading} {metric_text(held.metric, held.value)}, {_above(held.over)} {amount(limit)}{noise}"


def _above(over: float) -> str:
    return f"{_percent(over)} above" if over < 10 else f"{significant(over + 1, 2)} times"


def _percent(share: float) -> str:
    return f"{significant(100 * share, 2)} %"


# --- what each limit costs --------------------------------------------------------------------


def _costs(found: Recommendation, width: int) -> str:
    if not found.costs:
        return ""
    if all(not c.changes for c in found.costs):
        them = "it" if len(found.costs) == 1 else "any of them"
        return wrapped(
            f"Nothing: {short(found.costs[0].winner)} would win without {them}, too.", width, None
        )
    told = list(dict.fromkeys(c.metric for cost in found.costs for c in cost.changes))
    rows = [[*_without(cost), *_changes(cost, told)] for cost in found.costs]
    return table(["without", "would win", *[BY_NAME[name].heading for name in told]], rows, width)


def _without(cost: LimitCost) -> list[str]:
    limit = f"{cost.limit.option}\n{amount(cost.limit)}" if cost.limit else "all of them"
    return [limit, in_lines(cost.winner) if cost.changes else "the same"]


def _changes(cost: LimitCost, told: Sequence[str]) -> list[str]:
    changes = {c.metric: c for c in cost.changes}
    return [_change(changes[name]) if name in changes else "" for name in told]


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


def _unmeasured(found: Recommendation, width: int) -> list[str]:
    reasons = dict.fromkeys(
        f"{BY_NAME[h.metric].heading} not measured: {h.reason}"
        for c in found.candidates
        for h in c.held
        if h.reason
    )
    return [_note(reason, width) for reason in list(reasons)[:_TOLD]]


def _relaxations(found: Recommendation, width: int) -> str:
    lines = [f"{short(r.name)}: {', '.join(map(_relaxed, r.changes))}" for r in found.relaxations]
    return "\n".join(_item(line, width) for line in lines)


def _relaxed(change: Relaxed) -> str:
    return change.typed if change.over is None else f"{change.typed} ({_percent(change.over)} more)"


def _steps(found: Recommendation, width: int) -> str:
    return "\n".join(_item(step, width) for step in found.steps)


def _item(text: str, width: int) -> str:
    return textwrap.fill(
        printable(text), width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
    )


def _failures(found: Recommendation) -> list[str]:
    failed = [c for c in found.candidates if c.failure]
    more = [f"failed: {len(failed) - _TOLD} more, see edgecap show"] if len(failed) > _TOLD else []
    return [f"failed: {short(c.name)}, {c.failure}" for c in failed[:_TOLD]] + more


def _cautions(found: Recommendation) -> list[str]:
    said = any("one after another" in caution for caution in found.cautions)
    turns = found.beside is not None and found.beside.one_after_another and not said
    drift = "best and runner-up were timed one after another: repeat the run before trusting a difference below 5 %"
    return [*found.cautions, *([drift] if turns else [])]
