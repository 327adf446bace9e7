"""Tune a model: choose a format for each group of matrices under limits. Read `tune` first.

What each group loses is measured once and kept in the cache, with its rounded matrices. A few
assignments of formats are then built and measured like any variant, beside the fixed recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.analysis.assignment import (
    Assignment,
    GroupChoices,
    Limits,
    assign,
    assign_quality,
    sum_of,
)
from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.recommend import Limit, Recommendation, recommend
from edgecap.analysis.recommend.preference import check_preference
from edgecap.errors import UsageError
from edgecap.graph.variants import NAMES
from edgecap.pipeline.artifacts import (
    build_or_refuse,
    get_or_build,
    get_or_tune,
    measure_sensitivity,
)
from edgecap.pipeline.building import mark_in_use
from edgecap.pipeline.cells import measure_cell
from edgecap.pipeline.export_folder import write_graphs
from edgecap.pipeline.judging import failed_cell
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.record_draft import RecordDraft, open_draft
from edgecap.pipeline.run_context import (
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
)
from edgecap.pipeline.timing import decode_seconds_alone, measure_latency, timing_groups
from edgecap.pipeline.work import work_of
from edgecap.pipeline.worker import in_child
from edgecap.provider_options import HALF_PROVIDERS, base_name
from edgecap.record import Absent, Failure, Graph, Profile
from edgecap.spec import TUNED, CellSpec, Spec
from edgecap.storage.files import Paths, check_writable, resolve_paths
from edgecap.text.corpus import read_corpus

FIXED = ("int8", "int4", "int4s")  # recipes that a tuned variant competes with
UNIFORM, UNIFORM_FORMAT = "int8", "8b32"  # one format everywhere: shows what predictions lack
MEASURED = ("fp32", *FIXED)
_NAMES_BYTES = 400  # of a matrix in a graph, beyond those of 8-bit blocks


class Duel(NamedTuple):
    """A fixed recipe, and the tuned variant that was made for its bytes."""

    fixed: str
    tuned: str


class TuningResult(NamedTuple):
    """The record of all candidates, the choice among them, and the tuned rival of each recipe.

    `folder` holds the best one, if any fits the limits. `formats` counts its groups by format.
    """

    record: Profile
    recommendation: Recommendation
    duels: tuple[Duel, ...]
    folder: Path | None
    formats: dict[str, int]


class _Candidate(NamedTuple):
    name: str
    assignment: Assignment


def tune(
    spec: Spec,
    out: Path,
    limits: Sequence[Limit] = (),
    least_quality: float | None = None,
    prefer: str | None = None,
    keep_fp32: bool = False,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> TuningResult:
    """Find the best assignment of formats to groups of matrices, and write its graph to `out`.

    `least_quality` is the share of fp32's gain in bits a token that is kept. Raises UsageError if
    the request cannot be met; if no candidate fits the limits, the result has no folder.
    """
    home = home or resolve_paths()
    check_preference(prefer)
    if out.exists():
        raise UsageError(f"{out} is there already; give a new folder")
    check_writable(out)
    check_writable(home.profiles, "give another folder with --records")
    corpus = read_corpus(spec.corpus, spec.documents, home.cache, spec.bias_bits)
    prepared = prepare(msgspec.structs.replace(spec, precisions=()), home, notice, run, corpus)
    context, (provider,) = prepared.context, spec.providers
    if base_name(provider) in HALF_PROVIDERS:
        raise UsageError(
            f"edgecap tune compares graphs that compute in fp32 or int8, and {provider} computes "
            "in fp16; give another --provider"
        )
    if context.model.encodes:
        raise UsageError(f"{spec.model} is an encoder; edgecap tune takes decoders")
    cells = {name: CellSpec(name, provider) for name in MEASURED}
    planned = list(cells.values())
    with context.in_use:
        mark_in_use(context, None, Path(corpus.path))
        fp32 = build_or_refuse(context, cells["fp32"])
        own = tuple(ready for ready in context.graphs if ready.graph.precision == "fp32")
        context = context._replace(graphs=own)  # int8 of another program is not that of `FIXED`
        tuning, groups = measure_sensitivity(context, cells["fp32"], fp32)
        if not groups:
            raise UsageError(f"{spec.model} has no matrices that can be stored in blocks")
        with open_draft(prepared._replace(context=context, cells=planned)) as draft:
            work = work_of(context, planned)
            notice(ProgressEvent(None, "fixed recipes to measure", work=work))
            for cell in cells.values():
                draft.add(measure_cell(context, draft.record, cell))
            if least_quality is not None:
                limits = [*limits, _quality_limit(draft.record, least_quality)]
            choice = _Chooser(context, draft, groups, cells, limits)
            candidates, duels = choice.candidates()
            tuned = [CellSpec(candidate.name, provider) for candidate in candidates]
            planned += tuned
            work = work_of(context, tuned, len(planned))
            notice(ProgressEvent(None, "tuned variants to measure", work=work))
            for candidate in candidates:
                cell = CellSpec(candidate.name, provider)
                built = _build(context, cell, fp32, tuning, groups, candidate)
                if isinstance(built, Failure):
                    draft.add(failed_cell(cell, Absent(reason="it could not be made"), built))
                    continue
                context = context._replace(graphs=(*context.graphs, built))
                draft.add(measure_cell(context, draft.record, cell))
            for group in timing_groups(context, draft.record):
                draft.complete(measure_latency(context, draft.record, group))
        chosen = recommend([_without_fp32(draft.record)], limits, prefer)
        if chosen.best is None:
            return TuningResult(draft.record, chosen, duels, None, {})
        best = build_or_refuse(context, CellSpec(chosen.best.precision, provider))
        _write(context, out, best, fp32 if keep_fp32 else None, provider)
    counts = _counts(candidates, chosen.best.precision)
    return TuningResult(draft.record, chosen, duels, out, counts)


def _without_fp32(record: Profile) -> Profile:
    cells = tuple(c for c in record.cells if c.precision != "fp32")
    return msgspec.structs.replace(record, cells=cells)


def _quality_limit(record: Profile, least: float) -> Limit:
    """Return the limit of divergence that keeps a share of fp32's gain."""
    view = next(v for v in cell_views([record]) if v.cell.precision == "fp32")
    if not view.measured:
        raise UsageError(f"--min-quality needs fp32, and it failed: {failure_of(view.cell)}")
    gain = view.value("gain_bits_per_token")
    if gain is None or gain <= 0:
        raise UsageError(
            "--min-quality needs a text that fp32 compresses; give --max-kl in bits a token"
        )
    return Limit("--max-kl", "divergence_bits", (1 - least) * gain)


