#!/usr/bin/env python3
"""Writes every number that the pages take from records: python scripts/pages.py

From profiles/, the cards of models/ and the published figure (edgecap/data/published.csv) into the marked places
of README.md and docs/, and the card of the bundled corpus. A test fails until they agree.
"""

import functools
import math
import re
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
import numpy as np

import edgecap
from edgecap.analysis import published
from edgecap.analysis.fitting import Fit, fit, make_card
from edgecap.analysis.fitting.bias import best_bias, capacities, kendall_tau, ranks, spread
from edgecap.analysis.outcomes import compression_of, energy_of, failure_of, latency_of, status
from edgecap.analysis.predicting import predict
from edgecap.analysis.predicting.bits import fit_law, law_half_width, predict_left_out
from edgecap.analysis.score import Quantity, decode_joules, decode_seconds, prefill_seconds
from edgecap.errors import RecordError, UsageError
from edgecap.record import Absent, Architecture, Cell, Estimate, Flops, Graph, Measurement, Profile
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.summary import summary
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL, DEFAULT_PRECISIONS
from edgecap.text import bias_card
from edgecap.text.corpus import read_corpus
from edgecap.units import si

ROOT = Path(__file__).parent.parent
PROFILES, MODELS, CORPUS = (
    ROOT / "profiles",
    ROOT / "models",
    ROOT / "edgecap" / "data" / "edgecap-mixed.jsonl",
)
SERIES, BIASES = "edgecap-ref-", (0, -20, -22, -24, -26, -28, -30)
MEASURED = (("fp32", "cpu"), ("fp16", "cuda"))  # the bias is fitted on the first
WORK = ("decode", "prefill", "joules a decoded token")

Series = list[tuple[str, float, float]]  # name, log2 of the FLOPs, bits gained a token


def published_series() -> dict[str, Series]:
    """The series of the published figure."""
    return {
        name: [(p.model, math.log2(p.flops_per_token), p.gain_bits_per_token) for p in points]
        for name, points in published.published_series().items()
    }


@functools.cache
def records_in(pattern: str) -> tuple[tuple[Path, Profile], ...]:
    """The records of `profiles/` by their names."""
    return tuple((path, edgecap.load(path)) for path in sorted(PROFILES.glob(pattern)))


def reference_records(precision: str, provider: str) -> list[Profile]:
    """The latest record of each size of the reference series on the bundled corpus that was timed in such a cell."""
    found, whole = dict[str, Profile](), read_corpus(DEFAULT_CORPUS).sha256
    for _, record in records_in("reference/*.json"):
        if (
            record.source.name.startswith(SERIES)
            and record.corpus.sha256 == whole
            and timed(record, precision, provider)
        ):
            found[record.source.name] = max(
                found.get(record.source.name, record), record, key=lambda r: r.created_utc
            )
    return by_size(found.values())


def timed(record: Profile, precision: str, provider: str) -> Cell | None:
    """The cell."""
    return next(
        (
            c
            for c in record.cells
            if (c.precision, c.provider) == (precision, provider) and latency_of(c)
        ),
        None,
    )


# --- tables -----------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def biases(series: dict[str, Series]) -> str:
    """For each series the best bias, what remains of the spread, and the errors of sizes predicted from the others."""
    header = [
        "series",
        "models",
        "best b",
        "spread at b = 0",
        "at -24",
        "at the best",
        "leave-one-out, rms",
        "largest",
        "the largest model from the others",
        "its gain over the next",
    ]
    return table(header, [bias_row(name, models) for name, models in series.items()])


