"""Records of a made-up series: a real record's documents,
with the bits that models of other sizes would need.
"""

import math

import msgspec
from conftest import ROOT

from edgecap.analysis import score
from edgecap.analysis.roofline import compute_roofline
from edgecap.model import flops
from edgecap.record import Absent, Measurement
from edgecap.storage.records import load

BASE = load(ROOT / "tests" / "data" / "record-5.json")
replace = msgspec.structs.replace


def bits(text, gain, wobble=0.0):
    """The text with so many bits gained a token;
    `wobble` moves every second document up and the others down.
    """
    wanted = text.text_bits_per_token - gain
    factor = wanted / text.nll_bits_per_token
    documents = tuple(
        replace(d, nll_bits=d.nll_bits * factor * (1 + wobble * (-1) ** n))
        for n, d in enumerate(text.per_document)
    )
    needed = sum(d.nll_bits for d in documents) / text.tokens
    return replace(
        text,
        per_document=documents,
        nll_bits_per_token=needed,
        gain_bits_per_token=text.text_bits_per_token - needed,
        bits_per_byte=needed * text.tokens / text.bytes,
    )


def text(documents=24, tokens=100, size=400, needed=8.0, base=BASE):
    """Documents of about so many tokens and bytes that need about `needed` bits a
    token, none like another.
    """
    old = base.cells[0].outcome.compression
    pattern = old.per_document[0]
    made = tuple(
        replace(
            pattern,
            id=f"d{n}",
            tokens=tokens + n,
            bytes=size + 7 * n,
            nll_bits=needed * (tokens + n) * (1 + 0.1 * math.sin(n)),
        )
        for n in range(documents)
    )
    total, count, nll = (
        sum(getattr(d, name) for d in made) for name in ("bytes", "tokens", "nll_bits")
    )
    return replace(
        old,
        per_document=made,
        documents=documents,
        bytes=total,
        tokens=count,
        text_bits_per_token=8 * total / count,
        nll_bits_per_token=nll / count,
        gain_bits_per_token=(8 * total - nll) / count,
        bits_per_byte=nll / total,
    )


TEXT = text()


def architecture(hidden, layers=4, like=BASE):
    """A LLaMA of another width and depth with the tokenizer of the base."""
    from edgecap.model.architecture import read_architecture

    return read_architecture(config(hidden, layers, like))


def config(hidden, layers=4, like=BASE):
    """Its config.json, as a dict."""
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": like.source.architecture.vocabulary,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }


def model(name, gain, work=None, hidden=128, wobble=0.0, base=BASE, scored=None, **changes):
    """A record of a model that gains so many bits a token and costs 2^`work` FLOPs,
    or what its architecture costs.
    """
    shape = architecture(hidden, like=base)
    counted = flops.count_flops(shape, 1024, 512)
    if work is not None:
        counted = replace(counted, per_token=2.0**work)
    source = replace(
        base.source, name=name, weights_sha256=f"weights of {name}", architecture=shape
    )
    found = bits(scored or TEXT, gain, wobble)
    cells = []
    for cell in base.cells:
        if isinstance(cell.outcome, Measurement):
            cell = replace(cell, outcome=replace(cell.outcome, compression=found))
        cells.append(cell)
    return replace(base, source=source, flops=counted, cells=tuple(cells), **changes)


def timed(record, efficiency, joules_per_s=None, energy=None):
    """The record with seconds that reach a share of its roofline,
    and joules where watts are given.
    """
    cells = []
    for cell in record.cells:
        outcome = cell.outcome
        if not isinstance(outcome, Measurement):
            cells.append(cell)
            continue
        made = _timed(record, cell, efficiency)
        if joules_per_s is not None:
            seconds = made.outcome.latency.decode.samples_s[0]
            made = replace(
                made, outcome=replace(made.outcome, energy=energy(joules_per_s * seconds))
            )
        cells.append(made)
    return replace(record, cells=tuple(cells))


def _timed(record, cell, efficiency):
    shape, found = record.source.architecture, cell.outcome
    stored = flops.storage_precision(cell.precision)
    moved = flops.read_bytes(shape, stored)
    width = 2.0 if cell.precision == "fp16" else 4.0
    context, prompt = int(found.latency.decode.context), found.latency.prefill.tokens
    decode = replace(
        found.work.decode,
        weight_bytes=moved,
        cache_bytes=int(context * flops.kv_bytes_per_token(shape, width)),
    )
    prefill = replace(
        found.work.prefill,
        weight_bytes=flops.read_bytes(shape, stored, prompt),
        cache_bytes=int(prompt * flops.kv_bytes_per_token(shape, width)),
    )
    outcome = replace(found, work=replace(found.work, decode=decode, prefill=prefill))
    bound = compute_roofline(outcome, record.flops, record.peaks[cell.provider], cell.precision)
    assert not isinstance(bound, Absent)
    latency = replace(
        found.latency,
        decode=replace(
            found.latency.decode,
            samples_s=(bound.decode.attainable_s / efficiency,) * 8,
            rounds=tuple(range(8)),
        ),
        prefill=replace(
            found.latency.prefill,
            samples_s=(bound.prefill.attainable_s / efficiency,) * 8,
            rounds=tuple(range(8)),
        ),
    )
    outcome = replace(outcome, latency=latency)
    bound = compute_roofline(outcome, record.flops, record.peaks[cell.provider], cell.precision)
    return replace(
        cell, outcome=outcome, roofline=bound, score=score.score(outcome, record.flops, 0.0)
    )
