#!/usr/bin/env python3
"""Write the numbers of the pages from records: python scripts/pages.py

Read profiles/, the cards of models/ and the published figure (edgecap/data/published.csv). Write
the marked blocks of README.md and docs/, and the card of the bundled corpus. A test fails if a page
differs from its records.
"""

import functools
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
import numpy as np

import edgecap
from edgecap.analysis import published
from edgecap.analysis.fitting import Fit, fit, make_card
from edgecap.analysis.fitting.bias import best_bias, capacities, kendall_tau, ranks, spread
from edgecap.analysis.law import law_of
from edgecap.analysis.outcomes import compression_of, energy_of, failure_of, latency_of, status
from edgecap.analysis.predicting import predict
from edgecap.analysis.predicting.bits import fit_law, law_half_width, predict_left_out
from edgecap.analysis.score import Quantity, decode_joules, decode_seconds, prefill_seconds
from edgecap.errors import RecordError, UsageError
from edgecap.record import (
    Absent,
    Architecture,
    Cell,
    Estimate,
    Flops,
    Graph,
    Law,
    Measurement,
    Profile,
)
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.details import details
from edgecap.report.terminal.summary import summary
from edgecap.spec import DEFAULT_CORPUS, TUNED
from edgecap.text import bias_card
from edgecap.text.corpus import read_corpus
from edgecap.units import si

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

from peers.table import contestants_table, kept_line, targets_table  # noqa: E402

PROFILES, MODELS = ROOT / "profiles", ROOT / "models"
CORPUS = ROOT / "edgecap" / "data" / "edgecap-mixed.jsonl"
COLUMNS = 100  # of a page
SERIES, BIASES = "edgecap-ref-", (0, -20, -22, -24, -26, -28, -30)
MEASURED = (("fp32", "cpu"), ("fp16", "cuda"))  # the bias is fitted on the first

COMPARED = ROOT / "benchmarks" / "results"
NO_RECORDS = "The records of the reference series are not in `profiles/` yet."

Series = list[tuple[str, float, float]]  # name, log2 of the FLOPs, bits gained a token


def published_series() -> dict[str, Series]:
    """Return the series of the published figure by name."""
    return {
        name: [(p.model, math.log2(p.flops_per_token), p.gain_bits_per_token) for p in points]
        for name, points in published.published_series().items()
    }


@functools.cache
def records_in(pattern: str) -> tuple[tuple[Path, Profile], ...]:
    """Read the records of `profiles/` that match a pattern, with their paths."""
    return tuple((path, edgecap.load(path)) for path in sorted(PROFILES.glob(pattern)))


def reference_records(precision: str, provider: str) -> list[Profile]:
    """Return the latest record of each size of the reference series that has a timed cell.

    Only records on the whole bundled corpus count.
    """
    latest, corpus_hash = dict[str, Profile](), read_corpus(DEFAULT_CORPUS).sha256
    for _, record in records_in("reference/*.json"):
        name, same_text = record.source.name, record.corpus.sha256 == corpus_hash
        if name.startswith(SERIES) and same_text and timed_cell(record, precision, provider):
            latest[name] = max(latest.get(name, record), record, key=lambda r: r.created_utc)
    return by_size(latest.values())


def timed_cell(record: Profile, precision: str, provider: str) -> Cell | None:
    """Return the cell with a latency, or None."""
    for cell in record.cells:
        if (cell.precision, cell.provider) == (precision, provider) and latency_of(cell):
            return cell
    return None


# --- tables -----------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str) -> str:
    """Wrap a paragraph to the width of a page."""
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def biases(series: dict[str, Series]) -> str:
    """Return the best bias of each series, its spreads, and its leave-one-out errors."""
    header = ["series", "models", "best b", "spread at 0", "at -24", "at best"]
    header += ["rms", "max", "last", "step"]
    return table(header, [bias_row(name, models) for name, models in series.items()])


