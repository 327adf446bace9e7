"""Does one step: the process that loads, runs and measures. Wires engines, clocks and counters to meters."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgecap.errors import DiskFull, UsageError
from edgecap.findings import CounterSeen, Total
from edgecap.record import Absent, Failure, GraphWork, Latency, LeftOut, Memory, Placement, StepWork
from edgecap.worker.steps import (
    Answer,
    Calibrate,
    Calibrated,
    Entrant,
    Examine,
    Examined,
    Export,
    Line,
    Look,
    Looked,
    Made,
    Measure,
    Measured,
    Pack,
    Packed,
    Progress,
    Race,
    Raced,
    Refusal,
    Squeeze,
    Squeezed,
    Step,
    Vary,
    Weigh,
)

Report = Callable[[str, int, int], None]  # stage, done, total


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

    def send(self, line: Line) -> None:
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
    stage = getattr(error, "stage", None) or type(step).__name__.lower()
    text = " ".join(str(error).split()) or "no message"
    return Failure(stage=stage, error=type(error).__name__, message=text[:500])


# --- the steps --------------------------------------------------------------------------------


def _look(step: Look, report: Report) -> Looked:
    from edgecap.graph.read import look_into
    from edgecap.providers import built_providers, why_not

    tried = any(p != "cpu" for p in step.providers)
    reasons = {p: why_not(p) if tried and p != "cpu" else None for p in built_providers()}
    return Looked(
        providers=tuple(p for p, reason in reasons.items() if reason is None),
        refused={p: reason for p, reason in reasons.items() if reason is not None},
        no_energy=_no_energy(step) if step.energy else {},
        graphs=tuple(look_into(Path(g)) for g in step.graphs),
    )


def _no_energy(step: Look) -> dict[str, str]:
    """Why the energy of a provider cannot be counted, for those where it cannot."""
    totals = {provider: _counters(provider, step.meter, None).counter for provider in step.providers}
    return {provider: found.reason for provider, found in totals.items() if isinstance(found, Absent)}


def _counters(provider: str, meter: str | None, offset_s: float | None) -> Any:
    """What makes up the energy of a run on a provider; see `power.resolve`."""
    from edgecap.machine import sysfs
    from edgecap.power import find, resolve

    return resolve(provider, find(sysfs(), meter=Path(meter) if meter else None, meter_offset_s=offset_s))


def _export(step: Export, report: Report) -> Made:
    from edgecap.export import export_fp32

    report("export", 0, 1)
    return Made(files=tuple(export_fp32(Path(step.folder), Path(step.out), step.trust_remote_code)))


def _vary(step: Vary, report: Report) -> Made:
    from edgecap.graph.variants import make_variant

    report(f"make {step.precision}", 0, 1)
    return Made(files=tuple(make_variant(Path(step.graph), step.precision, Path(step.out))))


def _squeeze(step: Squeeze, report: Report) -> Squeezed:
    from edgecap.baselines import measure_baselines

    texts = (d.text for d in step.corpus.documents)
    return Squeezed(baselines=measure_baselines(texts, step.corpus.bytes, _progress(report, "gzip, xz and zstd")))


def _calibrate(step: Calibrate, report: Report) -> Calibrated:
    from edgecap.meters.peaks import measure_peaks
    from edgecap.probes import OrtProbes

    probes = OrtProbes(step.provider, step.threads)
    found = measure_peaks(probes, SystemClock(), step.memory_bytes, _progress(report, "peaks"))
    return Calibrated(**found._asdict())


def _examine(step: Examine, report: Report) -> Examined:
    from edgecap.machine import sysfs
    from edgecap.power import find, resolve
    from edgecap.providers import built_providers, why_not

    report("providers and counters", 0, 1)
    providers = {name: why_not(name) or "" for name in built_providers()}
    found = find(sysfs())
    totals = {name: _total(resolve(name, found)) for name, reason in providers.items() if not reason}
    seen = [_seen(f, step.threads) for f in found if not isinstance(f, LeftOut)]
    return Examined(
        providers=providers,
        counters=tuple(s for s in seen if isinstance(s, CounterSeen)),
        refused=tuple(s for s in (*found, *seen) if isinstance(s, LeftOut)),
        totals=totals,
    )


def _total(found: Any) -> Total:
    if isinstance(found.counter, Absent):
        return Total(counter="", domains=(), reason=found.counter.reason, left_out=found.left_out)
    return Total(counter=found.counter.name, domains=found.counter.domains, reason="", left_out=found.left_out)


def _seen(counter: Any, threads: int) -> Any:
    """A counter read while idle and under load, or why it can be read no more."""
    from edgecap.meters.watts import watts_of
    from edgecap.probes import OrtProbes

    load = OrtProbes("cpu", threads).gemm("fp32", 256, 1024, 1024)
    try:
        idle, loaded = watts_of(counter, SystemClock()), watts_of(counter, SystemClock(), load)
    except OSError as error:
        return LeftOut(name=counter.name, reason=str(error), scope=counter.scope)
    finally:
        counter.close()
    return CounterSeen(
        name=counter.name, scope=counter.scope, provenance=counter.provenance, idle_w=idle, load_w=loaded
    )


def _weigh(step: Weigh, report: Report) -> Memory:
    import onnxruntime  # noqa: F401 - loaded before the baseline is read

    import edgecap.engine  # noqa: F401 - likewise
    from edgecap.meters.memory import measure_memory

    report("memory", 0, 1)
    return measure_memory(
        lambda: _open(step),
        step.vocabulary,
        step.prefill_tokens,
        step.steps,
        [Path(f) for f in step.files],
    )


def _measure(step: Measure, report: Report) -> Measured:
    """One session at a time: the thread pool of an idle one costs a working one 25 % on two cores."""
    divergence = _staged("divergence", lambda: _divergence(step, report))
    compression = _staged("compression", lambda: _compression(step, report))
    return Measured(
        divergence_bits=divergence,
        compression=compression,
        energy=_or_absent(lambda: _energy(step, report)),
        placement=_or_absent(lambda: _placement(step, report)),
        work=_or_absent(lambda: _work(step)),
    )


def _pack(step: Pack, report: Report) -> Packed:
    from edgecap import codec
    from edgecap.tokens import read_tokenizer

    started = time.perf_counter()
    report("load", 0, 1)
    engine = _open(step)
    tokenizer = read_tokenizer(Path(step.tokenizer))
    header = codec.Header(step.precision, step.threads, step.context, *step.hashes)
    progress = _progress(report, step.direction)
    with open(step.source, "rb") as source, open(step.target, "wb") as target:
        if step.direction == "compress":
            found = codec.compress(source, target, header, engine, tokenizer, progress)
        else:
            codec.read_header(source)
            found = codec.decompress(source, target, header, engine, tokenizer, progress)
    return Packed(**found._asdict(), seconds=time.perf_counter() - started)


def _staged(stage: str, work: Callable[[], Any]) -> Any:
    """Marks an error with the stage it came from."""
    try:
        return work()
    except Exception as error:
        error.stage = stage  # type: ignore[attr-defined]
        raise


def _open(step: Measure | Weigh | Pack | Entrant, **changes: Any) -> Any:
    """A session on the step's graph and provider, or on others where `changes` says so."""
    from edgecap.engine import OrtEngine

    asked = {
        "path": Path(step.graph),
        "provider": step.provider,
        "threads": step.threads,
        "head_dim": step.head_dim,
        "vocabulary": step.vocabulary,
    }
    return OrtEngine(**{**asked, **changes})


