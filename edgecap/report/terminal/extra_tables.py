"""Tables of a record besides the measured values, and which of them a run requested."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgecap.record import Profile
from edgecap.report.terminal.energy import energies
from edgecap.report.terminal.roofline import growth, operators, rooflines
from edgecap.report.terminal.scores import scores
from edgecap.report.terminal.throughput import throughputs
from edgecap.spec import Spec


class ExtraTable(NamedTuple):
    """A titled table: its name in a sentence, its text at a width, and whether a run requested it.

    The text is empty where the record has nothing to show.
    """

    title: str
    name: str
    text: Callable[[Profile, int], str]
    requested: Callable[[Spec], bool]


EXTRA_TABLES = (
    ExtraTable(
        "Scores, with the 95 % interval of the first cell", "scores", scores, lambda s: False
    ),
    ExtraTable("Energy", "energy", energies, lambda s: False),
    ExtraTable("Roofline", "roofline", rooflines, lambda s: s.calibrate),
    ExtraTable("Time by operator", "operators", operators, lambda s: s.operators),
    ExtraTable("Growth with the context", "contexts", growth, lambda s: bool(s.context_sweep)),
    ExtraTable(
        "Batches and streams",
        "throughput",
        throughputs,
        lambda s: s.batches != (1,) or s.streams != (1,),
    ),
)
