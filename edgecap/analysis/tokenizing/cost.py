"""The cost of a text in each language: tokens times the FLOPs, seconds and joules of a token in a record. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgecap.analysis import metrics
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.analysis.tokenizing.premium import Premium
from edgecap.errors import UsageError
from edgecap.record import Absent, Estimate, Flops, Latency, Measurement, Profile


class CellPrice(msgspec.Struct, frozen=True):
    """What a token costs in a cell: seconds and joules of one decoded, and seconds of one of a prompt.

    `cautions` are the codes of the record's cautions that concern seconds or joules, in the order of the alphabet.
    """

    cell: str
    cautions: tuple[str, ...]
    decode_s: Estimate | Absent
    decode_j: Estimate | Absent
    prompt_token_s: Estimate | Absent


class PriceList(msgspec.Struct, frozen=True):
    """The prices of a record: `flops_per_token` as counted, and each cell's."""

    model: str
    machine: str
    tokenizer: str
    flops_per_token: float | Absent
    prices: tuple[CellPrice, ...]


class Charge(msgspec.Struct, frozen=True):
    """The text in one language in one cell: FLOPs and seconds and joules to write it, seconds to read it."""

    language: str
    cell: str
    tokens: int
    flops: float | Absent
    write_s: Estimate | Absent
    write_j: Estimate | Absent
    read_s: Estimate | Absent


def list_prices(record: Profile, tokenizers: Sequence[LoadedTokenizer]) -> PriceList:
    """The prices of a record. Raises UsageError where it is of another tokenizer than those given, or has no price."""
    opened = next((t for t in tokenizers if t.sha256 == record.source.tokenizer_sha256), None)
    if opened is None:
        raise UsageError(
            f"the record of {record.source.name} is of another tokenizer ({record.source.tokenizer_sha256[:12]}) than "
            f"{', '.join(f'{t.name} ({t.sha256[:12]})' for t in tokenizers)}; give a record of the same model"
        )
    several = len({c.provider for c in record.cells}) > 1
    prices = []
    for cell in record.cells:
        if isinstance(cell.outcome, Measurement):
            found = metrics.estimates(record, cell)
            name = f"{cell.precision} {cell.provider}" if several else cell.precision
            prompt = _of_a_prompt(cell.outcome, found["prefill_s"])
            prices.append(
                CellPrice(
                    name, metrics.cost_cautions(cell), found["decode_s"], found["decode_j"], prompt
                )
            )
    if not prices:
        raise UsageError(f"the record of {record.source.name} has no cell that was measured")
    flops = record.flops.per_token if isinstance(record.flops, Flops) else record.flops
    return PriceList(record.source.name, record.machine.name, opened.name, flops, tuple(prices))


def _of_a_prompt(outcome: Measurement, found: Estimate | Absent) -> Estimate | Absent:
    tokens = outcome.latency.prefill.tokens if isinstance(outcome.latency, Latency) else 1
    return _times(found, 1 / tokens)


def list_charges(prices: PriceList, found: Sequence[Premium]) -> list[Charge]:
    """What the text costs in each language and cell."""
    return [
        Charge(
            one.language,
            price.cell,
            one.tokens,
            prices.flops_per_token
            if isinstance(prices.flops_per_token, Absent)
            else one.tokens * prices.flops_per_token,
            _times(price.decode_s, one.tokens),
            _times(price.decode_j, one.tokens),
            _times(price.prompt_token_s, one.tokens),
        )
        for one in found
        for price in prices.prices
    ]


def _times(found: Estimate | Absent, by: float) -> Estimate | Absent:
    if isinstance(found, Absent):
        return found
    low, high = (None if end is None else end * by for end in (found.low, found.high))
    return Estimate(value=found.value * by, low=low, high=high)
