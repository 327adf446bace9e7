"""`Spec`: the request for one run, checked once, and the cells it unfolds into.

Messages name fields in backticks (`limit_s`); the command line writes the option instead (--limit).
"""

from __future__ import annotations

import math

import msgspec

from edgecap.errors import UsageError, did_you_mean
from edgecap.provider_options import HALF_PROVIDERS, PROVIDERS, base_name, parse_provider

ENERGY = ("auto", "off", "require")
PROTOCOLS = ("exact", "paper")
EXPORTERS = ("optimum", "genai")
LEVELS = ("off", "basic", "extended", "all")  # of the runtime's graph optimisation
# Names that people type. Append only: a compressed file stores a precision by its index here.
PRECISIONS = (
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
    "int8s",
    "int8d",
    "int4b32",
    "int4s",
    "tuned",
    "w8a16",
    "w4a16",
    "w8a32",
    "w4a32",
)
TUNED = "tuned"  # a variant that `edgecap tune` wrote
DEFAULT_PRECISIONS = PRECISIONS[:4]
HALF_PRECISIONS = PRECISIONS[1:4]  # default on providers that compute in fp16
# Up to schema 6 of records, these names meant the recipes that now have other names.
RENAMED = {"int8": "int8d", "int4": "int4b32"}

UNLIMITED = 1e9  # a limit that no message names
LIMIT_S, QUICK_LIMIT_S = 30.0, 8.0  # for the latency rounds of a cell
SWEEP_STEPS = 8  # tokens that are decoded behind each context of --context-sweep
SWEEP_SHARE = 1 / 3  # of the time limit of a cell, for these contexts

DEFAULT_MODEL = "edgecap-ref-xs"
DEFAULT_CORPUS = "edgecap-mixed"
CALIBRATION_CORPUS = "edgecap-calibration"  # variants are fitted to it, and nothing is scored on it


class CellSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cell of a run: a precision on an execution provider."""

    precision: str
    provider: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.provider}"


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The request for one run. Raise UsageError if a field is out of range.

    `precisions`        variants; empty: the usual ones of the provider, or all that an ONNX folder
                        holds
    `context`           positions of a window; None: 1024 or the model's positions
    `stride`            positions between the starts of overlapping windows
    `documents`         score only the first so many documents of the corpus
    `bias_bits`         bits per token; None: the bias of the corpus
    `law`               card of a series of models whose law holds here; None: that of the corpus
    `quick`             measure an excerpt of the text, a short prompt, and few rounds
    `details`           measure what only details show: the usual further contexts
    `limit_s`           seconds for the latency rounds of one cell, which end earlier when half the
                        interval of a median is at most `precision_target` of the median; None:
                        30, of a `quick` run 8
    `precision_target`  None: 0.03, or when it is sure which cells are better than the baseline
    `timeout_s`         seconds without progress after which a child process is ended
    `threads`           intra-op threads; None: the physical cores
    `calibrate`         measure the machine's peaks again
    `energy`            auto, off, or require: refuse to run without an energy counter
    `assume_watts`      constant power in place of a counter; results are marked as assumed
    `meter`             CSV file of a wall meter
    `meter_offset_s`    seconds that the clock of `meter` is ahead; None: detect it
    `operators`         store the share of time of each operator
    `context_sweep`     further contexts, in positions, at which latency is measured; None: none,
                        with `details` the usual ones
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
    law: str | None = None
    threads: int | None = None
    affinity: tuple[int, ...] = ()
    graph_level: str = "all"
    arena: bool = True
    quick: bool = False
    details: bool = False
    limit_s: float | None = None
    precision_target: float | None = None
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
        if self.limit_s is None:  # so that the record says which limit held
            usual = QUICK_LIMIT_S if self.quick else LIMIT_S
            msgspec.structs.force_setattr(self, "limit_s", usual)
        self._check_names()
        self._check_ranges()
        self._check_energy()
        self._check_quick()

    def _check_names(self) -> None:
        for name in self.precisions:
            _check_known("precision", name, PRECISIONS)
        for provider in self.providers:
            if parse_provider(provider).options and provider.startswith("cpu:"):
                raise UsageError(
                    f"`providers` {provider}: cpu takes no options; use `threads`, `affinity`, "
                    "`arena` or `graph_level`"
                )
        _check_known("protocol", self.protocol, PROTOCOLS)
        _check_known("`energy`", self.energy, ENERGY)
        _check_known("exporter", self.exporter, EXPORTERS)
        _check_known("graph optimisation", self.graph_level, LEVELS)
        if not self.providers:
            raise UsageError(f"no provider given; known: {', '.join(PROVIDERS)}")

    def _check_ranges(self) -> None:
        _check_range("context", self.context, 2)
        _check_range("stride", self.stride, 1)
        _check_range("documents", self.documents, 1)
        if self.stride and self.protocol == "paper":
            raise UsageError(
                "`stride` belongs to the exact protocol; the paper's has one window per document"
            )
        for context in self.context_sweep or ():
            _check_range("context_sweep", context, 1)
        for field, numbers in (("batches", self.batches), ("streams", self.streams)):
            for number in numbers:
                _check_range(field, number, 1, most=4096)
            if not numbers:
                raise UsageError(f"`{field}` needs at least one number")
        for processor in self.affinity:
            _check_range("affinity", processor, 0)
        _check_range("threads", self.threads, 1)
        _check_range("limit_s", self.limit_s, 0.1)
        if self.precision_target is not None and not 0 < self.precision_target < 1:
            raise UsageError(
                f"`precision_target` {self.precision_target} must be a share above 0 and below 1, "
                "as 0.03"
            )
        _check_range("timeout_s", self.timeout_s, 1, most=1e6)
        if self.bias_bits is not None and not math.isfinite(self.bias_bits):
            raise UsageError(
                f"`bias_bits` {self.bias_bits} is not a finite number of bits per token"
            )

    def _check_quick(self) -> None:
        """Raise UsageError for a way of scoring whole documents: a quick run scores pieces."""
        if self.quick and self.stride:
            raise UsageError(
                "`stride` gives the tokens of long documents more context, and `quick` scores "
                "short pieces: leave one of them out"
            )
        if self.quick and self.protocol == "paper":
            raise UsageError(
                "`protocol` paper repeats published numbers of whole documents, and `quick` scores "
                "pieces of them: leave one of them out"
            )

    def _check_energy(self) -> None:
        _check_range("assume_watts", self.assume_watts, 0.001, most=1e6)
        offset = self.meter_offset_s
        if offset is not None and not (self.meter and math.isfinite(offset)):
            raise UsageError(
                "`meter_offset_s` needs a `meter` file: it is the seconds that its clock is ahead"
            )
        if self.energy == "off" and (self.meter or self.assume_watts):
            raise UsageError(
                "`energy` off measures no energy: give neither `meter` nor `assume_watts`"
            )
        if self.assume_watts and (self.meter or self.energy == "require"):
            raise UsageError(
                "`assume_watts` is for machines without a counter: "
                "give neither `meter` nor `energy` require"
            )


def cells(precisions: tuple[str, ...], providers: tuple[str, ...]) -> list[CellSpec]:
    """Combine each precision with each provider, without repeats, provider outermost."""
    return [CellSpec(p, e) for e in dict.fromkeys(providers) for p in dict.fromkeys(precisions)]


def usual_cells(providers: tuple[str, ...]) -> list[CellSpec]:
    """Combine each provider with its usual precisions, provider outermost."""
    return [c for e in dict.fromkeys(providers) for c in cells(usual_precisions(e), (e,))]


def usual_precisions(provider: str) -> tuple[str, ...]:
    """Return the precisions that are measured on a provider if none is given."""
    return HALF_PRECISIONS if base_name(provider) in HALF_PROVIDERS else DEFAULT_PRECISIONS


def _check_known(noun: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(
            f"unknown {noun} '{name}' (known: {', '.join(known)}){did_you_mean(name, known)}"
        )


def _check_range(field: str, value: float | None, least: float, most: float = UNLIMITED) -> None:
    if value is not None and not least <= value <= most:
        limits = f"at least {least:g}" if most == UNLIMITED else f"from {least:g} to {most:g}"
        raise UsageError(f"`{field}` {value} must be a number {limits}")
