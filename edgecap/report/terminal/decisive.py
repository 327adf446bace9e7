"""Cautions that can change which variant to ship, the gravest first, each in short words.

The summary of a record prints these and counts all others. Left out is what widens an interval or
explains a number without turning a decision between variants of one record: few documents, a
governor, a load before the run, an assumed architecture.
"""

from __future__ import annotations

from typing import NamedTuple


class ShortCaution(NamedTuple):
    """Message and advice without numbers, for where those of the record do not fit.

    Without advice, that of the record is shown: it depends on the run.
    """

    message: str
    advice: str


_RUN_AGAIN = "run again, or trust only large differences"

DECISIVE = {
    # Numbers of the table are missing.
    "latency-failed": ShortCaution("latency could not be measured", "run again with --debug"),
    "memory-failed": ShortCaution("memory could not be measured", "run again with --debug"),
    "context-failed": ShortCaution("some contexts could not be timed", "ask for shorter ones"),
    # The variant is not what its name promises.
    "divergent": ShortCaution("predictions are far from fp32", ""),
    "decoded-divergence": ShortCaution(
        "decoded tokens are not as far from fp32 as prefilled ones", "scores take the former"
    ),
    "decoded-not-scored": ShortCaution(
        "decoded tokens are closer to fp32 than prefilled ones", "measure fp32 to score that"
    ),
    "fallback": ShortCaution(
        "a part ran on another provider", "these are not the provider's numbers"
    ),
    "no-kv-cache": ShortCaution(
        "the graph keeps no KV cache", "export with past keys and values to deploy it"
    ),
    "no-int8-dot-product": ShortCaution(
        "no int8 dot product here, so little speed", "expect more on a newer processor"
    ),
    "int8-saturates": ShortCaution(
        "no int8 dot product here, so little speed",
        "on x86 set session.x64quantprecision to 1, or sums saturate",
    ),
    "fp16-emulated": ShortCaution(
        "emulated on this processor", "use fp32 or int8; only the file is smaller"
    ),
    "bf16-emulated": ShortCaution(
        "emulated on this processor", "use fp32 or int8; only the file is smaller"
    ),
    "hqq-unpacked": ShortCaution(
        "weights are unpacked to fp32 here", "use int4 or int4b16; only the file is smaller"
    ),
    "graph-too-large": ShortCaution("the graph is larger than it should be", "check the export"),
    "not-lossless": ShortCaution(
        "the tokenizer loses text", "bits per byte are not those of the whole text"
    ),
    "not-fused": ShortCaution("attention is not fused", "try --exporter genai"),
    # Its seconds do not rank it.
    "few-rounds": ShortCaution("too few rounds to tell seconds apart", ""),
    "noisy": ShortCaution("seconds spread widely between rounds", _RUN_AGAIN),
    "bimodal": ShortCaution(
        "seconds fall into two groups", "the median is of one of them; try --affinity"
    ),
    "throttled": ShortCaution("heat slowed the processors down", "cool the machine and run again"),
    "cpu-quota-throttled": ShortCaution(
        "the container's CPU quota stopped it", "raise the quota or lower --threads"
    ),
    "other-load-meanwhile": ShortCaution(
        "other processes used the processors", "close them and run again"
    ),
    "steal": ShortCaution("a hypervisor took processor time", _RUN_AGAIN),
    "board-throttled": ShortCaution("the board's clock was held down", "cool it and run again"),
    "board-busy-meanwhile": ShortCaution("others computed on the board", "end them and run again"),
    "board-busy": ShortCaution("the board was busy before the run", "end what computes on it"),
    # Its joules do not rank it.
    "energy-assumed": ShortCaution("joules are assumed, not measured", "use a counter"),
    "energy-incomplete": ShortCaution(
        "joules lack a part of the machine", "see edgecap doctor, or compare like with like"
    ),
    "energy-counter-unsteady": ShortCaution("the energy counter missed readings", "run again"),
    "energy-shared-board": ShortCaution(
        "joules are also those of others on the board", "end them and run again"
    ),
    "energy-noisy": ShortCaution("joules differ widely between windows", _RUN_AGAIN),
}
GRAVITY = {code: place for place, code in enumerate(DECISIVE)}