def bias_row(name: str, models: Series) -> list[str]:
    work, gains = (np.array([m[i] for m in models]) for i in (1, 2))
    best = float(best_bias(work, gains))
    spreads = [spread(capacities(work, gains, b)) for b in (0.0, published.BIAS, best)]
    predicted = predict_left_out(work, gains)
    if predicted is None:
        return [
            name,
            str(len(models)),
            f"{best:.1f} (exact)",
            *map(percent, spreads[:2]),
            "0",
            "",
            "",
            "",
            f"{gains[-1] - gains[-2]:.2f}",
        ]
    errors = predicted - gains
    return [
        name,
        str(len(models)),
        f"{best:.1f}",
        *map(percent, spreads),
        f"{math.sqrt((errors**2).mean()):.3f}",
        f"{np.abs(errors).max():.3f}",
        f"{errors[-1]:+.3f}",
        f"{gains[-1] - gains[-2]:.2f}",
    ]


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def coverage(series: dict[str, Series]) -> str:
    """How often a size lies within the interval that the others give it, where those are three and more."""
    inside, largest, widths = [], [], []
    for models in series.values():
        work, gains = (np.array([m[i] for m in models]) for i in (1, 2))
        for i in range(len(models)) if len(models) > 3 else ():
            others = np.delete(work, i), np.delete(gains, i)
            half = law_half_width(*others, float(work[i]))
            error = abs(float(fit_law(*others).gain(float(work[i]))) - gains[i])
            assert half is not None
            inside.append(error <= half)
            widths.append(half)
            largest += [error <= half] if i == len(models) - 1 else []
    return (
        f"Of the {len(inside)} sizes in series of four and more, {sum(inside)} lie within the 95 % interval that the "
        f"others give them, of the {len(largest)} largest {sum(largest)}; half the interval is "
        f"{np.median(widths):.2f} bits in the median."
    )


def moved() -> str:
    """How far the bias moves the ranks of the published models."""
    points = published.read_published()
    work, gains = (
        np.array([value(p) for p in points])
        for value in (lambda p: math.log2(p.flops_per_token), lambda p: p.gain_bits_per_token)
    )
    old = capacities(work, gains, published.BIAS).tolist()
    rows = []
    for b in BIASES:
        new = capacities(work, gains, float(b)).tolist()
        steps = [after - before for before, after in zip(ranks(old), ranks(new), strict=True)]
        far = max(range(len(steps)), key=lambda i: abs(steps[i]))
        tau, other = kendall_tau(old, new), sum(map(bool, steps))
        most = f"{points[far].model}: {ranks(old)[far]} to {ranks(new)[far]}" if other else ""
        rows.append([str(b), f"{tau:.2f}", str(other), most, points[ranks(new).index(1)].model])
    return table(["b", "Kendall's tau with b = -24", "other rank", "moved furthest", "first"], rows)


def reference(found: Fit | None) -> str:
    """The bias of the reference series, if its records are there."""
    if found is None:
        return "The reference series: its records are not in `profiles/` yet."
    b = found.bias_bits
    bounds = (
        "" if b.low is None or b.high is None else f" ({b.low:.2f} to {b.high:.2f} over documents)"
    )
    text = (
        f"The reference series on {found.corpus} ({found.documents} documents, {found.precision}): b = {b.value:.2f} "
        f"bits a token{bounds}; spread {percent(found.spread_with_zero)} without bias, {percent(found.spread_fitted)} "
        f"with it, {percent(found.spread_endless)} with an endless one."
    )
    return f"{text}\n\n{' '.join(sentence(c) for c in found.cautions)}".rstrip()


def devices() -> str:
    """Each size of the reference series, left out and predicted from the others, on the machines that it was run on."""
    parts = []
    for precision, provider in MEASURED:
        records = reference_records(precision, provider)
        if len(records) > 2:
            machine = records[0].machine
            title = f"{machine.gpus[0].name if provider == 'cuda' else machine.cpu}, {provider}, {precision}:"
            header = [
                "model",
                "bits a token",
                "predicted",
                *[f"{w}, measured / predicted" for w in WORK],
            ]
            rows = [
                left_out_row(r, [o for o in records if o is not r], precision, provider)
                for r in records
            ]
            parts.append(f"{title}\n\n{table(header, rows)}")
    return "\n\n".join(parts) or "The reference series: its records are not in `profiles/` yet."


def outside() -> str:
    """Shapes that the series has not, with weights that mean nothing: their seconds beside those predicted."""
    precision, provider = MEASURED[0]
    series = reference_records(precision, provider)
    rows = []
    for record in by_size(r for _, r in records_in("shapes/*.json")):
        shape, cell = record.source.architecture, timed(record, precision, provider)
        latency = cell and latency_of(cell)
        assert isinstance(shape, Architecture) and latency
        told = predict(series, shape, record.source.name, precision, provider).device
        rows.append(
            [
                f"{shape.depth} layers, {shape.hidden} wide",
                beside(decode_seconds(latency, None), told.decode_s, "s"),
                bounds(told.decode_s),
                beside(prefill_seconds(latency, None), told.prefill_s, "s"),
                bounds(told.prefill_s),
            ]
        )
    return table(
        ["shape", f"{WORK[0]}, measured / predicted", "interval", WORK[1], "interval"], rows
    )


