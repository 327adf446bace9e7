"""Compare what contestants predict on a text with what fp32 predicts, token by token.

All read the same ids: documents of edgecap's corpus, cut into windows by edgecap's tokenizer. fp32
writes log2 p of a window into a file; each contestant reads it and adds up its own sums. So the
logits of one window are on the disk at a time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peers.turns import Seat

CORPUS, ROWS = "edgecap-mixed", 4  # rows: positions compared at once
SUMS = ("kl", "kl_back", "bits")
AT_ONCE = 2  # contestants: half of their time is not spent in threads


class Sample(NamedTuple):
    """Windows of the first `documents` of the corpus; one has `context` positions at most."""

    model: str
    documents: int
    context: int
    vocabulary: int


def read_windows(sample: Sample) -> tuple[list[Any], int]:
    """Return the windows and the bytes of the documents."""
    from edgecap.meters.text_windows import exact_cutter
    from edgecap.text.corpus import read_corpus
    from edgecap.text.tokenizer import read_tokenizer

    cut = exact_cutter(read_tokenizer(Path(sample.model)), sample.context, sample.vocabulary)
    texts = [cut(d.text) for d in read_corpus(CORPUS, sample.documents).documents]
    return [w for text in texts for w in text.windows], sum(text.bytes for text in texts)


def divergences(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return KL(p || q) and KL(q || p) in bits, summed over rows, of log2 probabilities.

    Rows are in fp32, which numpy exponentiates three times as fast; their sums in float64.
    """
    p, q = p.astype(np.float32), q.astype(np.float32)
    apart, ln_2 = p - q, np.float32(np.log(2))
    there, back = (np.einsum("ij,ij->i", np.exp(x * ln_2), apart) for x in (p, q))
    return np.array([there.sum(dtype=np.float64), -back.sum(dtype=np.float64)])


def measure_quality(seats: Sequence[Seat], sample: Sample) -> dict[str, Any]:
    """Return divergences in bits a token, both ways, and bits per byte; the first seat is fp32."""
    windows, size = read_windows(sample)
    sums = {seat.name: np.zeros(len(SUMS)) for seat in seats}
    for number in range(len(windows)):
        seats[0].ask("reference", number)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(Seat.ask, seats, repeat("compare"), repeat(number))
            for seat, answer in zip(seats, answers, strict=True):
                sums[seat.name] += answer
        print(f"window {number + 1} of {len(windows)}", file=sys.stderr, flush=True)
    tokens = sum(len(w.targets) for w in windows)
    charged = sum(w.charged_bits for w in windows)
    return {
        "documents": sample.documents,
        "context": sample.context,
        "tokens": tokens,
        "bytes": size,
        "of": {
            name: {
                "kl": kl / tokens,
                "kl_back": back / tokens,
                "bits_per_byte": (bits + charged) / size,
            }
            for name, (kl, back, bits) in sums.items()
        },
    }


# --- in the process -------------------------------------------------------------------------


def serve_quality(engine: Any, sample: Sample, shared: Path) -> None:
    """Answer "reference" and "compare" for a window by its number."""
    windows, _ = read_windows(sample)
    for line in sys.stdin:
        task, number = json.loads(line)
        window = windows[number]
        log2_p = engine.log_probabilities(window.inputs)
        if task == "reference":
            np.save(shared, log2_p.astype(np.float32))
            answer = []
        else:
            answer = _sums(log2_p, np.load(shared, mmap_mode="r"), window.targets)
        print(json.dumps(answer), flush=True)


def _sums(ours: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> list[float]:
    both = sum(divergences(p, q) for p, q in _parts(reference, ours))
    bits = -ours[np.arange(len(targets)), targets].sum()
    return [*np.asarray(both).tolist(), float(bits)]


def _parts(p: np.ndarray, q: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for begin in range(0, len(p), ROWS):
        rows = slice(begin, begin + ROWS)
        yield p[rows], q[rows]
