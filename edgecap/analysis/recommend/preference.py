"""What decides among the cells that fit, and what it falls back to; what makes figures of several records no match."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.limits import Limit
from edgecap.errors import UsageError, did_you_mean
from edgecap.record import Absent

# What may be preferred, and the figures that tell it, the first that is had.
DECIDING = {
    "capacity": ("hardware_capacity", "time_capacity", "decode_s", "prefill_s"),
    "speed": ("decode_s", "prefill_s"),
    "quality": ("bits_per_byte",),
    "memory": ("peak_bytes",),
    "energy": ("decode_j", "prefill_j"),
    "size": ("file_bytes",),
}
PREFERENCES = tuple(DECIDING)

Different = dict[str, tuple[object, ...]]  # what differs between the runs, and its values


class Preference(msgspec.Struct, frozen=True):
    """What was asked for, the figure that decides, and why it is not the first choice of it."""

    asked: str
    metric: str
    reason: str | None = None


def differences(measured: Sequence[Considered]) -> Different:
    """What differs between the runs of cells, in the words of compare; nothing of a single record."""
    if len({c.view.place for c in measured}) < 2:
        return {}
    found: dict[str, dict[object, None]] = {}
    for one in measured:
        for what, value in one.view.conditions.items():
            if value is not None and not _assumed(what, one):
                found.setdefault(what, {})[_key(value)] = None
    return {what: tuple(values) for what, values in found.items() if len(values) > 1}


def _assumed(what: str, found: Considered) -> bool:
    """Joules that were assumed take no part, so that it does not matter how."""
    return (
        what == "way of counting joules"
        and found.figure("decode_j") is None
        and found.figure("prefill_j") is None
    )


def _key(value: object) -> object:
    """A value that can be held against others."""
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def _unlike(metric: str, different: Different) -> list[str]:
    return [what for what in different if what in BY_NAME[metric].needs]


def refuse_unlike(limits: Sequence[Limit], asked: str | None, different: Different) -> None:
    """Raises UsageError where a limit on quality, or a preference, is asked of runs that cannot be compared in it."""
    wishes = [(limit.option, limit.metric) for limit in limits if limit.metric == "bits_per_byte"]
    if asked in ("quality", "capacity"):
        wishes.append(
            (f"--prefer {asked}", DECIDING[asked][-1] if asked == "quality" else "time_capacity")
        )
    for option, metric in wishes:
        unlike = _unlike(metric, different)
        if unlike:
            raise UsageError(
                f"{option} needs records that can be compared, but their {_listed(unlike)} differ{_s(unlike)}; "
                "profile them alike, or give one record"
            )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _s(words: Sequence[str]) -> str:
    return "s" if len(words) == 1 else ""


def choose(asked: str | None, among: Sequence[Considered], different: Different) -> Preference:
    """The figure that decides among cells. Raises UsageError where a figure that was asked for is not there."""
    if asked is not None and asked not in DECIDING:
        raise UsageError(
            f"--prefer takes {', '.join(PREFERENCES)}, not '{asked}'{did_you_mean(asked, PREFERENCES)}"
        )
    wish = asked or "capacity"
    reason = None
    for metric in DECIDING[wish]:
        missing = _missing(metric, among, different)
        if missing is None:
            return Preference(wish, metric, reason)
        if reason is None or metric == "time_capacity":
            reason = f"no {BY_NAME[metric].words}: {missing}"
    if wish == "capacity":
        raise UsageError("nothing to recommend: no cell has a measured capacity or speed")
    raise UsageError(
        f"--prefer {wish}: {reason}; prefer one of {', '.join(PREFERENCES)}, or measure it first"
    )


def _missing(metric: str, among: Sequence[Considered], different: Different) -> str | None:
    """Why a figure cannot decide: hardware capacity needs all cells to have it, any other figure one of them."""
    if metric.endswith("_capacity"):
        unlike = _unlike(metric, different)
        if unlike:
            return f"the {_listed(unlike)} of the records differ{_s(unlike)}"
    absent = [c for c in among if c.figure(metric) is None]
    if not absent or (metric != "hardware_capacity" and len(absent) < len(among)):
        return None
    found = absent[0].candidate.figures[metric]
    why = found.reason if isinstance(found, Absent) else "not measured"
    return why if len(absent) == len(among) else f"{absent[0].candidate.name} has none ({why})"


def better(metric: str, found: Considered) -> tuple[bool, float, float, float, float]:
    """A key to sort by: the better in a figure first, those without it last; ties by bits, seconds and size.

    Bits per byte that agree in four places are a tie: what fp16 differs from fp32 by is worth no second.
    """
    value = _counted(found, metric)
    sign = 1 if BY_NAME[metric].less_is_better else -1
    ties = (_counted(found, name) for name in ("bits_per_byte", "decode_s", "file_bytes"))
    low, mid, last = (math.inf if t is None else t for t in ties)
    return value is None, sign * (value or 0.0), low, mid, last


def _counted(found: Considered, metric: str) -> float | None:
    value = found.figure(metric)
    return value if value is None or metric != "bits_per_byte" else round(value, 4)
