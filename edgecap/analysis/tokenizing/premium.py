"""The token premium of languages: tokens of a text over those of the same text in English, and what they cost.

    premium = tokens of the language / tokens of English        Petrov et al. 2023, arXiv 2305.15425

The tokens are those of the pieces of the text, each encoded by itself. A language with more or fewer pieces than English
has another text, and no premium. Pieces are resampled in pairs for the 95 % interval. Costs are tokens times what a token costs in a record: FLOPs as
counted, seconds and joules as measured there, whatever the position of the token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import metrics
from edgecap.analysis.tokenizing import writing
from edgecap.analysis.tokenizing.opening import Opened
from edgecap.analysis.tokenizing.parallel import Parallel, Version
from edgecap.analysis.tokenizing.usage import share_of
from edgecap.errors import UsageError
from edgecap.record import Absent, Estimate, Flops, Latency, Measurement, Profile


class Premium(msgspec.Struct, frozen=True, kw_only=True):
    """A language under a tokenizer; `script` are the scripts of at least a tenth of its letters, joined by `+`.

    Bytes are UTF-8, characters code points. `lossless` says that every piece decodes to what it was.
    """

    language: str
    name: str
    script: str
    pieces: int
    bytes: int
    characters: int
    tokens: int
    premium: Estimate
    bytes_per_token: float
    tokens_per_character: float
    byte_fallback_share: float
    unknown_share: float
    lossless: bool


class Group(msgspec.Struct, frozen=True):
    """Languages of one script: how many, and their median, least and largest premium."""

    script: str
    languages: int
    median: float
    least: float
    largest: float


class _Read(NamedTuple):
    """One language under one tokenizer: tokens of each piece, and how often each token."""

    sizes: list[int]
    ids: Counter[int]
    lossless: bool


def premiums(opened: Opened, text: Parallel) -> list[Premium]:
    """The premium of each language with as many pieces as English, in the order of the file; English has 1.

    Raises UsageError where the tokenizer makes no token of the English text.
    """
    english = _read(opened, text.english)
    if not sum(english.sizes):
        raise UsageError(f"the tokenizer of {opened.name} makes no token of the English text")
    return [_premium(opened, version, _read(opened, version), english) for version in text.alike]


def _read(opened: Opened, version: Version) -> _Read:
    found = [opened.tokenizer.encode(piece) for piece in version.pieces]
    lossless = all(
        opened.tokenizer.is_lossless(p, ids) for p, ids in zip(version.pieces, found, strict=True)
    )
    return _Read([len(ids) for ids in found], Counter(i for ids in found for i in ids), lossless)


def _premium(opened: Opened, version: Version, found: _Read, english: _Read) -> Premium:
    written = writing.look_at("\n".join(version.pieces))
    size, characters = sum(len(p.encode()) for p in version.pieces), sum(map(len, version.pieces))
    tokens = sum(found.sizes)
    unknown = frozenset() if opened.pieces.unknown is None else frozenset({opened.pieces.unknown})
    return Premium(
        language=version.language,
        name=version.name,
        script="+".join(written.scripts) or "none",
        pieces=len(version.pieces),
        bytes=size,
        characters=characters,
        tokens=tokens,
        premium=_ratio(found.sizes, english.sizes),
        bytes_per_token=size / max(1, tokens),
        tokens_per_character=tokens / max(1, characters),
        byte_fallback_share=share_of(found.ids, opened.pieces.parts),
        unknown_share=share_of(found.ids, unknown),
        lossless=found.lossless,
    )


def _ratio(sizes: Sequence[int], english: Sequence[int]) -> Estimate:
    import numpy as np

    draws = None
    if len(english) > 1:
        sums = stats.draws_of_sums(np.array([sizes, english], np.float64).T)
        draws = sums[:, 0] / sums[:, 1].clip(1)
    found = stats.interval(sum(sizes) / sum(english), draws)
    return Estimate(value=found.value, low=found.low, high=found.high)


def by_script(found: Sequence[Premium]) -> list[Group]:
    """The languages by script, the cheapest script first."""
    groups: dict[str, list[float]] = {}
    for one in found:
        groups.setdefault(one.script, []).append(one.premium.value)
    made = [Group(s, len(v), stats.median(v), min(v), max(v)) for s, v in groups.items()]
    return sorted(made, key=lambda group: group.median)


# --- what the tokens cost ---------------------------------------------------------------------


class Price(msgspec.Struct, frozen=True):
    """What a token costs in a cell: seconds and joules of one decoded, and seconds of one of a prompt.

    `cautions` are the codes of the record's cautions that concern seconds or joules, in the order of the alphabet.
    """

    cell: str
    cautions: tuple[str, ...]
    decode_s: Estimate | Absent
    decode_j: Estimate | Absent
    prompt_token_s: Estimate | Absent


class Bill(msgspec.Struct, frozen=True):
    """The prices of a record: `flops_per_token` as counted, and each cell's."""

    model: str
    machine: str
    tokenizer: str
    flops_per_token: float | Absent
    prices: tuple[Price, ...]


class Charge(msgspec.Struct, frozen=True):
    """The text in one language in one cell: FLOPs and seconds and joules to write it, seconds to read it."""

    language: str
    cell: str
    tokens: int
    flops: float | Absent
    write_s: Estimate | Absent
    write_j: Estimate | Absent
    read_s: Estimate | Absent


def bill(record: Profile, tokenizers: Sequence[Opened]) -> Bill:
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
                Price(
                    name, metrics.cost_cautions(cell), found["decode_s"], found["decode_j"], prompt
                )
            )
    if not prices:
        raise UsageError(f"the record of {record.source.name} has no cell that was measured")
    flops = record.flops.per_token if isinstance(record.flops, Flops) else record.flops
    return Bill(record.source.name, record.machine.name, opened.name, flops, tuple(prices))


def _of_a_prompt(outcome: Measurement, found: Estimate | Absent) -> Estimate | Absent:
    tokens = outcome.latency.prefill.tokens if isinstance(outcome.latency, Latency) else 1
    return _times(found, 1 / tokens)


def charges(bill: Bill, found: Sequence[Premium]) -> list[Charge]:
    """What the text costs in each language and cell."""
    return [
        Charge(
            one.language,
            price.cell,
            one.tokens,
            bill.flops_per_token
            if isinstance(bill.flops_per_token, Absent)
            else one.tokens * bill.flops_per_token,
            _times(price.decode_s, one.tokens),
            _times(price.decode_j, one.tokens),
            _times(price.prompt_token_s, one.tokens),
        )
        for one in found
        for price in bill.prices
    ]


def _times(found: Estimate | Absent, by: float) -> Estimate | Absent:
    if isinstance(found, Absent):
        return found
    low, high = (None if end is None else end * by for end in (found.low, found.high))
    return Estimate(value=found.value * by, low=low, high=high)