def bias_row(name: str, models: Series) -> list[str]:
    work, gains = (np.array([m[i] for m in models]) for i in (1, 2))
    best = float(best_bias(work, gains))
    spreads = [spread(capacities(work, gains, b)) for b in (0.0, published.BIAS, best)]
    predicted = predict_left_out(work, gains)
    step = f"{gains[-1] - gains[-2]:.2f}"
    if predicted is None:
        exact = [f"{best:.1f} (exact)", *map(percent, spreads[:2]), "0"]
        return [name, str(len(models)), *exact, "", "", "", step]
    errors = predicted - gains
    rms, largest = math.sqrt((errors**2).mean()), np.abs(errors).max()
    numbers = [f"{rms:.3f}", f"{largest:.3f}", f"{errors[-1]:+.3f}", step]
    return [name, str(len(models)), f"{best:.1f}", *map(percent, spreads), *numbers]


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def coverage(series: dict[str, Series]) -> str:
    """Count the sizes within the interval that three or more others predict for them."""
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
    return wrapped(
        f"Of the {len(inside)} sizes in series of four and more, {sum(inside)} lie within the 95 % "
        f"interval predicted from the others. Of the {len(largest)} largest sizes, {sum(largest)} "
        f"do. Half the interval is {np.median(widths):.2f} bits in the median."
    )


def moved() -> str:
    """Return how far the bias moves the ranks of the published models."""
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
    return table(["b", "tau", "moved", "moved furthest", "first"], rows)


def reference(series_fit: Fit | None) -> str:
    """Describe the bias of the reference series in a paragraph."""
    if series_fit is None:
        return NO_RECORDS
    b, corpus = series_fit.bias_bits, series_fit.corpus
    scope = f"{series_fit.documents} documents, {series_fit.precision}"
    interval = f" ({b.low:.2f} to {b.high:.2f} over documents)" if is_closed(b) else ""
    text = (
        f"The reference series on {corpus} ({scope}): b = {b.value:.2f} bits per token{interval}. "
        f"The spread is {percent(series_fit.spread_with_zero)} without a bias, "
        f"{percent(series_fit.spread_fitted)} with b, and {percent(series_fit.spread_endless)} "
        "with an endless one."
    )
    return wrapped(" ".join([text, *map(sentence, series_fit.cautions)]))


def devices() -> str:
    """Predict each size of the reference series from the others, on each measured machine."""
    parts = []
    for precision, provider in MEASURED:
        records = reference_records(precision, provider)
        if len(records) > 2:
            machine = records[0].machine
            name = machine.gpus[0].name if provider == "cuda" else machine.cpu
            rows = [
                left_out_row(r, [o for o in records if o is not r], precision, provider)
                for r in records
            ]
            header = ["size", "bits", "predicted", "decode", "prefill", "joules"]
            parts.append(f"{name}, {provider}, {precision}:\n\n{table(header, rows)}")
    return "\n\n".join(parts) or NO_RECORDS


def outside() -> str:
    """Compare measured and predicted seconds of shapes outside of the series."""
    precision, provider = MEASURED[0]
    series = reference_records(precision, provider)
    rows = []
    for record in by_size(r for _, r in records_in("shapes/*.json")):
        shape, cell = record.source.architecture, timed_cell(record, precision, provider)
        latency = cell and latency_of(cell)
        assert isinstance(shape, Architecture) and latency
        predicted = predict(series, shape, record.source.name, precision, provider).device
        decode, prefill = predicted.decode_s, predicted.prefill_s
        rows += [
            [str(shape.depth), str(shape.hidden), name, ratio(measured, value, "s"), span(value)]
            for name, measured, value in (
                ("decode", decode_seconds(latency, None), decode),
                ("prefill", prefill_seconds(latency, None), prefill),
            )
        ]
    return table(["layers", "width", "step", "measured / predicted", "interval"], rows)


