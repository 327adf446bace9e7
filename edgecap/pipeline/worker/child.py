"""Does one step: the process that loads, runs and measures. Wires engines, clocks and counters to meters."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgecap.errors import DiskFull, Unreadable, UsageError
from edgecap.machine.diagnosis import CounterSeen, Total
from edgecap.model.architecture import ENCODER
from edgecap.pipeline.worker.steps import (
    Answer,
    BuiltGraph,
    Calibrate,
    Calibrated,
    Codec,
    CodecResult,
    CompressBaselines,
    CompressedBaselines,
    Diagnose,
    Diagnosed,
    ExactBytes,
    ExactBytesResult,
    Export,
    Inspect,
    Inspected,
    MeasureCell,
    MeasuredCell,
    MeasuredLatency,
    MeasureLatency,
    MeasureMemory,
    Optimize,
    OutputLine,
    Progress,
    Quantize,
    Refusal,
    ScoredPart,
    ScorePart,
    Session,
    Step,
    stage_of,
)
from edgecap.record import Absent, Failure, GraphWork, Latency, LeftOut, Memory, Placement, StepWork
from edgecap.spec import SWEEP_STEPS
from edgecap.text.corpus import Corpus

Report = Callable[[str, int, int], None]  # stage, done, total
SWEEP_SHARE = 1 / 3  # of the limit of a cell, for other contexts
NOT_PREDICTED = Absent(reason="an encoder does not predict the next token")
MOST_ELSEWHERE = 0.05  # of the operators' time, on other providers than the one that was asked for
CALIBRATION = 256, 32  # tokens of a sample, and samples, on which ranges of activations are found


class SystemClock:
    """The monotonic clock with the finest tick."""

    def now(self) -> float:
        """Seconds since an arbitrary origin."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""
        time.sleep(seconds)


class _Output:
    """The pipe to the parent. Progress is thinned to two lines a second, so that the parent sleeps."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._sent, self._stage = pipe, 0.0, ""

    def send(self, line: OutputLine) -> None:
        self._pipe.write(msgspec.json.encode(line) + b"\n")
        self._pipe.flush()

    def report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._sent > 0.5:
            self._stage, self._sent = stage, now
            self.send(Progress(stage=stage, done=done, total=total))


def main() -> None:
    """Reads one step from standard input, answers on standard output, and leaves."""
    output = _Output(_private_stdout())
    step = msgspec.json.decode(sys.stdin.buffer.readline(), type=Step)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    output.send(answer(step, output.report))
    os._exit(0)  # runtimes may wait for their threads, or crash, on the way out


def _private_stdout() -> BinaryIO:
    """Libraries print to what they think is standard output; that is standard error from here on."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def answer(step: Step, report: Report) -> Answer | Refusal:
    """Does a step; what goes wrong becomes a value."""
    try:
        return _DO[type(step)](step, report)
    except Unreadable as error:
        return (
            Refusal(message=str(error), disk_full=False)
            if isinstance(step, Inspect)
            else _unread(step, error)
        )
    except UsageError as error:
        return Refusal(message=str(error), disk_full=isinstance(error, DiskFull))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or getattr(step, "out", tempfile.gettempdir())
            return Refusal(message=f"no room left on the disk of {where}", disk_full=True)
        return _failure(step, error)
    except Exception as error:
        return _failure(step, error)


def _failure(step: Step, error: Exception) -> Failure:
    if os.environ.get("EDGECAP_DEBUG"):
        import traceback

        traceback.print_exc()
    stage = getattr(error, "stage", None) or stage_of(step)
    text = " ".join(str(error).split()) or (
        "out of memory" if isinstance(error, MemoryError) else "no message"
    )
    return Failure(stage=stage, error=type(error).__name__, message=text[:500])


def _unread(step: Step, error: Unreadable) -> Failure:
    """A graph that was looked at before cannot be read now: one cell fails, nobody asked wrongly."""
    found = _failure(step, error)
    return msgspec.structs.replace(
        found, message=f"read before, not now, as where memory runs out: {found.message}"
    )