def _or_absent(work: Callable[[], Any]) -> Any:
    """What is beside the point of a cell may fail without taking the cell along."""
    try:
        return work()
    except Exception as error:
        return Absent(reason=f"it failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _divergence(step: Measure, report: Report) -> float | Absent:
    from edgecap.meters import divergence
    from edgecap.tokens import read_tokenizer

    if step.reference is None:
        return Absent(reason="there is no fp32 graph of this model to compare with")
    if step.reference == step.graph:
        return 0.0  # fp32 from itself
    report("divergence", 0, 1)
    tokenizer = read_tokenizer(Path(step.tokenizer))
    texts = (d.text for d in step.corpus.documents)
    samples = divergence.take_samples(texts, step.corpus.count, tokenizer.encode, tokenizer.start, step.context)
    if not samples:
        return Absent(reason="the corpus has no tokens")
    reference = _open(step, path=Path(step.reference), provider="cpu")
    return divergence.measure_divergence(reference, _open(step), samples).bits


def _compression(step: Measure, report: Report) -> Any:
    from edgecap.corpus import check_unchanged
    from edgecap.graph.scoring import scoring_graph
    from edgecap.journal import Journal
    from edgecap.meters.compression import Plan, Scored, measure_compression

    cutter, vocabulary = _cutter(step)
    plan = Plan(step.protocol, step.context, step.stride)
    scoring = scoring_graph(Path(step.graph), on_host=step.provider == "cpu", vocabulary=vocabulary)
    found = measure_compression(
        _open(step, scoring=scoring),
        cutter,
        step.corpus.documents,
        plan,
        SystemClock(),
        step.corpus.bytes,
        _progress(report, "compression"),
        Journal(Path(step.journal), Scored),
    )
    check_unchanged(step.corpus)
    return found


def _cutter(step: Measure) -> tuple[Any, int | None]:
    """How the protocol cuts a document, and the ids that its softmax runs over where not all."""
    from edgecap.meters import windows
    from edgecap.tokens import read_paper_tokenizer, read_tokenizer

    if step.protocol == "paper":
        shipped = read_paper_tokenizer(Path(step.tokenizer))
        return windows.paper(shipped, step.context), min(shipped.size, step.vocabulary)
    plain = read_tokenizer(Path(step.tokenizer))
    return windows.exact(plain, step.context, step.vocabulary, step.stride), None


def _race(step: Race, report: Report) -> Raced:
    """All sessions in one process: they take turns, and an idle one was seen to disturb no other."""
    from edgecap.machine import Load
    from edgecap.meters.latency import Bench, take_turns

    before = Load.now()
    benches: list[Bench | Failure] = [_bench(step, entrant, report) for entrant in step.entrants]
    ready = [b for b in benches if isinstance(b, Bench)]
    found = iter(
        take_turns(ready, SystemClock(), step.limit_s * len(ready), _progress(report, "latency")) if ready else ()
    )
    load = Load.now().since(before)
    done = [
        b if isinstance(b, Failure) else _with_load(_with_sweep(step, b, next(found), report), load) for b in benches
    ]
    return Raced(found=tuple(done))


def _bench(step: Race, entrant: Entrant, report: Report) -> Any:
    """A session that is warmed up, or why there is none."""
    from edgecap.meters.latency import Bench, Plan

    report("warm-up", 0, 1)
    plan = Plan(step.prefill_tokens, step.decode_context, step.limit_s, step.target)
    try:
        return Bench(_open(entrant), SystemClock(), plan, entrant.vocabulary)
    except Exception as error:  # one graph that cannot be run is not the end of the others
        return _failure(step, error)


def _with_load(found: Latency, load: Any) -> Latency:
    return msgspec.structs.replace(found, steal_share=load.steal_share, other_load=load.other_load)


def _with_sweep(step: Race, bench: Any, found: Latency, report: Report) -> Latency:
    from edgecap.meters.growth import measure_growth

    if not step.sweep:
        return found
    progress = _progress(report, "context sweep")
    grown = measure_growth(bench.engine, SystemClock(), step.sweep, bench.vocabulary, step.limit_s, progress)
    return msgspec.structs.replace(found, sweep=grown)


def _energy(step: Measure, report: Report) -> Any:
    from edgecap.meters.energy import measure_energy
    from edgecap.power.assumed import Assumed
    from edgecap.power.resolver import Resolution

    if step.energy == "off":
        return Absent(reason="switched off (--energy off)")
    clock = SystemClock()
    made = (
        Resolution(Assumed(step.assume_watts, clock.now))
        if step.assume_watts
        else _counters(step.provider, step.meter, step.meter_offset_s)
    )
    if isinstance(made.counter, Absent):
        return made.counter
    prefill, decode = _loads(step, _open(step))
    progress = _progress(report, "energy")
    return measure_energy(
        made.counter, clock, prefill, decode, progress, _scoring_load(step), made.beside, made.left_out
    )


def _loads(step: Measure, engine: Any) -> tuple[Callable[[], int], Callable[[], int]]:
    """A prompt and a loop of decoding; each does its work once and returns its tokens."""
    import numpy as np

    rng = np.random.default_rng(1)
    steps = max(1, min(32, step.decode_context // 2))
    base = engine.prefill(rng.integers(0, step.vocabulary, max(1, step.decode_context - steps // 2)))

    def prefill() -> int:
        engine.prefill(rng.integers(0, step.vocabulary, step.prefill_tokens))
        return step.prefill_tokens

    def decode() -> int:
        cache = base
        for token in rng.integers(0, step.vocabulary, steps).tolist():
            cache = engine.decode(cache, token)
        return steps

    return prefill, decode


def _scoring_load(step: Measure) -> Callable[[], int]:
    """A window of scoring, on a session of its own."""
    import numpy as np

    from edgecap.graph.scoring import scoring_graph

    engine = _open(step, scoring=scoring_graph(Path(step.graph), on_host=step.provider == "cpu"))
    rng, tokens = np.random.default_rng(3), max(1, step.context - 1)

    def score() -> int:
        ids = rng.integers(0, step.vocabulary, tokens + 1)
        engine.nll(ids[:-1], ids[1:])
        return tokens

    return score


def _work(step: Measure) -> GraphWork:
    from edgecap.graph.costs import count_graph

    prefill = count_graph(Path(step.graph), 1, step.prefill_tokens)
    decode = count_graph(Path(step.graph), 1, 1, max(0, step.decode_context - 1))
    return GraphWork(prefill=_step_work(prefill), decode=_step_work(decode), unknown=decode.unknown)


def _step_work(found: Any) -> StepWork:
    return StepWork(**{name: getattr(found, name) for name in StepWork.__struct_fields__})


def _placement(step: Measure, report: Report) -> Placement:
    """A short run is enough to see who takes which node; shares of time by operator need the real sizes."""
    import numpy as np

    report("placement", 0, 1)
    tokens, context = (step.prefill_tokens, step.decode_context) if step.operators else (32, 32)
    with tempfile.TemporaryDirectory() as scratch:
        engine = _open(step, profile_to=Path(scratch) / "profile")
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        engine.prefill(np.zeros(min(tokens, step.prefill_tokens), np.int64))
        cache = engine.prefill(np.zeros(min(context, step.decode_context), np.int64))
        for _ in range(4):
            engine.decode(cache, 0)
        found = engine.end_profile()
    phases = {"prefill": found.shares(slice(1, 2)), "decode": found.shares(slice(3, None))} if step.operators else {}
    return Placement(by_provider=found.by_provider, operators=phases)


def _progress(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)


_DO: dict[type, Callable[[Any, Report], Answer]] = {
    Look: _look,
    Export: _export,
    Vary: _vary,
    Squeeze: _squeeze,
    Calibrate: _calibrate,
    Examine: _examine,
    Measure: _measure,
    Race: _race,
    Weigh: _weigh,
    Pack: _pack,
}
