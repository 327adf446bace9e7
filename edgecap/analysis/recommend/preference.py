"""The metric that decides among the cells that fit, and its fallbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.limits import Limit
from edgecap.errors import UsageError, did_you_mean
from edgecap.record import Absent

# Each preference with the metrics that may decide it; the first that was measured does.
DECIDING = {
    "worth": ("worth", "decode_s", "prefill_s"),
    "speed": ("decode_s", "prefill_s"),
    "quality": ("bits_per_byte",),
    "memory": ("peak_bytes",),
    "energy": ("decode_j", "prefill_j"),
    "size": ("file_bytes",),
}
PREFERENCES = tuple(DECIDING)

Different = dict[str, tuple[object, ...]]  # run conditions that differ, with their values


class Preference(msgspec.Struct, frozen=True):
    """A preference, the metric that decides it, and the reason if that is a fallback."""

    asked: str
    metric: str
    reason: str | None = None


def differences(measured: Sequence[Considered]) -> Different:
    """Return the run conditions in which cells of several records differ, with their values."""
    if len({c.view.place for c in measured}) < 2:
        return {}
    values: dict[str, dict[object, None]] = {}
    for cell in measured:
        for name, value in cell.view.conditions.items():
            if value is not None and not _is_unused(name, cell):
                values.setdefault(name, {})[_hashable(value)] = None
    return {name: tuple(distinct) for name, distinct in values.items() if len(distinct) > 1}


def _is_unused(condition: str, cell: Considered) -> bool:
    """Return True for the way of counting joules that do not count, as those that were assumed."""
    return (
        condition == "way of counting joules"
        and cell.figure("decode_j") is None
        and cell.figure("prefill_j") is None
    )


def _hashable(value: object) -> object:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def _unlike(metric: str, different: Different) -> list[str]:
    return [name for name in different if name in BY_NAME[metric].needs]


def refuse_unlike(limits: Sequence[Limit], prefer: str | None, different: Different) -> None:
    """Raise UsageError if a limit or a preference on quality spans runs that cannot be compared."""
    options = [(limit.option, limit.metric) for limit in limits if limit.metric == "bits_per_byte"]
    if prefer in ("quality", "worth"):
        metric = "bits_per_byte" if prefer == "quality" else "worth"
        options.append((f"--prefer {prefer}", metric))
    for option, metric in options:
        unlike = _unlike(metric, different)
        if unlike:
            raise UsageError(
                f"{option} needs records that can be compared, but their "
                f"{_listed(unlike)} differ{_s(unlike)}; profile them alike, or give one record"
            )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _s(words: Sequence[str]) -> str:
    return "s" if len(words) == 1 else ""


def check_preference(prefer: str | None) -> None:
    """Raise UsageError if a preference is not known."""
    if prefer is not None and prefer not in DECIDING:
        hint = did_you_mean(prefer, PREFERENCES)
        raise UsageError(f"--prefer takes {', '.join(PREFERENCES)}, not '{prefer}'{hint}")


def choose(prefer: str | None, cells: Sequence[Considered], different: Different) -> Preference:
    """Return the metric that decides. Raise UsageError if the preference has none."""
    check_preference(prefer)
    known, preference = ", ".join(PREFERENCES), prefer or "worth"
    reason = None
    for metric in DECIDING[preference]:
        missing = _missing(metric, cells, different)
        if missing is None:
            return Preference(preference, metric, reason)
        if reason is None or metric == "worth":
            reason = f"no {BY_NAME[metric].words}: {missing}"
    if preference == "worth":
        raise UsageError("nothing to recommend: no cell has a measured worth or speed")
    raise UsageError(f"--prefer {preference}: {reason}; prefer one of {known}, or measure it first")


def _missing(metric: str, cells: Sequence[Considered], different: Different) -> str | None:
    """Return why a metric cannot decide, or None if it can: at least one cell has it."""
    if metric == "worth":
        unlike = _unlike(metric, different)
        if unlike:
            return f"the {_listed(unlike)} of the records differ{_s(unlike)}"
    absent = [c for c in cells if c.figure(metric) is None]
    if len(absent) < len(cells):
        return None
    figure = absent[0].candidate.figures[metric]
    reason = figure.reason if isinstance(figure, Absent) else "not measured"
    if len(absent) == len(cells):
        return reason
    return f"{absent[0].candidate.name} has none ({reason})"


def sort_key(
    metric: str, shipped: CellView | None, cell: Considered
) -> tuple[bool, bool, float, float, float, float]:
    """Return a key that sorts cells by a metric, the best first, those without it last.

    `shipped` comes before all. Ties go by bits per byte, seconds and size. Bits per byte that agree
    in four decimals are a tie: the difference between fp16 and fp32 is not worth a slower cell.
    """
    value = _rounded(cell, metric)
    sign = 1 if BY_NAME[metric].less_is_better else -1
    ties = (_rounded(cell, name) for name in ("bits_per_byte", "decode_s", "file_bytes"))
    bits, seconds, size = (math.inf if tie is None else tie for tie in ties)
    return cell.view is not shipped, value is None, sign * (value or 0.0), bits, seconds, size


def _rounded(cell: Considered, metric: str) -> float | None:
    value = cell.figure(metric)
    return value if value is None or metric != "bits_per_byte" else round(value, 4)
