"""Judge a cell once all of it is measured: roofline, scores and cautions."""

from __future__ import annotations

import msgspec

from edgecap.analysis.closer import closer_variant
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.law import law_of
from edgecap.analysis.roofline import compute_roofline
from edgecap.analysis.score import NOT_DECODED, score
from edgecap.analysis.warnings import cautions
from edgecap.analysis.warnings.quality import foreign_bias
from edgecap.analysis.warnings.timing import above_peak
from edgecap.graph.variants import CLOSER
from edgecap.record import Absent, Bound, Cell, Failure, Graph, Measurement, Profile, Roofline
from edgecap.spec import CellSpec
from edgecap.text.bias_card import BiasCard

PENDING = Absent(reason="the run ended before the cell was complete")


def pending_cell(cell: CellSpec, graph: Graph, measurement: Measurement) -> Cell:
    """Return a cell that waits for its latency, and for `judge`."""
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=measurement,
        score=PENDING,
    )


def failed_cell(cell: CellSpec, graph: Graph | Absent, failure: Failure) -> Cell:
    """Return the cell of a failed step; it has no score."""
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=failure,
        score=Absent(reason=f"{failure.stage} failed"),
    )


def as_absent(failure: Failure) -> Absent:
    """Return Absent for a part of a cell that failed, so that the cell keeps its other parts."""
    return Absent(reason=f"{failure.error}: {failure.message}", failed=True)


def judge(record: Profile, cell: Cell, card: BiasCard | None, cells_in_run: int) -> Cell:
    """Add roofline, scores and cautions to a measured cell; return a failed one as it is."""
    measured, graph = cell.outcome, cell.graph
    if isinstance(measured, Failure) or isinstance(graph, Absent):
        return cell
    bound = compute_roofline(
        measured,
        record.flops,
        record.peaks.get(cell.provider),
        cell.precision,
        graph.arithmetic,
    )
    decode = bound.decode if isinstance(bound, Roofline) else bound
    ratio = decode.ratio if isinstance(decode, Bound) else decode or NOT_DECODED
    shift = decoding_shift(record, cell)
    return msgspec.structs.replace(
        cell,
        score=score(measured, record.flops, record.corpus.bias_bits, ratio, shift, law_of(record)),
        roofline=bound,
        cautions=(
            *cautions(
                record.machine,
                record.source,
                graph,
                cell.provider,
                measured,
                cells_in_run,
                closer_variant(record, cell, CLOSER),
                shift,
                record.spec.quick,
            ),
            *(above_peak(bound) if isinstance(bound, Roofline) else ()),
            *foreign_bias(card, measured.compression),
        ),
    )
