"""The decision in a few sentences: what to ship, by how much, at what cost, and what may change it.

`profile`, `show`, `compare`, `report` and `recommend` all begin with these words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.compare import Comparison
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.verdict import DECIDING, Decision, Differences, decide
from edgecap.names import shortened
from edgecap.record import Estimate
from edgecap.report.data import inverse
from edgecap.report.decision import (
    BETTER,
    FAILED,
    LEVEL,
    UNKNOWN,
    WORSE,
    DecisionTable,
    decision_table,
    mark_of,
)
from edgecap.units import significant

WORTH = "effective_flops_per_s"
_NAMED = 3  # cells that a sentence names
_DONE = {"decode_s": "decodes", "prefill_s": "reads the prompt"}
_CLOSE = 0.05  # relative difference in worth that reads as none


class Verdict(NamedTuple):
    """The sentences on one model on one machine, and the decision; None if nothing was measured."""

    place: str
    sentence: str
    caution: str
    decision: Decision | None

    @property
    def table(self) -> DecisionTable | None:
        """Return the decision as a table; None if there is nothing to choose from."""
        return decision_table(self.decision) if self.decision else None

    @property
    def text(self) -> str:
        """Return decision and caution as one text."""
        return f"{self.sentence} Caution: {self.caution}." if self.caution else self.sentence


def verdict_texts(found: Sequence[Verdict]) -> list[str]:
    """Return each verdict as one text, with model and machine where there are several."""
    if len(found) == 1:
        return [found[0].text]
    return [f"{verdict.place}: {verdict.text}" for verdict in found]


def verdicts(views: Sequence[CellView]) -> list[Verdict]:
    """Return the verdict on each model on each machine, in order."""
    decisions = decide(views)
    if not decisions and views:
        source = shortened(views[0].record.source.name)
        reason = shortened(failure_of(views[0].cell), 300)
        return [Verdict("", f"Nothing of {source} was measured here: {reason}.", "", None)]
    return [Verdict(_place(d.baseline), _sentence(d), law_caution(d), d) for d in decisions]


def compared(found: Differences, candidate: str, baseline: str) -> str:
    """Return one sentence on a candidate; empty if the two have no speed in common."""
    metric = next((m for m in DECIDING if m in found.by_metric), "")
    if not metric:
        return ""
    judged = {"better": "better", "worse": "worse", "same": "level"}.get(found.verdict(metric), "")
    verdict = f"{judged}: " if judged else "no clear winner: "
    return f"{verdict}{candidate} {_why(found, baseline, metric)}{_file(found)}."


_GROUPS = {  # of candidates, by their mark
    BETTER: "better",
    LEVEL: "level",
    WORSE: "worse",
    UNKNOWN: "no clear winner",
    FAILED: "failed",
}


def compared_all(pairs: Sequence[Comparison]) -> str:
    """Return one sentence on many candidates: which are better than their baseline, which not."""
    baselines = dict.fromkeys(pair.baseline for pair in pairs)
    of_one = f"beside {next(iter(baselines))}" if len(baselines) == 1 else "beside their baselines"
    marks = [(mark_of(pair), pair.candidate) for pair in pairs]
    groups = {
        words: [name for mark, name in marks if mark == group] for group, words in _GROUPS.items()
    }
    parts = [f"{words}: {_listed(names)}" for words, names in groups.items() if names]
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]} ({of_one})."


def _place(view: CellView) -> str:
    machine, source = view.record.machine, view.record.source
    return f"{shortened(source.name)} on {shortened(machine.processor)}"


def _sentence(decision: Decision) -> str:
    base, metric = decision.baseline.name, decision.metric
    if not metric:
        return "No variant has a speed to judge it by."
    if not decision.options:
        return f"Only {base} was measured: there is nothing to choose from."
    if decision.doubt:
        return f"No verdict yet: {decision.doubt}."
    if decision.best is not None:
        best = decision.best
        return (
            f"Ship {best.view.name}: it {_why(best.against, base, metric)}{_file(best.against)}."
            f"{_level(decision.level)}"
        )
    nearest = decision.nearest
    if nearest is None:
        return f"Keep {base}: no variant can be compared with it."
    head = f"Keep {base}: no variant is surely {_better(metric)}."
    name, found = nearest.view.name, nearest.against
    return f"{head} {name}, the nearest, {_why(found, base, metric)}{_file(found)}."


def _better(metric: str) -> str:
    return "worth more" if metric == WORTH else "faster"


def _why(found: Differences, base: str, metric: str) -> str:
    """Return what an option does, and how much it is worth with the interval."""
    if metric != WORTH:
        ratio = found.ratio(metric)
        between = _interval(inverse(ratio)) if ratio else ""
        unknown = "" if found.ratio("bits_per_byte") else "; its quality was not measured"
        return f"{_speed(found, base, metric)}{between}{unknown}"
    worth = found.ratio(metric)
    times = f": worth {_as_much(worth, found.verdict(metric))}" if worth else ""
    return f"{_speed(found, base, 'decode_s')} and {_quality(found)}{times}"


def _as_much(worth: Estimate, verdict: str) -> str:
    times = "as much" if verdict == "same" else f"{worth_text(worth)} times as much"
    return f"{times}{_interval(worth)}"


def _speed(found: Differences, base: str, metric: str) -> str:
    ratio, does = found.ratio(metric), _DONE[metric]
    if ratio is None:
        return f"{does} at an unknown speed"
    if found.verdict(metric) == "same":
        return f"{does} as fast as {base}"
    return f"{does} {significant(1 / ratio.value, 3)} times as fast as {base}"


def _quality(found: Differences) -> str:
    """Return the compute-equivalent gain of its bits in words."""
    ratio = found.ratio("effective_flops")
    if ratio is None:
        return "predicts with unknown quality"
    if abs(ratio.value - 1) <= _CLOSE and found.verdict("effective_flops") in ("same", "unknown"):
        return "predicts as well"
    return f"predicts like a model of {significant(ratio.value, 2)} times the compute"


def _file(found: Differences) -> str:
    ratio = found.ratio("file_bytes")
    if ratio is None or found.verdict("file_bytes") == "same":
        return ""
    return f"; its file is {significant(ratio.value, 2)} times as large"


def _level(level: Sequence[CellView]) -> str:
    return f" Not told apart from it: {_listed([v.name for v in level])}." if level else ""


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _interval(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return ""
    return f" (95 % {significant(ratio.low, 3)} to {significant(ratio.high, 3)})"


def worth_text(ratio: Estimate) -> str:
    """Format how many times as much something is worth."""
    return significant(ratio.value, 3)


def law_caution(decision: Decision) -> str:
    """Return why the intervals of worth span several slopes; empty if they do not."""
    ends = sorted(slope.value for slope in decision.slopes.values)
    judged = decision.options and not decision.doubt and decision.metric == WORTH
    if len(ends) < 2 or not judged:
        return ""
    beyond = f"{significant(decision.beyond, 2)} times beyond this text's law"
    where = beyond if decision.beyond > 1 else "this text has no law"
    return f"{where}: worth spans {significant(ends[0])} to {significant(ends[-1])} bits a doubling"
