"""Measure a cell but for its latency and memory: placement, divergence, bits, energy, work.

One session at a time: the thread pool of an idle one costs a working one 25 % on two cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecap.graph.activations import watch_products
from edgecap.graph.cost.count import count_graph
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.graph.weight_formats import arithmetic_of, precision_of
from edgecap.meters import divergence, text_windows
from edgecap.meters.compression import ScoredDocument, WindowPlan, measure_compression
from edgecap.meters.sharding import score_part
from edgecap.model.architecture import ENCODER
from edgecap.pipeline.worker.answers import (
    Answer,
    MeasuredCell,
    ScoredPart,
)
from edgecap.pipeline.worker.handlers import energy
from edgecap.pipeline.worker.sessions import (
    Report,
    SystemClock,
    corpus_samples,
    in_stage,
    open_session,
    or_absent,
    progress_of,
)
from edgecap.pipeline.worker.steps import (
    MeasureCell,
    ReferenceGraph,
    ScorePart,
    ScoringPlan,
    Session,
)
from edgecap.provider_options import BEHIND, base_name, parse_provider
from edgecap.record import (
    Absent,
    Compression,
    GraphWork,
    Placement,
    StepWork,
    WidestActivation,
    divergence_shift,
)
from edgecap.runtime.engine import EngineError
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.text.corpus import check_unchanged
from edgecap.text.tokenizer import read_paper_tokenizer, read_tokenizer

NOT_PREDICTED = Absent(reason="an encoder does not predict the next token")
MOST_ELSEWHERE = 0.05  # share of operator time on other providers than the one asked for
NOT_DECODED = Absent(reason="the graph keeps no KV cache, or the texts are too short")
ON_CPU = Absent(reason="the CPU provider runs every node")
NO_FP32 = Absent(reason="there is no fp32 graph of this model to compare with")


def _measure_cell(step: MeasureCell, report: Report) -> MeasuredCell:
    placement: Placement | Absent = ON_CPU
    if step.operators or base_name(step.plan.session.provider) != "cpu":
        placement = or_absent(lambda: _placement(step, report))
    in_stage("placement", lambda: _check_placement(step, placement))
    encodes = step.plan.session.task == ENCODER
    distance = in_stage("divergence", lambda: (_cosine if encodes else _divergence)(step, report))
    graph = open_graph(Path(step.plan.session.graph), weights=False)
    return MeasuredCell(
        **distance,
        weights=precision_of(graph)[: len("fp32")],
        arithmetic=arithmetic_of(graph),
        compression=NOT_PREDICTED
        if encodes
        else in_stage("compression", lambda: _compression(step, report)),
        energy=or_absent(
            lambda: energy.measure(step, report, lambda: _scoring_session(step.plan.session))
        ),
        placement=placement,
        work=or_absent(lambda: _work(step)),
    )


# --- placement --------------------------------------------------------------------------------


def _placement(step: MeasureCell, report: Report) -> Placement:
    """Profile a run to see which provider takes which node.

    A short run is enough for that; shares of time by operator need the real sizes.
    """
    report("placement", 0, 1)
    tokens, context = (step.prefill_tokens, step.decode_context) if step.operators else (32, 32)
    with tempfile.TemporaryDirectory() as scratch:
        engine = open_session(step.plan.session, profile_to=Path(scratch) / "profile")
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        if step.decode_context:
            cache = engine.prefill(np.zeros(min(context, step.decode_context), np.int64))
            for _ in range(4):
                engine.decode(cache, 0)
        profiled = engine.end_profile()
    phases = {"prefill": profiled.shares(slice(1, 2)), "decode": profiled.shares(slice(3, None))}
    operators = {name: shares for name, shares in phases.items() if shares and step.operators}
    return Placement(by_provider=profiled.by_provider, operators=operators)


def _check_placement(step: MeasureCell, placement: Placement | Absent) -> None:
    """Raise EngineError if other providers took more time than allowed."""
    name = base_name(step.plan.session.provider)
    if step.allow_fallback or name == "cpu":
        return
    if isinstance(placement, Absent) or not placement.by_provider:
        empty = "the runtime's profile holds no operator"
        why = placement.reason if isinstance(placement, Absent) else empty
        raise EngineError(
            f"nothing proves that it ran on '{name}': {why}; --allow-fallback measures it as it is"
        )
    here = (name, BEHIND.get(name))
    elsewhere = {p: s.time_share for p, s in placement.by_provider.items() if p not in here}
    if sum(elsewhere.values()) > MOST_ELSEWHERE:
        shares = ", ".join(f"{share:.0%} on {p}" for p, share in elsewhere.items())
        raise EngineError(
            f"of the operators' time {shares}, not on '{name}'; "
            "--allow-fallback measures it as it is"
        )


# --- divergence from fp32 ---------------------------------------------------------------------


def _divergence(step: MeasureCell, report: Report) -> dict[str, Any]:
    """Return the divergences from fp32 in bits a token, and the widest activation, by field."""
    plan = step.plan
    if step.reference is None or _is_reference(step):
        return _each(0.0 if step.reference else NO_FP32)
    report("divergence", 0, 1)
    length = min(divergence.SAMPLE_TOKENS, plan.context)
    samples = corpus_samples(plan.corpus, plan.tokenizer, length, step.samples)
    if not samples:
        return _each(Absent(reason="the corpus has no tokens"))
    reference = _open_reference(plan.session, step.reference)
    found = divergence.measure_divergence(reference, open_session(plan.session), samples)
    prefilled, decoded = (
        NOT_DECODED if bits is None else bits for bits in (found.prefilled_bits, found.decoded_bits)
    )
    widest = None
    if divergence_shift(prefilled, decoded):
        widest = _widest(plan.session, step.reference, samples[0])
    return {
        **dict(zip(_BITS, (found.bits, decoded, prefilled), strict=True)),
        "widest_activation": widest,
    }


_BITS = ("divergence_bits", "decoded_divergence_bits", "prefilled_divergence_bits")


def _each(value: float | Absent) -> dict[str, Any]:
    return dict.fromkeys(_BITS, value)


def _open_reference(session: Session, reference: ReferenceGraph, **options: Any) -> Any:
    return open_session(session, path=Path(reference.graph), provider=reference.provider, **options)


def _widest(session: Session, reference: ReferenceGraph, sample: Any) -> WidestActivation | None:
    """Return the widest activation of the reference; None if it cannot be read from the graph."""
    watched = watch_products(Path(reference.graph))
    engine = _open_reference(session, reference, scoring=watched.graph)
    return divergence.find_widest(engine, watched.nodes, sample)


def _cosine(step: MeasureCell, report: Report) -> dict[str, Any]:
    """Return the cosine of an encoder's outputs with those of fp32, None without fp32, by field.

    The variant runs in any case: it may answer NaN, which is an error.
    """
    report("divergence", 0, 1)
    variant, samples = open_session(step.plan.session), _encoder_samples(step)
    if step.reference is None or _is_reference(step):
        itself = divergence.measure_cosine(variant, variant, samples)
        return {**_each(NOT_PREDICTED), "cosine": None if step.reference is None else itself}
    reference = _open_reference(step.plan.session, step.reference)
    cosine = divergence.measure_cosine(reference, variant, samples)
    return {**_each(NOT_PREDICTED), "cosine": cosine}


def _is_reference(step: MeasureCell) -> bool:
    session, reference = step.plan.session, step.reference
    return reference is not None and (reference.graph, reference.provider) == (
        session.graph,
        session.provider,
    )


def _encoder_samples(step: MeasureCell) -> list[Any]:
    """Return samples of the corpus, or random ids if the folder has no tokenizer."""
    plan, length = step.plan, min(divergence.SAMPLE_TOKENS, step.prefill_tokens)
    if (Path(plan.tokenizer) / "tokenizer.json").is_file():
        samples = corpus_samples(plan.corpus, plan.tokenizer, length, step.samples)
        texts = [sample for sample in samples if len(sample)]
        if texts:
            return texts
    rng = np.random.default_rng(5)
    return [rng.integers(0, plan.session.vocabulary, length) for _ in range(step.samples)]


# --- bits of the corpus -----------------------------------------------------------------------


def _compression(step: MeasureCell, report: Report) -> Compression:
    plan = step.plan
    cutter, vocabulary = _cutter(plan)
    compression = measure_compression(
        _scoring_session(plan.session, vocabulary),
        cutter,
        plan.corpus.documents,
        WindowPlan(plan.protocol, plan.context, plan.stride),
        SystemClock(),
        plan.corpus.bytes,
        progress_of(report, "compression"),
        JsonlLog(Path(step.journal), ScoredDocument),
    )
    check_unchanged(plan.corpus)
    return compression


def _score_part(step: ScorePart, report: Report) -> ScoredPart:
    plan = step.plan
    cutter, vocabulary = _cutter(plan)
    shares = score_part(
        _scoring_session(plan.session, vocabulary),
        cutter,
        plan.corpus.documents,
        step.part,
        step.parts,
        SystemClock(),
        plan.corpus.bytes,
        progress_of(report, "compression"),
    )
    check_unchanged(plan.corpus)
    return ScoredPart(shares=tuple(shares))


def _cutter(plan: ScoringPlan) -> tuple[Any, int | None]:
    """Return how the protocol cuts a document, and the ids of its softmax if not all."""
    vocabulary = plan.session.vocabulary
    if plan.protocol == "paper":
        shipped = read_paper_tokenizer(Path(plan.tokenizer))
        return text_windows.paper_cutter(shipped, plan.context), min(shipped.size, vocabulary)
    plain = read_tokenizer(Path(plan.tokenizer))
    return text_windows.exact_cutter(plain, plan.context, vocabulary, plan.stride), None


def _scoring_session(session: Session, vocabulary: int | None = None) -> Any:
    """Open a session whose graph answers -log2 p of targets, so that logits stay inside."""
    on_host = parse_provider(session.provider).name == "cpu"
    head = scoring_graph(Path(session.graph), on_host=on_host, vocabulary=vocabulary)
    return open_session(session, scoring=head)


# --- work of the graph ------------------------------------------------------------------------


def _work(step: MeasureCell) -> GraphWork:
    """Count FLOPs and bytes of the graph that ran."""
    graph = Path(step.plan.session.graph)
    prefill = count_graph(graph, 1, step.prefill_tokens)
    if not step.decode_context:
        return GraphWork(prefill=_step_work(prefill), decode=None, unknown=prefill.unknown)
    decode = count_graph(graph, 1, 1, max(0, step.decode_context - 1))
    return GraphWork(prefill=_step_work(prefill), decode=_step_work(decode), unknown=decode.unknown)


def _step_work(costs: Any) -> StepWork:
    return StepWork(**{name: getattr(costs, name) for name in StepWork.__struct_fields__})


HANDLERS: dict[type, Callable[[Any, Report], Answer]] = {
    MeasureCell: _measure_cell,
    ScorePart: _score_part,
}