# --- the steps --------------------------------------------------------------------------------


def _look(step: Inspect, report: Report) -> Inspected:
    from edgecap.graph.read import inspect_graph
    from edgecap.provider_options import base
    from edgecap.runtime.providers import built_providers, why_not

    asked = {base(p) for p in step.providers} - {"cpu"}
    reasons = {p: why_not(p) if p in asked else None for p in built_providers()}
    with_options = [
        p for p in step.providers if ":" in p and not reasons.get(base(p), "not built in")
    ]
    reasons |= {p: why_not(p) for p in with_options}
    return Inspected(
        providers=tuple(p for p, reason in reasons.items() if reason is None and ":" not in p),
        refused={p: reason for p, reason in reasons.items() if reason is not None},
        no_energy=_no_energy(step) if step.energy else {},
        graphs=tuple(inspect_graph(Path(g)) for g in step.graphs),
    )


def _no_energy(step: Inspect) -> dict[str, str]:
    """Why the energy of a provider cannot be counted, for those where it cannot."""
    totals = {
        provider: _counters(provider, step.meter, None).counter for provider in step.providers
    }
    return {
        provider: found.reason for provider, found in totals.items() if isinstance(found, Absent)
    }


def _counters(provider: str, meter: str | None, offset_s: float | None) -> Any:
    """What makes up the energy of a run on a provider; see `power.resolve`."""
    from edgecap.machine.energy import find, resolve
    from edgecap.machine.info import sysfs
    from edgecap.provider_options import parse_provider

    asked = parse_provider(provider)
    file = Path(meter) if meter else None
    return resolve(
        asked.name, find(sysfs(), meter=file, meter_offset_s=offset_s, devices=(asked.device,))
    )


def _export(step: Export, report: Report) -> BuiltGraph:
    from edgecap.graph import export, finish

    report("export", 0, 1)
    folder, out = Path(step.folder), Path(step.out)
    with tempfile.TemporaryDirectory(dir=step.out) as scratch:
        plain = export.export_fp32(
            folder, Path(scratch), step.trust_remote_code, step.exporter, step.task
        )
        export.take_beside(folder, Path(scratch), out)
        report("optimize", 0, 1)
        written = finish.write(step.finish, plain, out, _apart)
    return BuiltGraph(files=tuple(written.files), unfused=written.unfused)


def _optimize(step: Optimize, report: Report) -> BuiltGraph:
    from edgecap.graph.finish import write_fused

    report("optimize", 0, 1)
    written = write_fused(Path(step.graph), Path(step.out), _apart)
    return BuiltGraph(files=tuple(written.files), unfused=written.unfused)


def _apart(plain: Path, other: Path) -> float:
    """Divergence in bits a token of one graph from another, one session at a time: there may be room for one."""
    from edgecap.machine.info import default_threads
    from edgecap.meters.divergence import answers_of, between
    from edgecap.runtime.engine import OrtEngine

    def answers(path: Path) -> Any:
        return answers_of(OrtEngine(path, "cpu", default_threads()))

    return between(answers(plain), answers(other))


def _vary(step: Quantize, report: Report) -> BuiltGraph:
    from edgecap.graph.variants import make_variant

    report(f"make {step.precision}", 0, 1)
    length, most = min(CALIBRATION[0], step.positions), CALIBRATION[1]
    samples = _samples(step.corpus, step.tokenizer, length, most) if step.corpus else []
    return BuiltGraph(
        files=tuple(make_variant(Path(step.graph), step.precision, Path(step.out), samples))
    )


def _squeeze(step: CompressBaselines, report: Report) -> CompressedBaselines:
    from edgecap.text.compressors import measure_baselines

    texts = (d.text for d in step.corpus.documents)
    return CompressedBaselines(
        baselines=measure_baselines(
            texts, step.corpus.bytes, _progress(report, "gzip, xz and zstd")
        )
    )