def bounds(found: Estimate | Absent) -> str:
    if isinstance(found, Absent) or found.low is None or found.high is None:
        return ""
    return f"{si(found.low, 's')} to {si(found.high, 's')}"


def by_size(records: Iterable[Profile]) -> list[Profile]:
    return sorted(records, key=lambda r: r.flops.per_token if isinstance(r.flops, Flops) else 0.0)


def left_out_row(
    record: Profile, others: list[Profile], precision: str, provider: str
) -> list[str]:
    shape, cell = record.source.architecture, timed(record, precision, provider)
    assert isinstance(shape, Architecture) and cell
    text, latency, energy = compression_of(cell), latency_of(cell), energy_of(cell)
    assert text and latency
    found = predict(others, shape, record.source.name, precision, provider)
    measured = (
        (decode_seconds(latency, None), found.device.decode_s, "s"),
        (prefill_seconds(latency, None), found.device.prefill_s, "s"),
        (decode_joules(energy, None) if energy else None, found.device.decode_j, "J"),
    )
    bits = [f"{text.nll_bits_per_token:.3f}", f"{found.nll_bits_per_token.value:.3f}"]
    return [record.source.name, *bits, *[beside(*each) for each in measured]]


def beside(measured: Quantity | Absent | None, told: Estimate | Absent, unit: str) -> str:
    """`1.2 ms / 1.1 ms = 1.09`; nothing where either is missing."""
    if measured is None or isinstance(measured, Absent) or isinstance(told, Absent):
        return ""
    return f"{si(measured[0], unit)} / {si(told.value, unit)} = {measured[0] / told.value:.2f}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --- records and cards ------------------------------------------------------------------------


def shown() -> dict[str, str]:
    """The README's example: what `profile` prints, and int8 against fp16."""
    path, record = max(
        (
            (p, r)
            for p, r in records_in("reference/*.json")
            if r.spec.model == DEFAULT_MODEL and in_turns(r)
        ),
        key=lambda found: found[1].created_utc,
    )
    int8 = next(c for c in edgecap.compare([record], "precision=fp16") if c.candidate == "int8")
    command = f"edgecap compare {path.relative_to(ROOT)} --baseline precision=fp16"
    return {
        "profile": f"{as_text('$ edgecap profile')}\n{as_text(summary(record))}",
        "compare": f"{as_text(f'$ {command}')}\n{as_text(comparison(int8))}",
    }


def in_turns(record: Profile) -> bool:
    """Whether the record has what `profile` measures when nothing is asked."""
    return tuple((c.precision, c.provider) for c in record.cells) == tuple(
        (p, "cpu") for p in DEFAULT_PRECISIONS
    )


def as_text(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in click.unstyle(text).splitlines())


def series_cards() -> str:
    """Bits per byte of the reference series by domain, as their cards have them, beside xz."""
    found = [
        (p.parent.name, msgspec.json.decode(p.read_bytes()))
        for p in MODELS.glob(f"{SERIES}*/training.json")
    ]
    cards = sorted(found, key=lambda one: one[1]["recipe"]["parameters"])
    domains = list(cards[0][1]["eval_bits_per_byte"])
    rows = [
        [
            name,
            si(c["recipe"]["parameters"]),
            *[f"{c['eval_bits_per_byte'][d]:.3f}" for d in domains],
        ]
        for name, c in cards
    ]
    xz = cards[0][1]["eval_xz_bits_per_byte"]
    return table(
        ["model", "parameters", *domains],
        [*rows, ["xz -9e, all joined", "", *[f"{xz[d]:.3f}" for d in domains]]],
    )