def span(estimate: Estimate | Absent) -> str:
    """Return the interval of a time as text, empty if it is open."""
    if isinstance(estimate, Absent) or not is_closed(estimate):
        return ""
    return f"{si(estimate.low, 's')} to {si(estimate.high, 's')}"


def is_closed(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.high is not None


def by_size(records: Iterable[Profile]) -> list[Profile]:
    return sorted(records, key=lambda r: r.flops.per_token if isinstance(r.flops, Flops) else 0.0)


def left_out_row(
    record: Profile, others: list[Profile], precision: str, provider: str
) -> list[str]:
    shape, cell = record.source.architecture, timed_cell(record, precision, provider)
    assert isinstance(shape, Architecture) and cell
    text, latency, energy = compression_of(cell), latency_of(cell), energy_of(cell)
    assert text and latency
    predicted = predict(others, shape, record.source.name, precision, provider)
    device = predicted.device
    joules = decode_joules(energy, None) if energy else None
    return [
        record.source.name.removeprefix(SERIES),
        f"{text.nll_bits_per_token:.3f}",
        f"{predicted.nll_bits_per_token.value:.3f}",
        ratio(decode_seconds(latency, None), device.decode_s, "s"),
        ratio(prefill_seconds(latency, None), device.prefill_s, "s"),
        ratio(joules, device.decode_j, "J"),
    ]


def ratio(measured: Quantity | Absent | None, predicted: Estimate | Absent, unit: str) -> str:
    """Return text like `1.2 ms / 1.1 ms = 1.09`, empty if a value is missing."""
    if measured is None or isinstance(measured, Absent) or isinstance(predicted, Absent):
        return ""
    quotient = measured[0] / predicted.value
    return f"{si(measured[0], unit)} / {si(predicted.value, unit)} = {quotient:.2f}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --- records and cards ------------------------------------------------------------------------


def shown_record() -> tuple[Path, Profile]:
    """Return the latest record of the default run, with its path."""
    return max(records_in("default/*.json"), key=lambda pair: pair[1].created_utc)


def example() -> str:
    """Return the first lines and the main table of what `profile` prints."""
    lines = as_text(f"$ edgecap profile\n{summary(shown_record()[1])}").splitlines()
    table_end = lines.index("", next(n for n, x in enumerate(lines) if "bits/byte" in x))
    return "\n".join(lines[:table_end])


def worth() -> str:
    """Work out the compute-equivalent gains of the example by hand."""
    path, record = shown_record()
    law = law_of(record)
    assert isinstance(law, Law)
    texts = {c.precision: text for c in record.cells if (text := compression_of(c))}
    fp32 = texts["fp32"].gain_bits_per_token
    head = wrapped(
        f"Example: {record.source.name} on {record.machine.processor} "
        f"(`{path.relative_to(ROOT)}`). The card of its text has c = {law.slope.value:.4f} bits a "
        f"doubling. fp32 gains {fp32:.4f} bits a token."
    )
    items = []
    for one in edgecap.compare([record]):
        found = {d.metric: d for d in one.differences}
        quality, speed, total = (
            found[name].ratio for name in ("effective_flops", "decode_s", "effective_flops_per_s")
        )
        assert isinstance(quality, Estimate) and isinstance(speed, Estimate)
        assert isinstance(total, Estimate)
        lost = fp32 - texts[one.candidate].gain_bits_per_token
        text = (
            f"- {one.candidate} gains {lost:.4f} less: 2^(-{lost:.4f} / c) = {quality.value:.3f} "
            f"of the compute. A token takes {speed.value:.3f} of the time. A second is worth "
            f"{quality.value:.3f} / {speed.value:.3f} = {total.value:.3f} ({total.low:.3f} to "
            f"{total.high:.3f}): {found['effective_flops_per_s'].verdict}."
        )
        items.append(textwrap.fill(text, COLUMNS, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join([head, "", *items])


def outputs() -> dict[str, str]:
    """Return what `profile` and `compare` print for the example."""
    path, record = shown_record()
    compared = edgecap.compare([record], "precision=fp16")
    int8 = next(c for c in compared if c.candidate == "int8")
    command = "$ edgecap compare RECORD.json --baseline precision=fp16"
    shown = as_text(f"$ edgecap show RECORD.json --details\n{details(record, COLUMNS - 4)}")
    return {
        "output": as_text(f"$ edgecap profile\n{summary(record)}"),
        "details": f"RECORD.json is `{path.relative_to(ROOT)}`.\n\n{shown}",
        "compare": as_text(f"{command}\n{comparison(int8, COLUMNS - 4)}"),
    }


def as_text(text: str) -> str:
    """Return terminal output as a Markdown code block, without colours."""
    return "\n".join(f"    {line}".rstrip() for line in click.unstyle(text).splitlines())


def series_cards() -> str:
    """Return bits per byte of the reference series by domain, from their cards, beside xz."""
    folders = [p.parent for p in MODELS.glob(f"{SERIES}*/training.json")]
    named = [(f.name, msgspec.json.decode((f / "training.json").read_bytes())) for f in folders]
    cards = sorted(named, key=lambda one: one[1]["recipe"]["parameters"])
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
    "int8": "8 bits, block 32, scales in fp16",
    "int4": "4 bits, block 32, zero points; 8 bits where needed",
    "int4s": "as int4, block 64, fewer matrices in 8 bits",
    "int8w": "MatMulNBits, 8 bits, block 32",
    "int8wb128": "the same, block 128",
    "int8d": "dynamic MatMulInteger",
    "int8s": "static QDQ, ranges from samples",
    "int4b16": "MatMulNBits, 4 bits, block 16",
    "int4hqq": "HQQ, block 32, zero points fp32",
    "int4b32": "MatMulNBits, 4 bits, block 32",
    "int4b64": "block 64",
    "int4b128": "block 128",
}


def variants() -> str:
    """Return the divergence of each variant of the smallest model, from the record with all."""
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


def tuned() -> str:
    """Return the fixed recipes beside the tuned variants of their bytes, from records of tune."""
    header = ["model", "recipe", "MB", "KL", "bits/byte"]
    header += ["tuned, MB", "KL", "bits/byte", "KL, change"]
    rows = []
    for _, record in records_in("tuned/*.json"):
        graphs = {c.precision: c for c in record.cells if isinstance(c.graph, Graph)}
        made = [c for name, c in graphs.items() if name.startswith(TUNED)]
        for name in ("int8", "int4", "int4s"):
            fixed = graphs[name]
            smaller = [c for c in made if c.graph.bytes <= fixed.graph.bytes]
            rival = max(smaller, key=lambda c: c.graph.bytes)
            change = rival.graph.divergence_bits / fixed.graph.divergence_bits - 1
            cells = [text for c in (fixed, rival) for text in tuned_columns(c)]
            rows.append([record.source.name, name, *cells, f"{change:+.0%}"])
    return table(header, rows)


def tuned_columns(cell: Cell) -> list[str]:
    text = compression_of(cell)
    bits = f"{text.bits_per_byte:.4f}" if text else ""
    return [f"{cell.graph.bytes / 1e6:.2f}", f"{cell.graph.divergence_bits:.4f}", bits]


def on_cuda() -> str:
    """Return every cell of the records that ran on CUDA, and the reasons of those that failed."""
    header = ["model", "variant", "bits/byte", "prefill 512", "decode", "J", "net", "on cpu"]
    records = by_size(r for _, r in records_in("reference/*.json"))
    cells = [(r.source.name, c) for r in records for c in r.cells if c.provider == "cuda"]
    reasons = [
        f"{name}, {cell.precision}: {failure_of(cell) or status(cell)}."
        for name, cell in cells
        if failed(cell)
    ]
    rows = table(header, [cuda_row(name, cell) for name, cell in cells])
    return "\n\n".join([rows, *map(wrapped, reasons)])


def failed(cell: Cell) -> bool:
    return compression_of(cell) is None or latency_of(cell) is None


def cuda_row(name: str, cell: Cell) -> list[str]:
    text, latency, energy = compression_of(cell), latency_of(cell), energy_of(cell)
    if not isinstance(cell.outcome, Measurement) or text is None or latency is None:
        return [name, cell.precision, status(cell), "", "", "", "", ""]
    joules = [decode_joules(energy, None, net) for net in (False, True)] if energy else [None, None]
    seconds = (prefill_seconds(latency, None), decode_seconds(latency, None))
    placed = cell.outcome.placement
    shares = {} if isinstance(placed, Absent) else placed.by_provider
    return [
        name,
        cell.precision,
        f"{text.bits_per_byte:.4f}",
        *["" if isinstance(s, Absent) else si(s[0], "s") for s in seconds],
        *[si(j[0], "J") if isinstance(j, tuple) else "" for j in joules],
        percent(sum(share.time_share for p, share in shares.items() if p != "cuda")),
    ]


def beside_peers() -> str:
    """Return the tables of each comparison with other programs, from `benchmarks/results/`."""
    records = [json.loads(path.read_text()) for path in sorted(COMPARED.glob("*.json"))]
    return "\n\n".join(map(compared, records)) or "No results are committed yet."


def compared(record: dict) -> str:
    """Return one comparison: model and machine, the contestants, the ratios and their targets."""
    quality, times = record.get("quality"), record.get("seconds")
    said = [
        f"**{record['model']}**: {record['machine']['cpu']}, {record['plan']['threads']} threads"
    ]
    said += [f"{quality['documents']} documents, {quality['tokens']:,} tokens"] if quality else []
    said += [f"{len(next(iter(next(iter(times.values())).values())))} rounds"] if times else []
    kept = kept_line(record)
    intro = wrapped(f"{', '.join(said)}.{f' {kept}.' if kept else ''}")
    return "\n\n".join([intro, contestants_table(record), targets_table(record)])


# --- blocks of the pages ----------------------------------------------------------------------


def reference_fit(records: list[Profile]) -> Fit | None:
    """Fit the bias, or return None for fewer than three sizes: two have an exact solution."""
    return fit(records)[0] if len({r.source.weights_sha256 for r in records}) > 2 else None


def filled(page: str, text: str, blocks: dict[str, str]) -> str:
    """Return the text of a page with new blocks between its `<!-- name -->` marks."""
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}[^\n]*-->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{page} has no place for {name}")
    return text


def pages(series_fit: Fit | None) -> dict[str, dict[str, str]]:
    """Return the generated blocks of each page by name."""
    series = published_series()
    return {
        "README.md": {"profile": example()},
        "docs/fit.md": {
            "published-bias": f"{biases(series)}\n\n{coverage(series)}",
            "published-ranks": moved(),
            "reference-bias": reference(series_fit),
            "reference-devices": devices(),
            "reference-shapes": outside(),
        },
        "docs/graphs.md": {"variants": variants(), "tuned": tuned()},
        "docs/method.md": {"worth": worth()},
        "docs/performance.md": {"peers": beside_peers()},
        "docs/providers.md": {"cuda": on_cuda()},
        "docs/results.md": {**outputs(), "series": series_cards()},
    }


def main() -> None:
    try:
        series_fit = reference_fit(reference_records(*MEASURED[0]))
    except (RecordError, UsageError) as error:
        raise SystemExit(str(error)) from None
    for page, blocks in pages(series_fit).items():
        (ROOT / page).write_text(filled(page, (ROOT / page).read_text(), blocks))
    if series_fit is not None:
        bias_card.card_path(CORPUS).write_text(bias_card.encode_card(make_card(series_fit)))


if __name__ == "__main__":
    main()
