"""Compress and decompress files, sum exact code lengths, and run general compressors."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgecap.pipeline.worker.answers import (
    Answer,
    CodecResult,
    CompressedBaselines,
    ExactBytesResult,
)
from edgecap.pipeline.worker.sessions import Report, open_session, progress_of
from edgecap.pipeline.worker.steps import (
    Codec,
    CompressBaselines,
    ExactBytes,
)


def _compress_baselines(step: CompressBaselines, report: Report) -> CompressedBaselines:
    from edgecap.text.compressors import measure_baselines

    texts = (d.text for d in step.corpus.documents)
    progress = progress_of(report, "gzip, xz and zstd")
    return CompressedBaselines(baselines=measure_baselines(texts, step.corpus.bytes, progress))


def _code(step: Codec, report: Report) -> CodecResult:
    from edgecap.text import codec
    from edgecap.text.codec_format import Header, read_header
    from edgecap.text.tokenizer import read_tokenizer

    started = time.perf_counter()
    report("load", 0, 1)
    engine = open_session(step.session)
    tokenizer = read_tokenizer(Path(step.tokenizer))
    header = Header(step.precision, step.session.threads, step.context, *step.hashes)
    progress = progress_of(report, step.direction)
    with open(step.source, "rb") as source, open(step.target, "wb") as target:
        if step.direction == "compress":
            coded = codec.compress(source, target, header, engine, tokenizer, progress)
        else:
            read_header(source)
            coded = codec.decompress(source, target, header, engine, tokenizer, progress)
    return CodecResult(**coded._asdict(), seconds=time.perf_counter() - started)


def _exact_bytes(step: ExactBytes, report: Report) -> ExactBytesResult:
    from edgecap.meters.exact.search import Vocabulary
    from edgecap.meters.exact.texts import TextBits, text_bits, text_prefix
    from edgecap.text.tokenizer import read_token_bytes, read_tokenizer

    report("load", 0, 1)
    folder, engine = Path(step.tokenizer), open_session(step.session)
    tokenizer, pieces = read_tokenizer(folder), read_token_bytes(folder)
    vocabulary, texts = Vocabulary(pieces.by_id, engine.vocabulary), list[TextBits]()
    documents = [d for d in step.corpus.documents if text_prefix(d.text, step.most_bytes)]
    for document in documents:
        tick = partial(report, "exact bytes", len(texts), len(documents))
        tick()
        texts.append(
            text_bits(document, step.most_bytes, tokenizer, pieces, vocabulary, engine, tick)
        )
    return ExactBytesResult(texts=tuple(texts))


HANDLERS: dict[type, Callable[[Any, Report], Answer]] = {
    CompressBaselines: _compress_baselines,
    Codec: _code,
    ExactBytes: _exact_bytes,
}
