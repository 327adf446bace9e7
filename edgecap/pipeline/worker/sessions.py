"""Tools that several handlers share: sessions, samples of text, progress, failures as values."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgecap.machine.info import pin_process
from edgecap.names import one_line
from edgecap.pipeline.worker.steps import (
    Session,
)
from edgecap.provider_options import RECORDING, base_name
from edgecap.record import Absent, Failure
from edgecap.text.corpus import Corpus

Report = Callable[[str, int, int], None]  # stage, done, total
PartResult = TypeVar("PartResult")
_NOT_ENGINE = ("graph", "affinity", "task")  # options of a session that are not the engine's


class SystemClock:
    """The monotonic clock with the finest tick."""

    def now(self) -> float:
        """Return seconds since an arbitrary origin."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""
        time.sleep(seconds)


def open_timed_session(session: Session, **changes: Any) -> Any:
    """Open a session as it is deployed: it replays recorded launches if the provider records."""
    from edgecap.runtime.replay import ReplayingEngine

    records = base_name(session.provider) in RECORDING
    return open_session(session, ReplayingEngine if records else None, **changes)


def open_session(session: Session, kind: type | None = None, **changes: Any) -> Any:
    """Open an engine as a session asks, with options changed where `changes` says so.

    `kind` is its class, `OrtEngine` by default.
    """
    from edgecap.runtime.engine import OrtEngine

    pin_process(session.affinity)
    names = [name for name in session.__struct_fields__ if name not in _NOT_ENGINE]
    options = {name: getattr(session, name) for name in names}
    return (kind or OrtEngine)(**{"path": Path(session.graph), **options, **changes})


def corpus_samples(corpus: Corpus, tokenizer: str, length: int, most: int) -> list[Any]:
    """Return token ids of the beginnings of up to `most` documents, of shape (<= length,)."""
    from edgecap.meters.divergence import take_samples
    from edgecap.text.tokenizer import read_tokenizer

    reader = read_tokenizer(Path(tokenizer))
    texts = (d.text for d in corpus.documents)
    return take_samples(texts, corpus.count, reader.encode, reader.start, length, most)


def progress_of(report: Report, stage: str) -> Callable[[int, int], None]:
    """Return a callback that reports progress of one stage."""
    return lambda done, total: report(stage, done, total)


def in_stage(stage: str, work: Callable[[], PartResult]) -> PartResult:
    """Run part of a step; name its stage on an error, for the Failure."""
    try:
        return work()
    except Exception as error:
        error.stage = stage  # type: ignore[attr-defined]
        raise


def or_absent(work: Callable[[], PartResult]) -> PartResult | Absent:
    """Return Absent instead of failing the cell."""
    try:
        return work()
    except Exception as error:
        text = one_line(error, 200)
        return Absent(reason=f"it failed: {type(error).__name__}: {text}")


def failure_of(stage: str, error: Exception) -> Failure:
    """Return an error as a Failure of a stage; EDGECAP_DEBUG prints its traceback."""
    if os.environ.get("EDGECAP_DEBUG"):
        import traceback

        traceback.print_exc()
    fallback = "out of memory" if isinstance(error, MemoryError) else "no message"
    return Failure(
        stage=getattr(error, "stage", None) or stage,
        error=type(error).__name__,
        message=(one_line(error) or fallback)[:500],
    )
