#!/usr/bin/env python3
"""Writes the numbers of docs/method.md on fitting and predicting, and the card of the bundled corpus.

From the published figure (edgecap/data/published.csv) and the records of the reference series in profiles/:
python scripts/fit_series.py
"""

import math
import re
from pathlib import Path

import numpy as np

import edgecap
from edgecap import card, published
from edgecap.errors import RecordError, UsageError
from edgecap.fitting import Fit, card_of, fit
from edgecap.fitting.bias import agreement, best_bias, capacities, ranks, spread
from edgecap.metrics import compression_of, latency_of
from edgecap.predicting import predict
from edgecap.predicting.bits import law_of, law_width, left_out
from edgecap.record import Absent, Architecture, Flops, Profile
from edgecap.score import decode_seconds
from edgecap.units import si

ROOT = Path(__file__).parent.parent
DOCS, PROFILES, CORPUS = (
    ROOT / "docs" / "method.md",
    ROOT / "profiles",
    ROOT / "edgecap" / "data" / "edgecap-mixed.jsonl",
)
SERIES, BIASES = "edgecap-ref-", (0, -20, -22, -24, -26, -28, -30)

Series = list[tuple[str, float, float]]  # name, log2 of the FLOPs, bits gained a token


def published_series() -> dict[str, Series]:
    """The series of the published figure."""
    return {
        name: [(p.model, math.log2(p.flops_per_token), p.gain_bits_per_token) for p in points]
        for name, points in published.series().items()
    }


def reference_records() -> list[Profile]:
    """The latest record of each size of the reference series on the bundled corpus, those of one window."""
    found: dict[str, Profile] = {}
    for path in sorted(PROFILES.glob(f"{SERIES}*.json")):
        record = edgecap.load(path)
        if record.corpus.name == CORPUS.stem:
            found[record.source.name] = max(found.get(record.source.name, record), record, key=lambda r: r.created_utc)
    return list(found.values())


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
    predicted = left_out(work, gains)
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
            half = law_width(*others, float(work[i]))
            error = abs(float(law_of(*others).gain(float(work[i]))) - gains[i])
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
    points = published.published()
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
        tau, other = agreement(old, new), sum(map(bool, steps))
        most = f"{points[far].model}: {ranks(old)[far]} to {ranks(new)[far]}" if other else ""
        rows.append([str(b), f"{tau:.2f}", str(other), most, points[ranks(new).index(1)].model])
    return table(["b", "Kendall's tau with b = -24", "other rank", "moved furthest", "first"], rows)


def reference(found: Fit | None, records: list[Profile]) -> str:
    """The reference series, if its records are there."""
    if found is None:
        return "The reference series: its records are not in `profiles/` yet."
    b = found.bias_bits
    bounds = "" if b.low is None or b.high is None else f" ({b.low:.2f} to {b.high:.2f} over documents)"
    text = (
        f"The reference series on {found.corpus} ({found.documents} documents, {found.precision}): b = {b.value:.2f} "
        f"bits a token{bounds}; spread {percent(found.spread_with_zero)} without bias, {percent(found.spread_fitted)} "
        f"with it, {percent(found.spread_endless)} with an endless one. Each size, left out and predicted from the others:"
    )
    header = ["model", "bits a token", "predicted", "error", "decode", "predicted", "measured / predicted"]
    rows = [left_out_row(r, [o for o in records if o is not r]) for r in by_size(records)]
    return f"{text}\n\n{table(header, rows)}\n\n{' '.join(sentence(c) for c in found.cautions)}".rstrip()


def by_size(records: list[Profile]) -> list[Profile]:
    return sorted(records, key=lambda r: r.flops.per_token if isinstance(r.flops, Flops) else 0.0)


def left_out_row(record: Profile, others: list[Profile]) -> list[str]:
    shape, cell = record.source.architecture, next(c for c in record.cells if c.precision == "fp32")
    text, latency = compression_of(cell), latency_of(cell)
    assert isinstance(shape, Architecture) and text
    found = predict(others, shape, record.source.name)
    needed = found.nll_bits_per_token.value
    row = [
        record.source.name,
        f"{text.nll_bits_per_token:.3f}",
        f"{needed:.3f}",
        f"{needed - text.nll_bits_per_token:+.3f}",
    ]
    seconds, told = latency and decode_seconds(latency, None), found.device.decode_s
    if not isinstance(seconds, tuple) or isinstance(told, Absent):
        return [*row, "", "", ""]
    return [*row, si(seconds[0], "s"), si(told.value, "s"), f"{seconds[0] / told.value:.2f}"]


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --- where they go ----------------------------------------------------------------------------


def reference_fit(records: list[Profile]) -> Fit | None:
    """None where there are not three sizes: two have an exact solution, which shows nothing."""
    return fit(records)[0] if len({r.source.weights_sha256 for r in records}) > 2 else None


def filled(text: str, blocks: dict[str, str]) -> str:
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}[^\n]*-->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{DOCS} has no place for {name}")
    return text


def blocks(records: list[Profile], found: Fit | None) -> dict[str, str]:
    """The generated parts of the page by name."""
    series = published_series()
    return {
        "published-bias": f"{biases(series)}\n\n{coverage(series)}",
        "published-ranks": moved(),
        "reference-bias": reference(found, records),
    }


def main() -> None:
    try:
        records = reference_records()
        found = reference_fit(records)
    except (RecordError, UsageError) as error:
        raise SystemExit(str(error)) from None
    DOCS.write_text(filled(DOCS.read_text(), blocks(records, found)))
    if found is not None:
        card.beside(CORPUS).write_text(card.encode(card_of(found)))


if __name__ == "__main__":
    main()