def _calibrate(step: Calibrate, report: Report) -> Calibrated:
    from edgecap.machine.info import stay_on
    from edgecap.meters.peaks import measure_peaks
    from edgecap.runtime.microbench import OrtProbes

    stay_on(step.affinity)
    probes = OrtProbes(step.provider, step.threads)
    found = measure_peaks(probes, SystemClock(), step.memory_bytes, _progress(report, "peaks"))
    return Calibrated(**found._asdict())


def _examine(step: Diagnose, report: Report) -> Diagnosed:
    from edgecap.machine.energy import find, resolve
    from edgecap.machine.info import sysfs
    from edgecap.runtime.providers import built_providers, why_not

    report("providers and counters", 0, 1)
    providers = {name: why_not(name) or "" for name in built_providers()}
    found = find(sysfs())
    totals = {
        name: _total(resolve(name, found)) for name, reason in providers.items() if not reason
    }
    seen = [_seen(f, step.threads, tuple(totals)) for f in found if not isinstance(f, LeftOut)]
    return Diagnosed(
        providers=providers,
        counters=tuple(s for s in seen if isinstance(s, CounterSeen)),
        refused=tuple(s for s in (*found, *seen) if isinstance(s, LeftOut)),
        totals=totals,
    )


def _total(found: Any) -> Total:
    if isinstance(found.counter, Absent):
        return Total(counter="", domains=(), reason=found.counter.reason, left_out=found.left_out)
    return Total(
        counter=found.counter.name,
        domains=found.counter.domains,
        reason="",
        left_out=found.left_out,
    )


def _seen(counter: Any, threads: int, runs: tuple[str, ...]) -> Any:
    """A counter read while idle and under the load of a provider that draws on it, or why it can be read no more."""
    from edgecap.machine.energy import drawn_by
    from edgecap.meters.counter_check import watts_of
    from edgecap.runtime.microbench import OrtProbes

    provider = next((p for p in runs if p in drawn_by(counter.scope)), "cpu")
    shape = (256, 1024, 1024) if provider == "cpu" else (2048, 2048, 2048)
    load = OrtProbes(provider, threads).gemm("fp32", *shape)
    try:
        idle, loaded = watts_of(counter, SystemClock()), watts_of(counter, SystemClock(), load)
    except OSError as error:
        return LeftOut(name=counter.name, reason=str(error), scope=counter.scope)
    finally:
        counter.close()
    return CounterSeen(
        name=counter.name,
        scope=counter.scope,
        provenance=counter.provenance,
        idle_w=idle,
        load_w=loaded,
    )


def _weigh(step: MeasureMemory, report: Report) -> Memory:
    import onnxruntime  # noqa: F401 - loaded before the baseline is read

    import edgecap.runtime.engine  # noqa: F401 - likewise
    from edgecap.machine.info import device_memory
    from edgecap.meters.memory import ON_HOST, measure_memory
    from edgecap.provider_options import parse_provider

    report("memory", 0, 1)
    return measure_memory(
        lambda: _open(step.session),
        step.session.vocabulary,
        step.prefill_tokens,
        step.steps,
        [Path(f) for f in step.files],
        device_memory
        if parse_provider(step.session.provider).place[0] != "cpu"
        else lambda: ON_HOST,
    )


def _measure(step: MeasureCell, report: Report) -> MeasuredCell:
    """One session at a time: the thread pool of an idle one costs a working one 25 % on two cores."""
    placement = _or_absent(lambda: _placement(step, report))
    _staged("placement", lambda: _check_placement(step, placement))
    encodes = step.session.task == ENCODER
    cosine = _staged("divergence", lambda: _cosine(step, report)) if encodes else None
    divergence = (
        NOT_PREDICTED if encodes else _staged("divergence", lambda: _divergence(step, report))
    )
    compression = (
        NOT_PREDICTED if encodes else _staged("compression", lambda: _compression(step, report))
    )
    return MeasuredCell(
        divergence_bits=divergence,
        cosine=cosine,
        compression=compression,
        energy=_or_absent(lambda: _energy(step, report)),
        placement=placement,
        work=_or_absent(lambda: _work(step)),
    )