def _build(
    context: RunContext,
    cell: CellSpec,
    fp32: ReadyGraph,
    tuning: Path,
    groups: Sequence[GroupChoices],
    candidate: _Candidate,
) -> ReadyGraph | Failure:
    formats = {
        matrix: choice.format
        for group, choice in zip(groups, candidate.assignment.choices, strict=True)
        for matrix in group.matrices
    }
    ready = get_or_tune(context, cell, fp32, tuning, formats)
    if isinstance(ready, Failure):
        return ready
    return ready._replace(graph=msgspec.structs.replace(ready.graph, precision=candidate.name))


def _write(
    context: RunContext, out: Path, best: ReadyGraph, fp32: ReadyGraph | None, provider: str
) -> None:
    tuned = best.graph.precision not in NAMES
    name = TUNED if tuned else best.graph.precision
    named = best._replace(graph=msgspec.structs.replace(best.graph, precision=name))
    write_graphs(context, {**({"fp32": fp32} if fp32 else {}), name: named}, out, provider)


def _counts(candidates: Sequence[_Candidate], name: str) -> dict[str, int]:
    """Count the groups of a candidate by format, from large to small; {} for a fixed recipe."""
    chosen = next((c for c in candidates if c.name == name), None)
    formats = [choice.format for choice in chosen.assignment.choices] if chosen else []
    return {f: formats.count(f) for f in dict.fromkeys(sorted(formats, reverse=True))}


