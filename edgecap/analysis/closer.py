"""Name a variant that is closer to fp32 than another: a measured one, else by its recipe. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edgecap.analysis.decoding import worst_divergence
from edgecap.analysis.outcomes import status
from edgecap.record import Cell, Graph, Profile
from edgecap.units import significant, size

_MUCH_CLOSER = 0.75  # share of the divergence
_AS_SMALL = 1.25  # times the bytes


def closer_variant(record: Profile, cell: Cell, recipes: Mapping[str, str]) -> str:
    """Return advice to use a variant that is closer to fp32, "" if none is known.

    It is the closest measured one that takes at most 1.25 times the bytes; else the one that
    `recipes` names, or the one named for that, where the record shows that it is no closer.
    """
    bits = worst_divergence(cell.graph)
    if bits is None or not isinstance(cell.graph, Graph):
        return _by_recipe(recipes.get(cell.precision))
    most = _MUCH_CLOSER * bits
    known = _measured(record, cell.provider)
    small = [
        x for x in known.values() if x[0] <= most and x[1].bytes <= _AS_SMALL * cell.graph.bytes
    ]
    if small:
        return _in_numbers(*min(small, key=lambda x: x[0]))
    tried = {c.precision for c in record.cells if c.provider == cell.provider}
    name = recipes.get(cell.precision)
    while name in tried and not (name in known and known[name][0] <= most):
        name = recipes.get(name)
    return _in_numbers(*known[name]) if name in known else _by_recipe(name)


def _measured(record: Profile, provider: str) -> dict[str, tuple[float, Graph]]:
    """Return divergence and graph of each variant that was measured on a provider, by name."""
    return {
        c.precision: (bits, c.graph)
        for c in record.cells
        if c.provider == provider
        and status(c) == "measured"
        and isinstance(c.graph, Graph)
        and (bits := worst_divergence(c.graph)) is not None
    }


def _in_numbers(bits: float, graph: Graph) -> str:
    return f"use {graph.precision}: {significant(bits)} bits, {size(graph.bytes)}"


def _by_recipe(name: str | None) -> str:
    return f"use {name}, which stays closer to fp32" if name else ""