def _check_placement(step: MeasureCell, found: Placement | Absent) -> None:
    """Raises EngineError where more time was spent on other providers than is allowed."""
    from edgecap.provider_options import base
    from edgecap.runtime.engine import EngineError

    asked = base(step.session.provider)
    if step.allow_fallback or asked == "cpu":
        return
    if isinstance(found, Absent) or not found.by_provider:
        why = (
            found.reason if isinstance(found, Absent) else "the runtime's profile holds no operator"
        )
        raise EngineError(
            f"nothing proves that it ran on '{asked}': {why}; --allow-fallback measures it as it is"
        )
    elsewhere = {p: s.time_share for p, s in found.by_provider.items() if p != asked}
    if sum(elsewhere.values()) > MOST_ELSEWHERE:
        told = ", ".join(f"{share:.0%} on {p}" for p, share in elsewhere.items())
        raise EngineError(
            f"of the operators' time {told}, not on '{asked}'; --allow-fallback measures it as it is"
        )


def _pack(step: Codec, report: Report) -> CodecResult:
    from edgecap.text import codec
    from edgecap.text.tokenizer import read_tokenizer

    started = time.perf_counter()
    report("load", 0, 1)
    engine = _open(step.session)
    tokenizer = read_tokenizer(Path(step.tokenizer))
    header = codec.Header(step.precision, step.session.threads, step.context, *step.hashes)
    progress = _progress(report, step.direction)
    with open(step.source, "rb") as source, open(step.target, "wb") as target:
        if step.direction == "compress":
            found = codec.compress(source, target, header, engine, tokenizer, progress)
        else:
            codec.read_header(source)
            found = codec.decompress(source, target, header, engine, tokenizer, progress)
    return CodecResult(**found._asdict(), seconds=time.perf_counter() - started)


def _marginalise(step: ExactBytes, report: Report) -> ExactBytesResult:
    from edgecap.meters.exact.search import Vocabulary
    from edgecap.meters.exact.texts import TextBits, beginning, text_bits
    from edgecap.text.tokenizer import read_pieces, read_tokenizer

    report("load", 0, 1)
    folder = Path(step.tokenizer)
    tokenizer, pieces, engine = read_tokenizer(folder), read_pieces(folder), _open(step.session)
    vocabulary, found = Vocabulary(pieces.spelled, engine.vocabulary), list[TextBits]()
    documents = [d for d in step.corpus.documents if beginning(d.text, step.most_bytes)]
    for document in documents:
        alive = partial(report, "exact bytes", len(found), len(documents))
        alive()
        found.append(
            text_bits(document, step.most_bytes, tokenizer, pieces, vocabulary, engine, alive)
        )
    return ExactBytesResult(texts=tuple(found))


def _staged(stage: str, work: Callable[[], Any]) -> Any:
    """Marks an error with the stage it came from."""
    try:
        return work()
    except Exception as error:
        error.stage = stage  # type: ignore[attr-defined]
        raise


_NOT_ENGINE = ("graph", "affinity", "task")  # of a session, what the engine is not told


def _open(session: Session, **changes: Any) -> Any:
    """A session as asked, or otherwise where `changes` says so."""
    from edgecap.machine.info import stay_on
    from edgecap.runtime.engine import OrtEngine

    stay_on(session.affinity)
    asked = {
        name: getattr(session, name)
        for name in session.__struct_fields__
        if name not in _NOT_ENGINE
    }
    return OrtEngine(**{"path": Path(session.graph), **asked, **changes})


