"""Compress and decompress files under a model.

Finds the model, checks that both ends share it, and runs the codec in a child.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.errors import EdgecapError, UsageError
from edgecap.machine.info import read_machine
from edgecap.pipeline.artifacts import build_or_refuse, tokenizer_folder
from edgecap.pipeline.capabilities import HORIZON
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import (
    ProgressCallback,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
    one_precision,
    run_step,
    session_of,
    threads_of,
)
from edgecap.pipeline.tokenizer_check import require_tokenizer
from edgecap.pipeline.worker import Codec, CodecResult, in_child
from edgecap.record import Failure
from edgecap.spec import CellSpec, Spec
from edgecap.storage.files import (
    Paths,
    check_writable,
    disk_errors,
    require_regular_file,
    resolve_paths,
    sha256_of,
)
from edgecap.text import codec_format


class _Coder(NamedTuple):
    """The graph that codes, and the header that describes it and this machine."""

    context: RunContext
    graph: ReadyGraph
    header: codec_format.Header


def compress(
    source: Path,
    target: Path,
    spec: Spec,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> CodecResult:
    """Compress a file under a model: `spec.precisions[0]` or fp32, in windows of `spec.context`.

    Raises UsageError if the request cannot be met, EdgecapError if the model fails.
    """
    _check_request(source, target, spec)
    threads = threads_of(spec)
    if threads > 255:
        raise UsageError(f"--threads {threads}: a compressed file names at most 255")
    context = _prepare(spec, home, notice, run)
    window = spec.context or HORIZON
    window = min(window, context.model.sizes.positions or window, 65_535)
    coder = _coder(context, one_precision(context), threads, window)
    with _new_file(target) as scratch:
        return _run(coder, source, scratch, "compress")


def decompress(
    source: Path,
    target: Path,
    spec: Spec,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> CodecResult:
    """Restore a file that `compress` wrote. The file names precision, window and threads.

    Raises UsageError if model, tokenizer or runtime differ from those that compressed it, and
    CodecError if the file is cut short or altered; nothing is written then.
    """
    _check_request(source, target, spec)
    with source.open("rb") as file:
        try:
            codec_format.check_magic(file)
            codec_format.check_checksum(file)
            header = codec_format.read_header(file)
        except EdgecapError as error:
            raise type(error)(f"{source}: {error}") from None
    context = _prepare(spec, home, notice, run)
    coder = _coder(context, header.precision, header.threads, header.context)
    _check_same(source, header, coder.header, spec.model)
    with _new_file(target) as scratch:
        try:
            return _run(coder, source, scratch, "decompress")
        except codec_format.CodecError as error:
            raise codec_format.CodecError(f"{source}: {error}") from None


def _check_request(source: Path, target: Path, spec: Spec) -> None:
    if len(spec.providers) > 1:
        raise UsageError(f"one provider is enough here, not {', '.join(spec.providers)}")
    if "-" in (str(source), str(target)):
        raise UsageError("standard input and output are not supported; give files")
    require_regular_file(source)
    if not source.is_file():
        raise UsageError(f"{source} is not there; give a file")
    if target.exists():
        raise UsageError(f"{target} is there already; give a new name")
    try:
        importlib.metadata.version("constriction")
    except importlib.metadata.PackageNotFoundError:
        raise UsageError("the codec needs constriction: pip install 'edgecap[codec]'") from None
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_writable(target.parent)


def _prepare(
    spec: Spec, home: Paths | None, notice: ProgressCallback, run: StepRunner
) -> RunContext:
    context = prepare(spec, home or resolve_paths(), notice, run).context
    if context.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder: it does not predict the next token, which the codec needs"
        )
    require_tokenizer(context.located, spec.trust_remote_code)
    return context


def _coder(context: RunContext, precision: str, threads: int, window: int) -> _Coder:
    provider = context.spec.providers[0]
    graph = build_or_refuse(context, CellSpec(precision, provider))
    model = sha256_of(*(f"{f.path} {f.sha256}".encode() for f in graph.graph.files))
    short_hashes = (
        bytes.fromhex(model)[:8],
        bytes.fromhex(context.hashes.tokenizer)[:4],
        bytes.fromhex(_runtime_hash(provider))[:4],
    )
    return _Coder(context, graph, codec_format.Header(precision, threads, window, *short_hashes))


def _runtime_hash(provider: str) -> str:
    """Hash all that the last bit of a probability depends on, beside the graph."""
    machine = read_machine((provider,))
    parts = [machine.processor, machine.architecture, *machine.flags, provider]
    parts += [importlib.metadata.version(name) for name in ("numpy", "constriction", "tokenizers")]
    parts += [f"{n} {v}" for n, v in machine.versions.items() if n.startswith("onnxruntime")]
    return sha256_of("\n".join(parts).encode())


def _check_same(
    source: Path, file: codec_format.Header, here: codec_format.Header, model: str
) -> None:
    """Raise UsageError if a compressed file needs another model, tokenizer or runtime than here."""
    if file.model != here.model:
        raise UsageError(
            f"{source} was compressed with another model, or another export of it: "
            f"its {file.precision} graph is {file.model.hex()}, that of '{model}' is "
            f"{here.model.hex()}; give the same folder to both ends (edgecap export)"
        )
    if file.tokenizer != here.tokenizer:
        raise UsageError(f"{source} was compressed with another tokenizer than that of '{model}'")
    if file.runtime != here.runtime:
        raise UsageError(
            f"{source} was compressed with another processor, ONNX Runtime, numpy, tokenizers or "
            "constriction: the last bits of its probabilities may differ here, "
            "so it can only be read where these are the same"
        )


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path; give the file its name once it is whole."""
    with (
        disk_errors(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".edgecap-") as folder,
    ):
        scratch = Path(folder) / "out"
        yield scratch
        _rename(scratch, target)


def _rename(scratch: Path, target: Path) -> None:
    """Give the finished file its name. Raise UsageError if that name was taken meanwhile."""
    try:
        try:
            os.link(scratch, target)  # fails where the name is taken, in one step
        except FileExistsError:
            raise
        except OSError:  # a disk without links
            if target.exists():
                raise FileExistsError from None
            scratch.replace(target)
    except FileExistsError:
        raise UsageError(
            f"{target} was made by someone else meanwhile; it is left as it is"
        ) from None


def _run(coder: _Coder, source: Path, target: Path, direction: str) -> CodecResult:
    context, graph, header = coder
    provider = context.spec.providers[0]
    step = Codec(
        direction=direction,
        source=str(source),
        target=str(target),
        session=msgspec.structs.replace(
            session_of(context, provider, graph), threads=header.threads
        ),
        tokenizer=str(tokenizer_folder(context, provider)),
        precision=header.precision,
        context=header.context,
        hashes=(header.model, header.tokenizer, header.runtime),
    )
    with context.in_use:
        answer = run_step(context, None, step, CodecResult)
    if isinstance(answer, Failure):
        raise codec_format.CodecError(answer.message)
    return answer