VARIANTS = {
    "fp32": "",
    "fp16": "norms, softmax, angles fp32",
    "bf16": "bf16 weights, computed in fp32",
    "int8w": "MatMulNBits, 8 bits, block 32",
    "int8wb128": "the same, block 128",
    "int8": "dynamic MatMulInteger",
    "int8s": "static QDQ, ranges from samples",
    "int4b16": "MatMulNBits, 4 bits, block 16",
    "int4hqq": "HQQ, block 32, zero points fp32",
    "int4": "MatMulNBits, 4 bits, block 32",
    "int4b64": "block 64",
    "int4b128": "block 128",
}


def variants() -> str:
    """How far each variant of the smallest reference model is from fp32, from the record that has them all."""
    (record,) = [
        r
        for _, r in records_in("variants/*.json")
        if {c.precision for c in r.cells} == VARIANTS.keys()
    ]
    graphs = [cell.graph for cell in record.cells if isinstance(cell.graph, Graph)]
    known = sorted(
        [(g.divergence_bits, g) for g in graphs if isinstance(g.divergence_bits, float)],
        key=lambda k: k[0],
    )
    rows = [
        [g.precision, f"{bits:.6f}", f"{g.bytes:,}", VARIANTS[g.precision]] for bits, g in known
    ]
    return table(["variant", "bits/token from fp32", "bytes of the files", "what it is"], rows)


def on_cuda() -> str:
    """Every cell of the records that ran on CUDA."""
    header = [
        "model",
        "variant",
        "bits/byte",
        "prefill 512",
        "decode",
        "J a decoded token",
        "net of idle",
        "share of time on the CPU",
    ]
    records = by_size(r for _, r in records_in("reference/*.json"))
    rows = [
        cuda_row(record, cell)
        for record in records
        for cell in record.cells
        if cell.provider == "cuda"
    ]
    return table(header, rows)


def cuda_row(record: Profile, cell: Cell) -> list[str]:
    text, latency, energy = compression_of(cell), latency_of(cell), energy_of(cell)
    if not isinstance(cell.outcome, Measurement) or text is None or latency is None:
        return [
            record.source.name,
            cell.precision,
            failure_of(cell) or status(cell),
            "",
            "",
            "",
            "",
            "",
        ]
    joules = [decode_joules(energy, None, net) for net in (False, True)] if energy else [None, None]
    timed = (prefill_seconds(latency, None), decode_seconds(latency, None))
    placed = cell.outcome.placement
    others = (
        []
        if isinstance(placed, Absent)
        else [s.time_share for p, s in placed.by_provider.items() if p != "cuda"]
    )
    seconds = ["" if isinstance(t, Absent) else si(t[0], "s") for t in timed]
    return [
        record.source.name,
        cell.precision,
        f"{text.bits_per_byte:.4f}",
        *seconds,
        *[si(j[0], "J") if isinstance(j, tuple) else "" for j in joules],
        percent(sum(others)),
    ]


# --- where they go ----------------------------------------------------------------------------


def reference_fit(records: list[Profile]) -> Fit | None:
    """None where there are not three sizes: two have an exact solution, which shows nothing."""
    return fit(records)[0] if len({r.source.weights_sha256 for r in records}) > 2 else None


def filled(page: str, text: str, blocks: dict[str, str]) -> str:
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}[^\n]*-->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{page} has no place for {name}")
    return text


def pages(found: Fit | None) -> dict[str, dict[str, str]]:
    """The generated parts of each page by name."""
    series = published_series()
    return {
        "README.md": shown(),
        "docs/method.md": {
            "published-bias": f"{biases(series)}\n\n{coverage(series)}",
            "published-ranks": moved(),
            "reference-bias": reference(found),
            "reference-devices": devices(),
            "reference-shapes": outside(),
        },
        "docs/providers.md": {"cuda": on_cuda(), "variants": variants()},
        "docs/results.md": {"series": series_cards()},
    }


def main() -> None:
    try:
        found = reference_fit(reference_records(*MEASURED[0]))
    except (RecordError, UsageError) as error:
        raise SystemExit(str(error)) from None
    for page, blocks in pages(found).items():
        (ROOT / page).write_text(filled(page, (ROOT / page).read_text(), blocks))
    if found is not None:
        bias_card.beside(CORPUS).write_text(bias_card.encode(make_card(found)))


if __name__ == "__main__":
    main()
