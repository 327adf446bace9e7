"""`edgecap compress` and `decompress`: finds the model, checks that both ends share it, runs the codec in a child."""

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
from edgecap.pipeline.artifacts import get_or_build, tokenizer_folder
from edgecap.pipeline.capabilities import HORIZON
from edgecap.pipeline.prepare import (
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
    prepare,
    session_of,
    threads_of,
)
from edgecap.pipeline.worker import Codec, CodecResult, in_child
from edgecap.record import Failure
from edgecap.spec import CellSpec, Spec
from edgecap.storage import files
from edgecap.storage.files import Paths
from edgecap.text import codec


class _Both(NamedTuple):
    """What both directions need: the graph, and the header that describes this end."""

    job: RunContext
    ready: ReadyGraph
    header: codec.Header


def compress(
    source: Path,
    target: Path,
    spec: Spec,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> CodecResult:
    """Compresses a file under a model, `spec.precisions[0]` or fp32; the window is `spec.context`.

    Raises UsageError where the request cannot be met, EdgecapError where the model fails.
    """
    _check_request(source, target, spec)
    threads = threads_of(spec)
    if threads > 255:
        raise UsageError(f"--threads {threads}: a compressed file names at most 255")
    job = _prepared(spec, home, notice, run)
    had = [r.graph.precision for r in job.found]
    precision = (
        spec.precisions[0] if spec.precisions else "fp32" if "fp32" in had or not had else had[0]
    )
    positions = job.model.sizes.positions
    context = min(spec.context or HORIZON, positions or spec.context or HORIZON, 65_535)
    both = _both(job, precision, threads, context)
    with _output(target) as scratch:
        return _run(both, source, scratch, "compress", notice, run)


def decompress(
    source: Path,
    target: Path,
    spec: Spec,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> CodecResult:
    """Gives back the file that `compress` was given. Precision, window and threads are the file's own.

    Raises UsageError where model, tokenizer or runtime are not those that it was compressed with, and
    CodecError where it is cut short or altered; nothing is written then.
    """
    _check_request(source, target, spec)
    with source.open("rb") as file:
        try:
            codec.check_magic(file)
            codec.check_whole(file)
            told = codec.read_header(file)
        except EdgecapError as error:
            raise type(error)(f"{source}: {error}") from None
    job = _prepared(spec, home, notice, run)
    both = _both(job, told.precision, told.threads, told.context)
    _check_same(source, told, both.header, spec.model)
    with _output(target) as scratch:
        try:
            return _run(both, source, scratch, "decompress", notice, run)
        except codec.CodecError as error:
            raise codec.CodecError(f"{source}: {error}") from None


def _check_request(source: Path, target: Path, spec: Spec) -> None:
    if len(spec.providers) > 1:
        raise UsageError(f"one provider is enough here, not {', '.join(spec.providers)}")
    if "-" in (str(source), str(target)):
        raise UsageError("standard input and output are not supported; give files")
    if not source.is_file():
        raise UsageError(
            f"{source} is {'a folder' if source.is_dir() else 'not there'}; give a file"
        )
    if target.exists():
        raise UsageError(f"{target} is there already; give a new name")
    try:
        importlib.metadata.version("constriction")
    except importlib.metadata.PackageNotFoundError:
        raise UsageError("the codec needs constriction: pip install 'edgecap[codec]'") from None
    with files.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    files.check_writable(target.parent)


def _prepared(
    spec: Spec, home: Paths | None, notice: ProgressCallback, run: StepRunner
) -> RunContext:
    job = prepare(spec, home or files.home(), notice, run).job
    if job.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder: it does not predict the next token, which the codec needs"
        )
    return job


def _both(job: RunContext, precision: str, threads: int, context: int) -> _Both:
    provider = job.spec.providers[0]
    ready = get_or_build(job, CellSpec(precision, provider))
    if isinstance(ready, Failure):
        raise UsageError(f"cannot make {precision}: {ready.message}")
    model = files.sha256_of(*(f"{f.path} {f.sha256}".encode() for f in ready.graph.files))
    short = [
        bytes.fromhex(h)[:n]
        for h, n in ((model, 8), (job.hashes.tokenizer, 4), (_runtime(provider), 4))
    ]
    return _Both(job, ready, codec.Header(precision, threads, context, *short))


def _runtime(provider: str) -> str:
    """What the last bit of a probability depends on beside the graph."""
    here = read_machine((provider,))
    told = [here.cpu, here.architecture, *here.flags, provider]
    told += [importlib.metadata.version(name) for name in ("numpy", "constriction", "tokenizers")]
    told += [
        f"{name} {version}"
        for name, version in here.versions.items()
        if name.startswith("onnxruntime")
    ]
    return files.sha256_of("\n".join(told).encode())


def _check_same(source: Path, told: codec.Header, here: codec.Header, model: str) -> None:
    if told.model != here.model:
        raise UsageError(
            f"{source} was compressed with another model, or another export of it: its {told.precision} graph is "
            f"{told.model.hex()}, that of '{model}' is {here.model.hex()}; give the same folder to both ends (edgecap export)"
        )
    if told.tokenizer != here.tokenizer:
        raise UsageError(f"{source} was compressed with another tokenizer than that of '{model}'")
    if told.runtime != here.runtime:
        raise UsageError(
            f"{source} was compressed with another processor, ONNX Runtime, numpy, tokenizers or constriction: the last "
            "bits of its probabilities may differ here, so it can only be read where these are the same"
        )


@contextmanager
def _output(target: Path) -> Iterator[Path]:
    """A file that gets its name when it is whole."""
    with (
        files.disk_errors(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".edgecap-") as folder,
    ):
        scratch = Path(folder) / "out"
        yield scratch
        _name(scratch, target)


def _name(scratch: Path, target: Path) -> None:
    """Gives the finished file its name; a file that was made there meanwhile is left as it is."""
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


def _run(
    both: _Both,
    source: Path,
    target: Path,
    direction: str,
    notice: ProgressCallback,
    run: StepRunner,
) -> CodecResult:
    job, ready, header = both
    step = Codec(
        direction=direction,
        source=str(source),
        target=str(target),
        session=msgspec.structs.replace(
            session_of(job, job.spec.providers[0], ready), threads=header.threads
        ),
        tokenizer=str(tokenizer_folder(job, job.spec.providers[0])),
        precision=header.precision,
        context=header.context,
        hashes=(header.model, header.tokenizer, header.runtime),
    )
    with job.in_use:
        answer = run(
            step,
            lambda p: notice(ProgressEvent(None, p.stage, p.done, p.total)),
            job.spec.timeout_s,
        )
    if isinstance(answer, CodecResult):
        return answer
    message = (
        answer.message if isinstance(answer, Failure) else msgspec.json.encode(answer).decode()
    )
    raise codec.CodecError(message)
