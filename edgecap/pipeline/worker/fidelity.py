"""Compare an exported graph with the model as transformers computes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.export import TASK
from edgecap.graph.export.framework import FrameworkModel, LengthLimits
from edgecap.machine.info import available_memory, default_threads
from edgecap.meters.fidelity import (
    LONG,
    LONG_TOKENS,
    SAMPLE_TOKENS,
    PartDistance,
    PassageLogits,
    distance_by_part,
    long_length,
    long_passages,
    reference_answers,
    short_passages,
)
from edgecap.model.weight_files import count_parameters
from edgecap.names import one_line
from edgecap.protocols import Ids
from edgecap.record import Absent
from edgecap.spec import DEFAULT_CORPUS
from edgecap.text.corpus import read_corpus
from edgecap.text.tokenizer import read_tokenizer

STREAM = 2048  # ids of text; a longer passage repeats them
FREE_SHARE, PASS_S = 0.5, 30.0  # memory and time that one pass over the long text may take
TIMED = (64, 128)  # positions of passes that tell how the time grows
SCORE_COPIES, LOGIT_COPIES = 3, 2  # of attention scores and logits that exist at once, in fp32


class FidelityCheck:
    """Answers of the framework's model, and what could not be asked."""

    def __init__(self, folder: Path, exporter: str, task: str) -> None:
        self._folder, self._decodes = folder, task == TASK
        self._answers: Sequence[PassageLogits] = ()
        self._absent = _reason_not_to_ask(folder, exporter, task)
        self._gaps = dict[str, Absent]()
        self._measured = dict[tuple[Path, int], dict[str, PartDistance]]()

    @property
    def is_possible(self) -> bool:
        """True if the framework's model can be computed here."""
        return self._absent is None

    def ask(self, model: FrameworkModel) -> None:
        """Compute the answers of the model. One that cannot compute them is not compared.

        Raises UsageError if its answers are no numbers.
        """
        stream = _ids(self._folder, model.vocabulary, model.limits.positions)
        limits = model.limits
        border = min((*limits.windows, limits.original or SAMPLE_TOKENS))
        try:
            short = reference_answers(model, short_passages(stream, border, self._decodes))
        except (MemoryError, UsageError):
            raise
        except Exception as error:  # of many kinds, from the model's own code
            self._absent = _not_computed(error)
            return
        self._answers = [*short, *self._ask_long(model, stream)]

    def _ask_long(self, model: FrameworkModel, stream: Ids) -> Sequence[PassageLogits]:
        limits = model.limits
        wanted = long_length(limits.windows, limits.original, limits.positions)
        try:
            length = _affordable(wanted, model, stream)
            self._note_lengths(limits, length, wanted)
            return reference_answers(model, long_passages(stream, length, self._decodes))
        except (MemoryError, UsageError):
            raise
        except Exception as error:
            self._gaps[LONG] = _not_computed(error)
            return []

    def _note_lengths(self, limits: LengthLimits, length: int, wanted: int) -> None:
        """Note which lengths are not reached, for lack of memory or time."""
        borders = [b for b in (*limits.windows, limits.original or 0) if length <= b < wanted]
        short = [length] if length < min(wanted, LONG_TOKENS) else []
        for border in borders or short:
            reason = f"more than {length} positions need more memory or time than there is"
            self._gaps[f"beyond {border} positions"] = Absent(reason=reason, failed=True)

    def measure(self, graph: Path) -> dict[str, PartDistance]:
        """Return the distance of a graph by part; {} if nothing was asked."""
        version = (graph, graph.stat().st_mtime_ns)
        if version not in self._measured:
            self._measured[version] = self._measure(graph) if self._answers else {}
        return self._measured[version]

    def _measure(self, graph: Path) -> dict[str, PartDistance]:
        from edgecap.runtime.engine import OrtEngine

        vocabulary = self._answers[0].logits.shape[1]
        engine = OrtEngine(graph, "cpu", default_threads(), vocabulary=vocabulary)
        return distance_by_part(self._answers, engine)

    @property
    def distance(self) -> Callable[[Path, Path], float] | None:
        """Distance of a changed graph from the model, in bits a token; None if nothing was asked.

        It takes the graph before the change, too, which need not be run.
        """
        if not self._answers:
            return None
        return lambda plain, changed: max(map(max, self.measure(changed).values()))

    def describe(
        self, parts: dict[str, PartDistance]
    ) -> tuple[float | Absent, dict[str, float | Absent]]:
        """Return the largest distance in bits per token, and that of each part, for the record."""
        bits = {part: distance.bits for part, distance in parts.items()}
        largest = max(bits.values()) if bits else self._absent or Absent(reason="not asked")
        return largest, {**bits, **self._gaps}


def _reason_not_to_ask(folder: Path, exporter: str, task: str) -> Absent | None:
    """Return why the model is not computed, if so; Optimum loads it in any case."""
    if task == "feature-extraction":
        return Absent(reason="an encoder without a head predicts no tokens")
    needed = 4 * (count_parameters(folder) or 0)
    if exporter == "optimum" or needed <= available_memory():
        return None
    reason = f"the model does not fit into memory in fp32 ({needed / 1e9:.1f} GB)"
    return Absent(reason=reason, failed=True)


def _not_computed(error: Exception) -> Absent:
    return Absent(reason=f"transformers does not compute it: {one_line(error, 200)}", failed=True)


def _affordable(length: int, model: FrameworkModel, stream: Ids) -> int:
    """Return the length, or as many positions as memory and time allow."""
    memory = FREE_SHARE * available_memory() / 4
    seconds = _seconds(model, stream) if length > LONG_TOKENS else lambda n: 0.0
    while length > 1 and (
        LOGIT_COPIES * length * model.vocabulary + SCORE_COPIES * model.heads * length**2 > memory
        or seconds(length) > PASS_S
    ):
        length = int(0.9 * length)
    return length


def _seconds(model: FrameworkModel, stream: Ids) -> Callable[[int], float]:
    """Return the seconds of a pass over n positions: one part grows with n, the other with n^2."""
    few, many = TIMED
    first, second = (_time_of(model, np.resize(stream, n)) for n in TIMED)
    square = max(0.0, (second / many - first / few) / (many - few))
    linear = max(0.0, first / few - square * few)
    return lambda n: linear * n + square * n**2


def _time_of(model: FrameworkModel, ids: Ids) -> float:
    started = time.perf_counter()
    model.logits(ids, 1)
    return time.perf_counter() - started


def _ids(folder: Path, vocabulary: int, positions: int | None) -> Ids:
    """Return ids of the bundled text, shape (n,), or random ids of a model without tokenizer."""
    count = min(STREAM, 2 * positions if positions else STREAM)
    if not (folder / "tokenizer.json").is_file():
        return np.random.default_rng(4).integers(0, vocabulary, count, dtype=np.int64)
    reader = read_tokenizer(folder)
    ids: list[int] = [] if reader.start is None else [reader.start]
    for document in read_corpus(DEFAULT_CORPUS).documents:
        ids += reader.encode(document.text[:1000])
        if len(ids) >= count:
            break
    known = [i for i in ids if i < vocabulary][:count]
    return np.resize(np.array(known, np.int64), count)
