"""Build graphs: export a model, fuse operators, quantize."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecap.graph import export, finish
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.variants import Form, make_variant
from edgecap.graph.weight_formats import weight_formats
from edgecap.machine.info import default_threads
from edgecap.meters import fidelity
from edgecap.pipeline.worker.answers import (
    BuiltGraph,
)
from edgecap.pipeline.worker.fidelity import FidelityCheck
from edgecap.pipeline.worker.sessions import Report, corpus_samples
from edgecap.pipeline.worker.steps import (
    Export,
    Optimize,
    Quantize,
)

CALIBRATION_TOKENS, CALIBRATION_SAMPLES = 256, 32  # to measure activations on


def _export(step: Export, report: Report) -> BuiltGraph:
    report("export", 0, 1)
    folder, out = Path(step.folder), Path(step.out)
    check = FidelityCheck(folder, step.exporter, step.task)
    with tempfile.TemporaryDirectory(dir=step.out) as scratch:
        plain = export.export_fp32(
            folder,
            Path(scratch),
            step.trust_remote_code,
            step.exporter,
            step.task,
            check.ask if check.is_possible else None,
        )
        export.copy_config_files(folder, Path(scratch), out)
        report("compare with transformers", 0, 1)
        written = finish.write_finished(step.finish, plain, out, check.distance or _divergence)
    parts = check.measure(out / written.files[0])
    fidelity.check_fidelity(parts, step.exporter)
    bits, by_part = check.describe(parts)
    return BuiltGraph(
        files=tuple(written.files),
        unfused=written.unfused,
        fidelity_bits=bits,
        fidelity=by_part,
    )


def _optimize(step: Optimize, report: Report) -> BuiltGraph:
    report("optimize", 0, 1)
    written = finish.write_fused(Path(step.graph), Path(step.out), _divergence)
    return BuiltGraph(files=tuple(written.files), unfused=written.unfused)


def _divergence(plain: Path, other: Path) -> float:
    """Return bits a token by which a graph differs from another.

    Runs one session at a time: there may be memory for one only.
    """
    from edgecap.meters.divergence import max_divergence, sample_answers
    from edgecap.runtime.engine import OrtEngine

    def answers(path: Path) -> Any:
        return sample_answers(OrtEngine(path, "cpu", default_threads()))

    return max_divergence(answers(plain), answers(other))


def _quantize(step: Quantize, report: Report) -> BuiltGraph:
    from edgecap.runtime.activations import ActivationReader

    report(f"making {step.weights}", 0, 1)
    length = min(CALIBRATION_TOKENS, step.sample_tokens)
    samples = (
        corpus_samples(step.corpus, step.tokenizer, length, CALIBRATION_SAMPLES)
        if step.corpus
        else []
    )
    source = Path(step.graph)
    observe = ActivationReader(source, default_threads())
    form, out = Form(step.weights, step.arithmetic, step.operators), Path(step.out)
    files = make_variant(source, form, out, samples, observe, step.positions)
    return describe_variant(out, files)


def describe_variant(out: Path, files: list[str]) -> BuiltGraph:
    """Return the answer for a variant that was written to a folder: its files and formats."""
    formats = weight_formats(open_graph(out / files[0], weights=False))
    return BuiltGraph(files=tuple(files), formats=formats.by_matrix, weight_bits=formats.bits)


HANDLERS: dict[type, Callable[[Any, Report], BuiltGraph]] = {
    Export: _export,
    Optimize: _optimize,
    Quantize: _quantize,
}
