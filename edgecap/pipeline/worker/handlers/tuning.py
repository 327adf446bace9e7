"""Measure what each group of matrices loses and costs in each format; make graphs of formats."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgecap.analysis.assignment import FormatCost, GroupChoices
from edgecap.graph.activations import graph_with_overridable
from edgecap.graph.variants.blocks.formats import FOUR, Format
from edgecap.graph.variants.blocks.moments import affordable
from edgecap.graph.variants.blocks.tuned import MatrixGroup, TuningFolder, find_groups
from edgecap.graph.variants.blocks.weights import GraphWeights
from edgecap.machine.info import pin_process
from edgecap.meters.peaks import shortest_seconds
from edgecap.meters.sensitivity import SensitivityMeter
from edgecap.pipeline.worker.answers import BuiltGraph, MeasuredSensitivity
from edgecap.pipeline.worker.handlers.graphs import (
    CALIBRATION_SAMPLES,
    CALIBRATION_TOKENS,
    describe_variant,
)
from edgecap.pipeline.worker.sessions import Report, SystemClock, corpus_samples
from edgecap.pipeline.worker.steps import MakeTuned, MeasureSensitivity
from edgecap.runtime.activations import ActivationReader
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.microbench import OrtProbes
from edgecap.storage.jsonl_log import JsonlLog

# Tokens that each group is probed on: as many as this work allows, within limits.
PROBE_FLOPS, LEAST_TOKENS, SAMPLE_TOKENS = 1e11, 512, 128
LEAST_ERROR = 1e-12  # relative error of products from which a loss can be told
MatrixShape = tuple[int, int]


class _Rounding(msgspec.Struct, frozen=True):
    """The loss of one group: divergence in the format `probed`, and relative error by format."""

    name: str
    divergence_bits: float
    errors: dict[str, float]
    probed: str = FOUR.code


class _Sensitivity(NamedTuple):
    """The weights of the smoothed graph, and the loss of each group."""

    weights: GraphWeights
    groups: list[MatrixGroup]
    roundings: list[_Rounding]


def _measure_sensitivity(step: MeasureSensitivity, report: Report) -> MeasuredSensitivity:
    pin_process(step.affinity)
    folder = TuningFolder(Path(step.folder))
    weights, groups, roundings = _finished(step, folder) or _measured(step, folder, report)
    seconds = _kernel_seconds(step, weights, groups, report)
    least = _least_loss(roundings)
    return MeasuredSensitivity(
        groups=tuple(
            _choices(weights, group, rounding, seconds, least)
            for group, rounding in zip(groups, roundings, strict=True)
        )
    )


def _loss(rounding: _Rounding) -> float:
    """Return the divergence for an error of one, or 0 where rounding changes nothing."""
    error = rounding.errors[rounding.probed]
    return max(rounding.divergence_bits, 0.0) / error if error > LEAST_ERROR else 0.0


def _least_loss(roundings: Sequence[_Rounding]) -> float:
    """Return the least loss of a group; one that the samples do not reach is no safer than it."""
    return min((loss for r in roundings if (loss := _loss(r)) > 0), default=0.0)


def _finished(step: MeasureSensitivity, folder: TuningFolder) -> _Sensitivity | None:
    """Return the result of an earlier run that ended, or None."""
    log = JsonlLog(_log_path(step), _Rounding)
    if not log.finished or not folder.graph.is_file():
        return None
    weights = folder.open()
    groups = find_groups(weights)
    whole = len(log.finished) >= len(groups) and all(folder.holds(weights, g) for g in groups)
    return _Sensitivity(weights, groups, log.finished[: len(groups)]) if whole else None


def _measured(step: MeasureSensitivity, folder: TuningFolder, report: Report) -> _Sensitivity:
    report("measure activations", 0, 1)
    length = min(CALIBRATION_TOKENS, step.positions)
    samples = corpus_samples(step.corpus, step.tokenizer, length, CALIBRATION_SAMPLES)
    source = Path(step.graph)
    weights = folder.calibrate(source, samples, ActivationReader(source, step.threads))
    groups = find_groups(weights)
    return _Sensitivity(weights, groups, _roundings(step, folder, weights, groups, samples, report))


def _log_path(step: MeasureSensitivity) -> Path:
    return Path(step.folder) / "groups.jsonl"


def _roundings(
    step: MeasureSensitivity,
    folder: TuningFolder,
    weights: GraphWeights,
    groups: Sequence[MatrixGroup],
    samples: Sequence[Any],
    report: Report,
) -> list[_Rounding]:
    """Round and probe each group, and go on after those in the log."""
    log = JsonlLog(_log_path(step), _Rounding)
    for group in groups[: len(log.finished)]:
        if not folder.holds(weights, group):  # removed, or damaged by other hands
            report("round again", 0, 1)
            for name, chosen in itertools.product(group.matrices, group.formats):
                folder.round(weights, name, chosen)
    if len(log.finished) < len(groups):
        names = [name for group in groups for name in group.matrices]
        opened = graph_with_overridable(folder.graph, names)
        engine = OrtEngine(folder.graph, "cpu", step.threads, scoring=opened)
        meter = SensitivityMeter(engine, _probes(weights, samples))
        for number, group in enumerate(groups[len(log.finished) :], len(log.finished)):
            report("measure sensitivity", number, len(groups))
            log.add(_round_and_probe(folder, weights, group, meter))
    return log.finished[: len(groups)]


def _probes(weights: GraphWeights, samples: Sequence[Any]) -> list[Any]:
    """Return the beginnings of as many samples as the work allows, spread over all of them."""
    numbers = sum(math.prod(weights.shape(name)) for name in weights.products)
    return affordable([ids[:SAMPLE_TOKENS] for ids in samples], numbers, PROBE_FLOPS, LEAST_TOKENS)


def _round_and_probe(
    folder: TuningFolder, weights: GraphWeights, group: MatrixGroup, meter: SensitivityMeter
) -> _Rounding:
    errors: dict[str, float] = {}
    tried = FOUR if FOUR in group.formats else group.formats[-1]
    probed: dict[str, np.ndarray] = {}
    for chosen in group.formats:
        rounded = {name: folder.round(weights, name, chosen) for name in group.matrices}
        errors[chosen.code] = sum(weights.error(n, blocks) for n, blocks in rounded.items())
        if chosen == tried:
            for name, blocks in rounded.items():
                floats = blocks.floats()[:, : weights.shape(name)[1]]
                probed[name] = weights.stored(name, floats)
    return _Rounding(group.name, meter.divergence_bits(probed), errors, tried.code)


def _choices(
    weights: GraphWeights,
    group: MatrixGroup,
    rounding: _Rounding,
    seconds: dict[tuple[MatrixShape, Format], float],
    least: float,
) -> GroupChoices:
    """Return the costs of a group; divergence grows with the mean square error of its products."""
    multiplied = [weights.shape(name) for name in group.matrices if name in weights.products]
    unit = max(_loss(rounding), least)
    costs = [
        FormatCost(
            chosen.code,
            unit * rounding.errors[chosen.code],
            sum(weights.size(name, chosen) for name in group.matrices),
            sum(seconds[shape, chosen] for shape in multiplied),
        )
        for chosen in group.formats
        if all((shape, chosen) in seconds for shape in multiplied)
    ]
    return GroupChoices(group.name, group.matrices, tuple(costs))


def _kernel_seconds(
    step: MeasureSensitivity, weights: GraphWeights, groups: Sequence[MatrixGroup], report: Report
) -> dict[tuple[MatrixShape, Format], float]:
    """Time the product of a vector with a matrix of each shape in each format."""
    report("time kernels", 0, 1)
    wanted = sorted(
        {
            (weights.shape(name), chosen)
            for group in groups
            for name in group.matrices
            if name in weights.products
            for chosen in group.formats
        }
    )
    probes = OrtProbes(step.provider, step.threads)
    found = {}
    for number, (shape, chosen) in enumerate(wanted):
        report("time kernels", number, len(wanted))
        with contextlib.suppress(Exception):  # the provider has no kernel: leave the format out
            probe, products = probes.block_products(
                *shape, chosen.bits, chosen.block, chosen.zero_points
            )
            found[shape, chosen] = shortest_seconds([probe], SystemClock())[0] / products
    return found


def _make_tuned(step: MakeTuned, report: Report) -> BuiltGraph:
    report("making the tuned variant", 0, 1)
    out = Path(step.out)
    files = TuningFolder(Path(step.folder)).make(step.formats, out, step.operators)
    return describe_variant(out, files)


HANDLERS: dict[type, Callable[[Any, Report], Any]] = {
    MeasureSensitivity: _measure_sensitivity,
    MakeTuned: _make_tuned,
}
