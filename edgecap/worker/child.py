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
from edgecap.record import Absent, Failure, Memory, Placement
from edgecap.worker.steps import (
    Answer,
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
    from edgecap.engine import available_providers
    from edgecap.graph.read import look_into

    tried = any(p != "cpu" for p in step.providers)
    return Looked(providers=available_providers(tried), graphs=tuple(look_into(Path(g)) for g in step.graphs))


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
    engine = _staged("load", lambda: _open(step))
    return Measured(
        divergence_bits=divergence,
        compression=compression,
        latency=_staged("latency", lambda: _latency(step, engine, report)),
        energy=_or_absent(lambda: _energy(step, engine, report)),
        placement=_or_absent(lambda: _placement(step, report)),
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


def _open(step: Measure | Weigh | Pack, **changes: Any) -> Any:
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


def _latency(step: Measure, engine: Any, report: Report) -> Any:
    from edgecap.meters.latency import Plan, measure_latency

    plan = Plan(step.prefill_tokens, step.decode_context, step.limit_s)
    return measure_latency(engine, SystemClock(), plan, step.vocabulary, _progress(report, "latency"))


def _energy(step: Measure, engine: Any, report: Report) -> Any:
    import numpy as np

    from edgecap.machine import sysfs
    from edgecap.meters.energy import measure_energy
    from edgecap.power import find_counter

    counter = find_counter(step.provider, sysfs())
    if isinstance(counter, Absent):
        return counter
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

    return measure_energy(counter, SystemClock(), prefill, decode, _progress(report, "energy"))


def _placement(step: Measure, report: Report) -> Placement:
    import numpy as np

    report("placement", 0, 1)
    with tempfile.TemporaryDirectory() as scratch:
        engine = _open(step, profile_to=Path(scratch) / "profile")
        cache = engine.prefill(np.zeros(min(32, step.prefill_tokens), np.int64))
        for _ in range(4):
            cache = engine.decode(cache, 0)
        return Placement(by_provider=engine.end_profile())


def _progress(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)


_DO: dict[type, Callable[[Any, Report], Answer]] = {
    Look: _look,
    Export: _export,
    Vary: _vary,
    Squeeze: _squeeze,
    Measure: _measure,
    Weigh: _weigh,
    Pack: _pack,
}
