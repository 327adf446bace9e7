"""The cost of a text in each language: its tokens times the cost of a token in a record.

FLOPs are as counted, seconds and joules as measured there, whatever the position of the token.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgecap.analysis import metrics
from edgecap.analysis.cell_labels import record_devices
from edgecap.analysis.outcomes import cost_cautions
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.analysis.tokenizing.premium import Premium
from edgecap.errors import UsageError
from edgecap.record import Absent, Estimate, Flops, Latency, Measurement, Profile


class CellPrice(msgspec.Struct, frozen=True):
    """Cost of a token in a cell: seconds and joules to decode it, seconds to read it in a prompt.

    `cautions` are the codes of the record's cautions on seconds or joules, in alphabetical order.
    """

    cell: str
    cautions: tuple[str, ...]
    decode_s: Estimate | Absent
    decode_j: Estimate | Absent
    prompt_token_s: Estimate | Absent


class PriceList(msgspec.Struct, frozen=True):
    """The prices of a record: FLOPs per token as counted, and the prices of each cell."""

    model: str
    machine: str
    tokenizer: str
    flops_per_token: float | Absent
    prices: tuple[CellPrice, ...]


class Charge(msgspec.Struct, frozen=True):
    """Cost of the text in one language and cell: to write it, and seconds to read it."""

    language: str
    cell: str
    tokens: int
    flops: float | Absent
    write_s: Estimate | Absent
    write_j: Estimate | Absent
    read_s: Estimate | Absent


def list_prices(record: Profile, tokenizers: Sequence[LoadedTokenizer]) -> PriceList:
    """Return the prices of a record.

    Raises UsageError if the record has another tokenizer than those given, or no measured cell.
    """
    opened = next((t for t in tokenizers if t.sha256 == record.source.tokenizer_sha256), None)
    if opened is None:
        raise UsageError(
            f"the record of {record.source.name} is of another tokenizer "
            f"({record.source.tokenizer_sha256[:12]}) than "
            f"{', '.join(f'{t.name} ({t.sha256[:12]})' for t in tokenizers)}; "
            "give a record of the same model"
        )
    several_providers = len({c.provider for c in record.cells}) > 1
    prices = []
    for cell in record.cells:
        if isinstance(cell.outcome, Measurement):
            estimates = metrics.estimates(record, cell)
            name = f"{cell.precision} {cell.provider}" if several_providers else cell.precision
            prompt = _prompt_token_s(cell.outcome, estimates["prefill_s"])
            prices.append(
                CellPrice(
                    name,
                    cost_cautions(cell),
                    estimates["decode_s"],
                    estimates["decode_j"],
                    prompt,
                )
            )
    if not prices:
        raise UsageError(f"the record of {record.source.name} has no cell that was measured")
    flops = record.flops.per_token if isinstance(record.flops, Flops) else record.flops
    (device,) = record_devices([record])
    return PriceList(record.source.name, device, opened.name, flops, tuple(prices))


def _prompt_token_s(outcome: Measurement, prefill_s: Estimate | Absent) -> Estimate | Absent:
    tokens = outcome.latency.prefill.tokens if isinstance(outcome.latency, Latency) else 1
    return _scale(prefill_s, 1 / tokens)


def list_charges(prices: PriceList, premiums: Sequence[Premium]) -> list[Charge]:
    """Return the cost of the text in each language and cell."""
    return [
        Charge(
            premium.language,
            price.cell,
            premium.tokens,
            prices.flops_per_token
            if isinstance(prices.flops_per_token, Absent)
            else premium.tokens * prices.flops_per_token,
            _scale(price.decode_s, premium.tokens),
            _scale(price.decode_j, premium.tokens),
            _scale(price.prompt_token_s, premium.tokens),
        )
        for premium in premiums
        for price in prices.prices
    ]


def _scale(price: Estimate | Absent, factor: float) -> Estimate | Absent:
    if isinstance(price, Absent):
        return price
    low, high = (None if end is None else end * factor for end in (price.low, price.high))
    return Estimate(value=price.value * factor, low=low, high=high)