def _or_absent(work: Callable[[], Any]) -> Any:
    """What is beside the point of a cell may fail without taking the cell along."""
    try:
        return work()
    except Exception as error:
        return Absent(
            reason=f"it failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        )


def _or_none(work: Callable[[], float]) -> float | None:
    """A number beside the point, where it can be had."""
    try:
        return work()
    except Exception:
        return None


def _divergence(step: MeasureCell, report: Report) -> float | Absent:
    from edgecap.meters import divergence

    if step.reference is None:
        return Absent(reason="there is no fp32 graph of this model to compare with")
    if step.reference == step.session.graph and step.session.provider == "cpu":
        return 0.0  # fp32 from itself
    report("divergence", 0, 1)
    samples = _samples(
        step.corpus, step.tokenizer, min(divergence.SAMPLE_TOKENS, step.context), divergence.SAMPLES
    )
    if not samples:
        return Absent(reason="the corpus has no tokens")
    reference = _open(step.session, path=Path(step.reference), provider="cpu")
    return divergence.measure_divergence(reference, _open(step.session), samples).bits


def _cosine(step: MeasureCell, report: Report) -> float | None:
    """How an encoder's outputs agree with those of fp32; None where there is no fp32."""
    from edgecap.meters import divergence

    report("divergence", 0, 1)
    variant = _open(step.session)
    itself = step.reference == step.session.graph and step.session.provider == "cpu"
    if step.reference is None or itself:
        found = divergence.measure_cosine(
            variant, variant, _texts_or_noise(step)
        )  # it may answer NaN
        return None if step.reference is None else found
    reference = _open(step.session, path=Path(step.reference), provider="cpu")
    return divergence.measure_cosine(reference, variant, _texts_or_noise(step))


def _texts_or_noise(step: MeasureCell) -> list[Any]:
    """Samples of the corpus; random ids where the folder has no tokenizer, which an encoder can be measured without."""
    import numpy as np

    from edgecap.meters.divergence import SAMPLE_TOKENS, SAMPLES

    length = min(SAMPLE_TOKENS, step.prefill_tokens)
    if (Path(step.tokenizer) / "tokenizer.json").is_file():
        texts = [s for s in _samples(step.corpus, step.tokenizer, length, SAMPLES) if len(s)]
        if texts:
            return texts
    rng = np.random.default_rng(5)
    return [rng.integers(0, step.session.vocabulary, length) for _ in range(SAMPLES)]


def _samples(corpus: Corpus, tokenizer: str, length: int, most: int) -> list[Any]:
    """Beginnings of up to `most` documents, as token ids."""
    from edgecap.meters.divergence import take_samples
    from edgecap.text.tokenizer import read_tokenizer

    reader = read_tokenizer(Path(tokenizer))
    return take_samples(
        (d.text for d in corpus.documents), corpus.count, reader.encode, reader.start, length, most
    )


def _compression(step: MeasureCell, report: Report) -> Any:
    from edgecap.meters.compression import ScoredDocument, WindowPlan, measure_compression
    from edgecap.storage.jsonl_log import JsonlLog
    from edgecap.text.corpus import check_unchanged

    cutter, vocabulary = _cutter(step)
    plan = WindowPlan(step.protocol, step.context, step.stride)
    scoring = _scoring_graph(step.session, vocabulary)
    found = measure_compression(
        _open(step.session, scoring=scoring),
        cutter,
        step.corpus.documents,
        plan,
        SystemClock(),
        step.corpus.bytes,
        _progress(report, "compression"),
        JsonlLog(Path(step.journal), ScoredDocument),
    )
    check_unchanged(step.corpus)
    return found


def _score(step: ScorePart, report: Report) -> ScoredPart:
    from edgecap.meters.sharding import score_part
    from edgecap.text.corpus import check_unchanged

    cutter, vocabulary = _cutter(step)
    engine = _open(step.session, scoring=_scoring_graph(step.session, vocabulary))
    corpus, progress = step.corpus, _progress(report, "compression")
    clock = SystemClock()
    found = score_part(
        engine, cutter, corpus.documents, step.part, step.parts, clock, corpus.bytes, progress
    )
    check_unchanged(corpus)
    return ScoredPart(shares=tuple(found))


def _cutter(step: MeasureCell | ScorePart) -> tuple[Any, int | None]:
    """How the protocol cuts a document, and the ids that its softmax runs over where not all."""
    from edgecap.meters import text_windows
    from edgecap.text.tokenizer import read_paper_tokenizer, read_tokenizer

    if step.protocol == "paper":
        shipped = read_paper_tokenizer(Path(step.tokenizer))
        return text_windows.paper(shipped, step.context), min(shipped.size, step.session.vocabulary)
    plain = read_tokenizer(Path(step.tokenizer))
    return text_windows.exact(plain, step.context, step.session.vocabulary, step.stride), None


def _scoring_graph(session: Session, vocabulary: int | None = None) -> bytes:
    from edgecap.graph.scoring import scoring_graph
    from edgecap.provider_options import parse_provider

    on_host = parse_provider(session.provider).name == "cpu"
    return scoring_graph(Path(session.graph), on_host=on_host, vocabulary=vocabulary)


def _race(step: MeasureLatency, report: Report) -> MeasuredLatency:
    """All sessions in one process: they take turns, and an idle one was seen to disturb no other."""
    from edgecap.machine.noise import NoiseMonitor
    from edgecap.meters.latency import LatencyBench, take_turns

    benches: list[LatencyBench | Failure] = [
        _bench(step, entrant, report) for entrant in step.entrants
    ]
    ready, watch = [b for b in benches if isinstance(b, LatencyBench)], NoiseMonitor()

    def watched(done: int, total: int) -> None:
        watch.look()
        report("latency", done, total)

    turns = take_turns(ready, SystemClock(), step.limit_s * len(ready), watched) if ready else ()
    conditions = watch.found()
    overhead_s = _or_none(lambda: _overhead(step)) if step.decode_context else None
    both = {"conditions": conditions, "overhead_s": overhead_s}
    found = iter([msgspec.structs.replace(latency, **both) for latency in turns])
    done = [
        b if isinstance(b, Failure) else _with_more(step, b, next(found), report) for b in benches
    ]
    return MeasuredLatency(found=tuple(done))


def _bench(step: MeasureLatency, entrant: Session, report: Report) -> Any:
    """A session that is warmed up, or why there is none."""
    from edgecap.meters.latency import LatencyBench, LatencyPlan

    report("warm-up", 0, 1)
    plan = LatencyPlan(step.prefill_tokens, step.decode_context, step.limit_s, step.target)
    try:
        return LatencyBench(_open(entrant), SystemClock(), plan, entrant.vocabulary)
    except Exception as error:  # one graph that cannot be run is not the end of the others
        return _failure(step, error)


def _overhead(step: MeasureLatency) -> float:
    """Seconds of a decode step that computes nothing, on the provider of the first."""
    from edgecap.graph.empty_decoder import empty_decoder
    from edgecap.meters.overhead import measure_overhead

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "empty.onnx"
        path.write_bytes(empty_decoder(step.layers))
        return measure_overhead(
            _open(step.entrants[0], path=path), SystemClock(), step.decode_context
        )


def _with_more(step: MeasureLatency, bench: Any, found: Latency, report: Report) -> Latency:
    """With other contexts, batches and streams, as far as they were asked for."""
    from edgecap.meters.context_sweep import measure_growth
    from edgecap.meters.throughput import measure_throughput

    asked = (bench.engine, SystemClock())
    if step.sweep:
        progress = _progress(report, "contexts")
        limit_s = step.limit_s * SWEEP_SHARE
        steps = SWEEP_STEPS if step.decode_context else 0
        grown = measure_growth(*asked, step.sweep, bench.vocabulary, limit_s, progress, steps)
        found = msgspec.structs.replace(found, sweep=grown)
    points = [(batch, streams) for batch in step.batches for streams in step.streams]
    if points != [(1, 1)]:
        progress = _progress(report, "throughput")
        flown = measure_throughput(
            *asked,
            points,
            step.prefill_tokens,
            step.decode_context,
            bench.vocabulary,
            step.limit_s,
            progress,
        )
        found = msgspec.structs.replace(found, throughput=flown)
    return found


def _energy(step: MeasureCell, report: Report) -> Any:
    from edgecap.machine.energy.assumed import Assumed
    from edgecap.machine.energy.resolver import Resolution
    from edgecap.meters.energy import measure_energy

    if step.energy == "off":
        return Absent(reason="switched off (--energy off)")
    clock = SystemClock()
    made = (
        Resolution(Assumed(step.assume_watts, clock.now))
        if step.assume_watts
        else _counters(step.session.provider, step.meter, step.meter_offset_s)
    )
    if isinstance(made.counter, Absent):
        return made.counter
    prefill, decode = _loads(step, _open(step.session))
    progress = _progress(report, "energy")
    scoring = None if step.session.task == ENCODER else _scoring_load(step)
    return measure_energy(
        made.counter, clock, prefill, decode, progress, scoring, made.beside, made.left_out
    )


def _loads(step: MeasureCell, engine: Any) -> tuple[Callable[[], int], Callable[[], int] | None]:
    """A prompt and a loop of decoding, if there is any; each does its work once and returns its tokens."""
    import numpy as np

    rng = np.random.default_rng(1)

    def prefill() -> int:
        engine.prefill(rng.integers(0, step.session.vocabulary, step.prefill_tokens))
        return step.prefill_tokens

    return prefill, _decode_load(step, engine, rng) if step.decode_context else None


def _decode_load(step: MeasureCell, engine: Any, rng: Any) -> Callable[[], int]:
    steps = max(1, min(32, step.decode_context // 2))
    base = engine.prefill(
        rng.integers(0, step.session.vocabulary, max(1, step.decode_context - steps // 2))
    )

    def decode() -> int:
        cache = base
        for token in rng.integers(0, step.session.vocabulary, steps).tolist():
            cache = engine.decode(cache, token)
        return steps

    return decode


def _scoring_load(step: MeasureCell) -> Callable[[], int]:
    """A window of scoring, on a session of its own."""
    import numpy as np

    engine = _open(step.session, scoring=_scoring_graph(step.session))
    rng, tokens = np.random.default_rng(3), max(1, step.context - 1)

    def score() -> int:
        ids = rng.integers(0, step.session.vocabulary, tokens + 1)
        engine.nll(ids[:-1], ids[1:])
        return tokens

    return score


def _work(step: MeasureCell) -> GraphWork:
    from edgecap.graph.cost.count import count_graph

    prefill = count_graph(Path(step.session.graph), 1, step.prefill_tokens)
    if not step.decode_context:
        return GraphWork(prefill=_step_work(prefill), decode=None, unknown=prefill.unknown)
    decode = count_graph(Path(step.session.graph), 1, 1, max(0, step.decode_context - 1))
    return GraphWork(prefill=_step_work(prefill), decode=_step_work(decode), unknown=decode.unknown)


def _step_work(found: Any) -> StepWork:
    return StepWork(**{name: getattr(found, name) for name in StepWork.__struct_fields__})


def _placement(step: MeasureCell, report: Report) -> Placement:
    """A short run is enough to see who takes which node; shares of time by operator need the real sizes."""
    import numpy as np

    report("placement", 0, 1)
    tokens, context = (step.prefill_tokens, step.decode_context) if step.operators else (32, 32)
    with tempfile.TemporaryDirectory() as scratch:
        engine = _open(step.session, profile_to=Path(scratch) / "profile")
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        if step.decode_context:
            cache = engine.prefill(np.zeros(min(context, step.decode_context), np.int64))
            for _ in range(4):
                engine.decode(cache, 0)
        found = engine.end_profile()
    phases = {"prefill": found.shares(slice(1, 2)), "decode": found.shares(slice(3, None))}
    asked = {name: shares for name, shares in phases.items() if shares and step.operators}
    return Placement(by_provider=found.by_provider, operators=asked)


def _progress(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)


_DO: dict[type, Callable[[Any, Report], Answer]] = {
    Inspect: _look,
    Export: _export,
    Optimize: _optimize,
    Quantize: _vary,
    CompressBaselines: _squeeze,
    Calibrate: _calibrate,
    Diagnose: _examine,
    MeasureCell: _measure,
    ScorePart: _score,
    MeasureLatency: _race,
    MeasureMemory: _weigh,
    Codec: _pack,
    ExactBytes: _marginalise,
}