class _Chooser:
    """Chooses what to build, from what groups cost and what the fixed recipes measured.

    Predictions cover weights alone. What they lack, such as other bytes of the file, activations in
    8 bits, and attention, is the difference of `UNIFORM` between measurement and prediction.
    """

    def __init__(
        self,
        context: RunContext,
        draft: RecordDraft,
        groups: Sequence[GroupChoices],
        cells: dict[str, CellSpec],
        limits: Sequence[Limit],
    ) -> None:
        self._context, self._groups, self._cells = context, groups, cells
        self._limits = {limit.metric: limit.most for limit in limits}
        self._views = {v.cell.precision: v for v in cell_views([draft.record])}
        self._uniform = sum_of(groups, {g.name: UNIFORM_FORMAT for g in groups})

    def candidates(self) -> tuple[list[_Candidate], tuple[Duel, ...]]:
        """Return the assignments to build, the large ones first, and their fixed rivals."""
        within = Limits(self._most_bytes(), self._most_seconds())
        found: dict[str, Assignment] = {}
        if within != Limits():
            self._add(found, assign(self._groups, within))
        if "divergence_bits" in self._limits:
            rest = self._limits["divergence_bits"] - self._lacking("divergence_bits")
            self._add(found, assign_quality(self._groups, max(rest, 0.0)))
        duels = []
        for name in FIXED:
            size = self._value(name, "file_bytes")
            if size is not None:
                least = min(size - self._other_bytes(), within.bytes)
                added = self._add(found, assign(self._groups, within._replace(bytes=least)))
                duels += [Duel(name, added)] if added and least < within.bytes else []
        ordered = sorted(found.items(), key=lambda item: -item[1].bytes)
        return [_Candidate(name, a) for name, a in ordered], tuple(duels)

    def _add(self, found: dict[str, Assignment], assignment: Assignment | None) -> str:
        """Add an assignment under a name of its file's bytes, and return the name."""
        if assignment is None:
            return ""
        size = assignment.bytes + self._other_bytes()
        for digits in range(4, 16):  # one more where the name is taken by another assignment
            name = f"{TUNED}-{size / 1e6:.{digits}g}MB"
            if found.setdefault(name, assignment) == assignment:
                break
        return name

    def _most_bytes(self) -> float:
        """Return the bytes that groups may have under the limits of file and memory."""
        file = self._limits.get("file_bytes", math.inf)
        peak, size = self._value(UNIFORM, "peak_bytes"), self._value(UNIFORM, "file_bytes")
        if peak is not None and size is not None:
            file = min(file, self._limits.get("peak_bytes", math.inf) - (peak - size))
        return file - self._other_bytes()

    def _most_seconds(self) -> float:
        """Return the seconds that products of a decoded token may take under a limit of latency."""
        most = self._limits.get("decode_s")
        if most is None or self._uniform is None:
            return math.inf
        graph = get_or_build(self._context, self._cells[UNIFORM])
        if isinstance(graph, Failure):
            return math.inf
        seconds = decode_seconds_alone(self._context, self._cells[UNIFORM], graph)
        if seconds is None:
            return math.inf
        if seconds < self._uniform.seconds:  # weights that stay in a cache
            return most * self._uniform.seconds / seconds
        return most - (seconds - self._uniform.seconds)

    def _other_bytes(self) -> float:
        """Return the bytes of a file beside its blocks, with room for the names of zero points."""
        return self._lacking("file_bytes") + _NAMES_BYTES * sum(
            len(group.matrices) for group in self._groups
        )

    def _lacking(self, metric: str) -> float:
        """Return what the prediction lacks for `UNIFORM`, at least 0."""
        measured = self._value(UNIFORM, metric)
        if measured is None or self._uniform is None:
            return 0.0
        predicted = {
            "file_bytes": float(self._uniform.bytes),
            "divergence_bits": self._uniform.divergence_bits,
        }
        return max(measured - predicted[metric], 0.0)

    def _value(self, name: str, metric: str) -> float | None:
        view: CellView | None = self._views.get(name)
        if view is None or not view.measured:
            return None
        if metric == "file_bytes" and isinstance(view.cell.graph, Graph):
            return view.cell.graph.bytes
        return view.value(metric)
