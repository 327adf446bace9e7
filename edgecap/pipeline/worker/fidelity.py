"""Compare an exported graph with the model as transformers computes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgecap.graph.export import TASK
from edgecap.graph.export.framework import FrameworkModel
from edgecap.machine.info import available_memory, default_threads
from edgecap.meters.fidelity import (
    LONG,
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
FREE_SHARE, PASS_S = 0.5, 15.0  # memory and time that one pass over the long text may take
SCORE_COPIES, LOGIT_COPIES = 3, 2  # of attention scores and logits that exist at once, in fp32


class FidelityCheck:
    """Answers of the framework's model, and what could not be asked."""

    def __init__(self, folder: Path, exporter: str, task: str) -> None:
        self._folder, self._decodes = folder, task == TASK
        self._answers: Sequence[PassageLogits] = ()
        self._reason = _reason_not_to_ask(folder, exporter, task)
        self._gaps = dict[str, Absent]()
        self._measured = dict[tuple[Path, int], dict[str, PartDistance]]()

    @property
    def is_possible(self) -> bool:
        """True if the framework's model can be computed here."""
        return not self._reason

    def ask(self, model: FrameworkModel) -> None:
        """Compute the answers of the model. One that cannot compute them is not compared."""
        stream = _ids(self._folder, model.vocabulary, model.limits.positions)
        started = time.perf_counter()
        try:
            limits = model.limits
            border = min((*limits.windows, limits.original or SAMPLE_TOKENS))
            short = reference_answers(model, short_passages(stream, border, self._decodes))
        except Exception as error:  # of many kinds, from the model's own code
            self._reason = f"transformers does not compute it: {one_line(error, 200)}"
            return
        seconds = (time.perf_counter() - started) / sum(len(a.passage.ids) for a in short)
        self._answers = [*short, *self._ask_long(model, stream, seconds)]

    def _ask_long(
        self, model: FrameworkModel, stream: Ids, seconds: float
    ) -> Sequence[PassageLogits]:
        limits = model.limits
        wanted = long_length(limits.windows, limits.original, limits.positions)
        length = _affordable(wanted, model, seconds)
        for border in (*limits.windows, *([limits.original] if limits.original else [])):
            if length <= border < wanted:
                reason = f"more than {length} positions need more memory or time than there is"
                self._gaps[f"beyond {border} positions"] = Absent(reason=reason)
        try:
            return reference_answers(model, long_passages(stream, length, self._decodes))
        except Exception as error:
            reason = f"transformers does not compute {length} positions: {one_line(error, 200)}"
            self._gaps[LONG] = Absent(reason=reason)
            return []

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
        largest = max(bits.values()) if bits else Absent(reason=self._reason)
        return largest, {**bits, **self._gaps}


def _reason_not_to_ask(folder: Path, exporter: str, task: str) -> str:
    """Return why the model is not computed, or ""; Optimum loads it in any case."""
    if task == "feature-extraction":
        return "an encoder without a head predicts no tokens"
    needed = 4 * (count_parameters(folder) or 0)
    if exporter != "optimum" and needed > available_memory():
        return f"the model does not fit into memory in fp32 ({needed / 1e9:.1f} GB)"
    return ""


def _affordable(length: int, model: FrameworkModel, seconds: float) -> int:
    """Return the length, or as many positions as memory and time allow."""
    memory = FREE_SHARE * available_memory() / 4
    while length > 1 and (
        LOGIT_COPIES * length * model.vocabulary + SCORE_COPIES * model.heads * length**2 > memory
        or length * seconds > PASS_S
    ):
        length = int(0.9 * length)
    return length


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
