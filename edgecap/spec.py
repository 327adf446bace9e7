"""What is asked of one run, checked once: `Spec`, and the cells it unfolds into."""

from __future__ import annotations

import math

import msgspec

from edgecap.errors import UsageError, did_you_mean

PROTOCOLS = ("exact", "paper")
PRECISIONS = ("fp32", "fp16", "int8", "int4")

# The name people type -> ONNX Runtime's execution provider. Data only: nothing branches on a name.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}

DEFAULT_MODEL = "edgecap-ref-xs"
DEFAULT_CORPUS = "edgecap-mixed"


class CellSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cell of a run: a precision on an execution provider."""

    precision: str
    provider: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.provider}"


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run as it was asked for. Empty `precisions` means all that the model offers.

    `context` positions of a window (None: 1024 or the model's positions), `stride` positions between the
    beginnings of windows that overlap, `documents` at most of the corpus, `bias_bits` bits per token
    (None: the corpus's own), `limit_s` seconds for the rounds of one cell, `timeout_s` seconds that a
    child process may say nothing, `threads` intra-op threads (None: the physical cores).
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    corpus: str = DEFAULT_CORPUS
    precisions: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    protocol: str = "exact"
    context: int | None = None
    stride: int | None = None
    documents: int | None = None
    bias_bits: float | None = None
    threads: int | None = None
    limit_s: float = 30.0
    timeout_s: float = 3600.0
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in self.precisions:
            _known("precision", name, PRECISIONS)
        for name in self.providers:
            _known("provider", name, PROVIDERS)
        _known("protocol", self.protocol, PROTOCOLS)
        _at_least("--context", self.context, 2)
        _at_least("--stride", self.stride, 1)
        _at_least("--documents", self.documents, 1)
        if self.stride and self.protocol == "paper":
            raise UsageError("--stride belongs to the exact protocol; the paper's has one window a document")
        _at_least("--threads", self.threads, 1)
        _at_least("--limit", self.limit_s, 0.1)
        _at_least("--timeout", self.timeout_s, 1, most=1e6)
        if not self.providers:
            raise UsageError(f"no provider given; known: {', '.join(PROVIDERS)}")
        if self.bias_bits is not None and not math.isfinite(self.bias_bits):
            raise UsageError(f"--bias {self.bias_bits} is not a finite number of bits per token")


def cells(precisions: tuple[str, ...], providers: tuple[str, ...]) -> list[CellSpec]:
    """Precision x provider, each once, in the order asked."""
    return [CellSpec(p, e) for e in dict.fromkeys(providers) for p in dict.fromkeys(precisions)]


def split_names(text: str) -> tuple[str, ...]:
    """`"fp32, int8"` -> `("fp32", "int8")`."""
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _known(what: str, name: str, known: tuple[str, ...] | dict[str, str]) -> None:
    if name not in known:
        raise UsageError(f"unknown {what} '{name}' (known: {', '.join(known)}){did_you_mean(name, known)}")


def _at_least(option: str, value: float | None, least: float, most: float = 1e9) -> None:
    if value is not None and not least <= value <= most:
        raise UsageError(f"{option} {value} must be a number from {least:g} to {most:g}")
