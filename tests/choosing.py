"""Cells and records with figures set by hand, for the tests of recommend and routing."""

import msgspec
from samples import ENERGY, RECORD, with_outcome

from edgecap.analysis.score import score
from edgecap.record import Absent, DocumentBits, Failure, Gpu, Window

BOARD = Gpu(name="NVIDIA H100", driver="570", memory_bytes=80 * 10**9, users=0)
NO_ENERGY = Absent(reason="no counter here")


def joules(each, provenance="counter"):
    """An energy of so many joules a decoded token."""
    window = Window(joules=500 * each, seconds=2.0, tokens=500)
    return msgspec.structs.replace(ENERGY, decode=(window,) * 3, provenance=provenance)


def steady(part, seconds):
    samples = seconds if isinstance(seconds, tuple) else (seconds,) * 8
    return msgspec.structs.replace(part, samples_s=samples, rounds=tuple(range(len(samples))))


def scored(text, bits_per_byte):
    """The same documents, with another number of bits for each byte."""
    factor = bits_per_byte / text.bits_per_byte
    documents = tuple(
        msgspec.structs.replace(d, nll_bits=d.nll_bits * factor) for d in text.per_document
    )
    nll = text.nll_bits_per_token * factor
    return msgspec.structs.replace(
        text,
        per_document=documents,
        bits_per_byte=bits_per_byte,
        nll_bits_per_token=nll,
        gain_bits_per_token=text.text_bits_per_token - nll,
    )


def cell(
    precision="fp32",
    *,
    decode=0.004,
    ttft=0.25,
    bits=2.0,
    peak=3000,
    file=4000,
    energy=NO_ENERGY,
    **changes,
):
    """A cell with these figures; `decode` may be seconds of several rounds."""
    base = RECORD.cells[0]
    latency, memory = base.outcome.latency, base.outcome.memory
    made = with_outcome(
        base,
        compression=scored(base.outcome.compression, bits),
        latency=msgspec.structs.replace(
            latency, decode=steady(latency.decode, decode), prefill=steady(latency.prefill, ttft)
        ),
        memory=msgspec.structs.replace(memory, peak_bytes=peak, file_bytes=file),
        energy=energy,
    )
    judged = score(made.outcome, RECORD.flops, 0.0)
    return msgspec.structs.replace(made, precision=precision, score=judged, cautions=(), **changes)


def failed(precision="int4"):
    return msgspec.structs.replace(
        RECORD.cells[0],
        precision=precision,
        outcome=Failure(stage="latency", error="Crash", message="signal 9"),
    )


def encoder(precision="fp32", ttft=0.1):
    """A cell of an encoder: nothing is scored or decoded."""
    nothing = Absent(reason="an encoder does not decode")
    made = cell(precision, ttft=ttft)
    latency = msgspec.structs.replace(made.outcome.latency, decode=nothing)
    made = with_outcome(
        made, compression=Absent(reason="an encoder predicts no next token"), latency=latency
    )
    return msgspec.structs.replace(made, score=nothing)


def record(*cells, **changes):
    return msgspec.structs.replace(RECORD, cells=cells, **changes)


def renamed(found, model=None, machine=None):
    source = msgspec.structs.replace(found.source, name=model or found.source.name)
    place = msgspec.structs.replace(found.machine, name=machine or found.machine.name)
    return msgspec.structs.replace(found, source=source, machine=place)


def rebuilt(found, **parts):
    """The record, measured on a machine of the same name with other parts in it."""
    return msgspec.structs.replace(found, machine=msgspec.structs.replace(found.machine, **parts))


def documents(cell_, *rows):
    """The cell with documents of (domain, bytes, tokens, bits)."""
    found = tuple(
        DocumentBits(id=f"d{n}", domain=domain, bytes=size, tokens=tokens, nll_bits=bits)
        for n, (domain, size, tokens, bits) in enumerate(rows)
    )
    total, tokens, bits = (
        sum(getattr(d, name) for d in found) for name in ("bytes", "tokens", "nll_bits")
    )
    text = msgspec.structs.replace(
        cell_.outcome.compression,
        per_document=found,
        documents=len(found),
        bytes=total,
        tokens=tokens,
        bits_per_byte=bits / total,
    )
    return with_outcome(cell_, compression=text)
