"""What is asked of one run, checked once: `Spec`, and the cells it unfolds into."""

from __future__ import annotations

import math

import msgspec

from edgecap.errors import UsageError, did_you_mean
from edgecap.provider_options import PROVIDERS, parse_provider

ENERGY = ("auto", "off", "require")
PROTOCOLS = ("exact", "paper")
EXPORTERS = ("optimum", "genai")
LEVELS = ("off", "basic", "extended", "all")  # of the runtime's graph optimisation
# What people type. Only ever longer: a compressed file names its precision by its place here.
PRECISIONS = (
    *(
        "fp32",
        "fp16",
        "int8",
        "int4",
        "bf16",
        "int8w",
        "int4b16",
        "int4b64",
        "int4b128",
        "int8wb128",
        "int4hqq",
    ),
    "int8s",
)
DEFAULT_PRECISIONS = PRECISIONS[:4]

SWEEP_STEPS = 8  # tokens that are decoded behind each context of --context-sweep

DEFAULT_MODEL = "edgecap-ref-xs"
DEFAULT_CORPUS = "edgecap-mixed"


class CellSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cell of a run: a precision on an execution provider."""

    precision: str
    provider: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.provider}"


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run as it was asked for. Empty `precisions` means the default four, or all that an ONNX folder holds.

    `context` positions of a window (None: 1024 or the model's positions), `stride` positions between the
    beginnings of windows that overlap, `documents` at most of the corpus, `bias_bits` bits per token
    (None: the corpus's own), `limit_s` seconds for the rounds of one cell, which go on until half the interval of a median is
    `precision_target` of it, `timeout_s` seconds that a
    child process may say nothing, `threads` intra-op threads (None: the physical cores). `calibrate` measures the machine's peaks
    again, `energy` is auto, off or require (refuse to run without a counter), `assume_watts` stands in for a counter and is
    marked so, `meter` is a wall meter's CSV file whose clock is `meter_offset_s` ahead of ours (None: found), `operators` keeps the share of time of each operator, `context_sweep` positions to time beside.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    corpus: str = DEFAULT_CORPUS
    precisions: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    exporter: str = "optimum"
    optimize: bool = True
    skip_unfit: bool = False
    allow_fallback: bool = False
    protocol: str = "exact"
    context: int | None = None
    stride: int | None = None
    documents: int | None = None
    bias_bits: float | None = None
    threads: int | None = None
    affinity: tuple[int, ...] = ()
    graph_level: str = "all"
    arena: bool = True
    limit_s: float = 30.0
    precision_target: float = 0.03
    timeout_s: float = 3600.0
    trust_remote_code: bool = False
    energy: str = "auto"
    assume_watts: float | None = None
    meter: str | None = None
    meter_offset_s: float | None = None
    calibrate: bool = False
    operators: bool = False
    context_sweep: tuple[int, ...] | None = None
    batches: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for name in self.precisions:
            _known("precision", name, PRECISIONS)
        for asked in self.providers:
            if parse_provider(asked).options and asked.startswith("cpu:"):
                raise UsageError(
                    f"--provider {asked}: cpu takes no options; --threads, --affinity and others are edgecap's"
                )
        _known("protocol", self.protocol, PROTOCOLS)
        _at_least("--context", self.context, 2)
        _at_least("--stride", self.stride, 1)
        _at_least("--documents", self.documents, 1)
        if self.stride and self.protocol == "paper":
            raise UsageError(
                "--stride belongs to the exact protocol; the paper's has one window a document"
            )
        _known("--energy", self.energy, ENERGY)
        _at_least("--assume-watts", self.assume_watts, 0.001, most=1e6)
        if self.meter_offset_s is not None and not (
            self.meter and math.isfinite(self.meter_offset_s)
        ):
            raise UsageError(
                "--meter-offset is the seconds that the clock of a --meter FILE is ahead of this one"
            )
        if self.energy == "off" and (self.meter or self.assume_watts):
            raise UsageError("--energy off measures none: give neither --meter nor --assume-watts")
        if self.assume_watts and (self.meter or self.energy == "require"):
            raise UsageError(
                "--assume-watts is for machines without a counter: give neither --meter nor --energy require"
            )
        _known("exporter", self.exporter, EXPORTERS)
        _known("graph optimisation", self.graph_level, LEVELS)
        for context in self.context_sweep or ():
            _at_least("--context-sweep", context, 1)
        for option, numbers in (("--batch", self.batches), ("--streams", self.streams)):
            for number in numbers:
                _at_least(option, number, 1, most=4096)
            if not numbers:
                raise UsageError(f"{option} needs at least one number")
        for processor in self.affinity:
            _at_least("--affinity", processor, 0)
        _at_least("--threads", self.threads, 1)
        _at_least("--limit", self.limit_s, 0.1)
        if not 0 < self.precision_target < 1:
            raise UsageError(
                f"--precision-target {self.precision_target} must be a share above 0 and below 1, as 0.03"
            )
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


def split_steps(text: str, option: str) -> tuple[int, ...]:
    """`"128,512"`, `"128:1024:x2"` or `"128:512:+128"` -> whole numbers, rising. Raises UsageError."""
    try:
        first, *rest = text.split(":")
        if not rest:
            return tuple(sorted({int(part) for part in text.split(",")}))
        step = rest[1] if rest[1:] else "x2"
        found = _stepped(int(first), int(rest[0]), step[0], int(step[1:]))
    except (ValueError, IndexError):
        found = ()
    if not found:
        raise UsageError(
            f"{option} {text}: write 128,512,2048 or FIRST:LAST:xFACTOR or FIRST:LAST:+STEP"
        )
    return found


def split_numbers(text: str, option: str) -> tuple[int, ...]:
    """`"0,2-3"` -> `(0, 2, 3)`. Raises UsageError."""
    found: set[int] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part.partition("-")
        if (
            not first.isdigit()
            or (dash and not last.isdigit())
            or int(last or first) - int(first) not in range(4096)
        ):
            raise UsageError(f"{option} {text}: write whole numbers from 0, as 0,2 or 0-3")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _stepped(begin: int, end: int, sign: str, by: int) -> tuple[int, ...]:
    if (
        sign not in "x+"
        or by < (2 if sign == "x" else 1)
        or not 1 <= begin <= end
        or (end - begin) / by > 1e5
    ):
        return ()
    found, at = [], begin
    while at <= end:
        found.append(at)
        at = at * by if sign == "x" else at + by
    return tuple(found)


def _known(what: str, name: str, known: tuple[str, ...] | dict[str, str]) -> None:
    if name not in known:
        raise UsageError(
            f"unknown {what} '{name}' (known: {', '.join(known)}){did_you_mean(name, known)}"
        )


def _at_least(option: str, value: float | None, least: float, most: float = 1e9) -> None:
    if value is not None and not least <= value <= most:
        raise UsageError(f"{option} {value} must be a number from {least:g} to {most:g}")
