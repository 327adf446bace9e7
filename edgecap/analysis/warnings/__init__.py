"""Warn about the conditions under which a cell was measured. Pure.

setup    machine, graph and execution provider
quality  corpus, tokenizer and scoring
board    NVIDIA board: others that use it, its memory and clock
timing   noise, rounds, contexts and streams of the latency benchmark
energy   power counter and energy windows

Each warning is a `Caution`: a code for programs, a message and advice for people.
"""

from __future__ import annotations

from edgecap.analysis.warnings import board, energy, quality, setup, timing
from edgecap.record import (
    Caution,
    Compression,
    Energy,
    Graph,
    Latency,
    Machine,
    Measurement,
    Memory,
    Placement,
    Source,
)


def cautions(
    machine: Machine,
    source: Source,
    graph: Graph,
    provider: str,
    measured: Measurement,
    cells_in_run: int,
    closer: str = "",
    decoding_shift: float = 0.0,
    quick: bool = False,
) -> tuple[Caution, ...]:
    """Return all cautions of one measured cell; records and reports keep this order.

    `closer` is advice to use a variant that is closer to fp32, `decoding_shift` the bits that a
    decoded token gains less than one of the text, `quick` a run that measures less of everything.
    """
    result = [
        *setup.check_load(machine, measured),
        *setup.check_machine(machine),
        *setup.check_quota(machine, measured),
        *board.check_board(machine, provider, measured),
        *quality.check_divergence(graph, closer),
        *setup.check_graph(machine, source, graph, provider),
        *setup.check_failed_parts(measured),
    ]
    if isinstance(measured.placement, Placement):
        result += setup.check_placement(measured.placement, provider)
    if isinstance(measured.compression, Compression):
        result += quality.check_decoding(graph, measured.compression, decoding_shift)
        result += quality.check_compression(measured.compression, quick)
    if isinstance(measured.latency, Latency):
        result += timing.check_latency(measured.latency, cells_in_run, quick)
    if isinstance(measured.energy, Energy):
        result += energy.check_energy(measured.energy)
    if isinstance(measured.memory, Memory) and source.task == "decoder":
        result += setup.check_cache(measured.memory, source.architecture, graph)
    return tuple(result)
