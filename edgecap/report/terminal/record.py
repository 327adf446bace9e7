"""A record as text for people: prefixed units, intervals, cautions with advice."""

from __future__ import annotations

import click

from edgecap import stats
from edgecap.analysis.warnings.energy import no_energy
from edgecap.names import printable
from edgecap.record import (
    Absent,
    Cell,
    Compression,
    CorpusInfo,
    Decode,
    Estimate,
    Failure,
    Flops,
    Graph,
    GraphWork,
    Latency,
    Memory,
    Profile,
)
from edgecap.report.data import measured_cells, medians
from edgecap.report.format import name_of, table, wrapped
from edgecap.report.terminal.energy import energies, provenance_of
from edgecap.report.terminal.roofline import growth, operators, rooflines
from edgecap.report.terminal.throughput import throughputs
from edgecap.units import count, si, significant, size

OVERHEAD = 0.05  # of a decoded token, from where it is told


def show(record: Profile, width: int = 100) -> str:
    """The whole record: what was measured where, the tables, what to know about them."""
    parts = [
        _heading(record, width),
        "",
        click.style("Measured", bold=True),
        _measured(record, width),
    ]
    for title, text in (
        ("Scores, with 95 % intervals", _scores(record, width)),
        ("Energy", energies(record, width)),
        ("Beside the roofline", rooflines(record, width)),
        ("Time by operator", operators(record, width)),
        ("With the context", growth(record, width)),
        ("Batches and streams", throughputs(record, width)),
    ):
        parts += ["", click.style(title, bold=True), text] if text else []
    notes = [
        *[(text, "red") for text in _failures(record)],
        *[(text, None) for text in (*_energy_note(record), *_overhead_note(record))],
        *[(text, "yellow") for text in _cautions(record)],
    ]
    if notes:
        parts += ["", *[wrapped(text, width, colour) for text, colour in notes]]
    return "\n".join(parts)


def _heading(record: Profile, width: int) -> str:
    source, machine = record.source, record.machine
    numbers = (
        f"{count(source.parameters)} parameters"
        if isinstance(source.parameters, int)
        else "parameters unknown"
    )
    cores = machine.physical_cores or machine.logical_cores
    runtimes = [
        v for k, v in machine.versions.items() if k.startswith("onnxruntime") and "genai" not in k
    ]
    state = "" if record.complete else "  (incomplete: the run was cut off)"
    return (
        f"{click.style(printable(source.name), bold=True)}  {numbers}, {_work(record)}{state}\n"
        f"on {machine.cpu}, {cores} cores, {size(machine.memory_bytes)}, ONNX Runtime {' or '.join(dict.fromkeys(runtimes)) or '?'}\n"
        f"{_text(record, width)}"
    )


def _work(record: Profile) -> str:
    """FLOPs of a token; of an encoder those of its graph for a prompt."""
    if isinstance(record.flops, Flops):
        return f"{si(record.flops.per_token, 'FLOP')} a token"
    found = next((o for _, o in measured_cells(record) if isinstance(o.work, GraphWork)), None)
    if record.source.task != "encoder" or found is None or not isinstance(found.work, GraphWork):
        return "FLOPs unknown"
    tokens = f" of {found.latency.prefill.tokens}" if isinstance(found.latency, Latency) else ""
    return f"{si(found.work.prefill.matrix_flops, 'FLOP')} a prompt{tokens}"


def _text(record: Profile, width: int) -> str:
    corpus = record.corpus
    if record.source.task == "encoder":
        return "an encoder: nothing is scored or decoded; cosine compares its outputs with those of fp32"
    return (
        f"text {printable(corpus.name)}: {corpus.documents} documents, {size(corpus.bytes)}, "
        f"bias {corpus.bias_bits:g} bit/token{_protocol(record)}{_baselines(corpus, width)}"
    )


def _protocol(record: Profile) -> str:
    spec = record.spec
    stride = f", windows every {spec.stride} positions" if spec.stride else ""
    return f", {spec.protocol} protocol" if spec.protocol != "exact" else stride


def _baselines(corpus: CorpusInfo, width: int) -> str:
    """What general compressors make of the same bytes."""
    found = ", ".join(f"{name} {b.bits_per_byte:.3f}" for name, b in corpus.baselines.items())
    return (
        "\n" + wrapped(f"the same text in one piece: {found} bits/byte", width, None)
        if found
        else ""
    )


_COLUMNS = {
    "decoder": (
        "bits/byte",
        "KL bits",
        "prefill",
        "decode",
        "tokens/s",
        "J/token",
        "peak RAM",
        "file",
    ),
    "encoder": ("cosine", "prefill", "J/token", "peak RAM", "file"),
}


def _measured(record: Profile, width: int) -> str:
    """One row a cell; joules and cosines only where there are any."""
    prompt = next(
        (
            o.latency.prefill.tokens
            for _, o in measured_cells(record)
            if isinstance(o.latency, Latency)
        ),
        None,
    )
    rows = [_row(cell) for cell in record.cells]
    had = {n for row in rows for n, text in row.items() if text != "-"}
    names = [n for n in _COLUMNS[record.source.task] if n not in ("J/token", "cosine") or n in had]
    header = [f"{n} {prompt or ''}".strip() if n == "prefill" else n for n in names]
    texts = [
        [row[n] for n in names] if row else ["failed", *[""] * (len(names) - 1)] for row in rows
    ]
    named = [[name_of(c, record.cells), *text] for c, text in zip(record.cells, texts, strict=True)]
    return table(["", *header], named, width)


def _row(cell: Cell) -> dict[str, str]:
    """Column -> text; nothing of a cell that failed."""
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        return {}
    found = medians(cell, intervals=False)
    rate, joules = found.get("decode_tokens_per_s"), found.get("decode_j")
    joules = joules if isinstance(joules, Estimate) else found.get("prefill_j")
    return {
        "bits/byte": f"{outcome.compression.bits_per_byte:.4f}"
        if isinstance(outcome.compression, Compression)
        else "-",
        "KL bits": _divergence(cell.graph),
        "cosine": _cosine(cell.graph),
        "prefill": _plain(found.get("prefill_s"), "s"),
        "decode": _plain(found.get("decode_s"), "s"),
        "tokens/s": significant(rate.value) if isinstance(rate, Estimate) else "-",
        "J/token": " ".join([_plain(joules, "J"), provenance_of(cell)]).strip(),
        "peak RAM": size(outcome.memory.peak_bytes) if isinstance(outcome.memory, Memory) else "-",
        "file": size(cell.graph.bytes) if isinstance(cell.graph, Graph) else "-",
    }


def _cosine(graph: Graph | Absent) -> str:
    return f"{graph.cosine:.4f}" if isinstance(graph, Graph) and graph.cosine is not None else "-"


def _divergence(graph: Graph | Absent) -> str:
    if isinstance(graph, Absent) or isinstance(graph.divergence_bits, Absent):
        return "-"
    return (
        f"{graph.divergence_bits:.4f}"
        if graph.divergence_bits >= 5e-5 or not graph.divergence_bits
        else "<0.0001"
    )


def _plain(found: Estimate | Absent | None, unit: str) -> str:
    return si(found.value, unit) if isinstance(found, Estimate) else "-"


_SCORES = (
    ("information_capacity", "information capacity"),
    ("time_capacity", "time capacity"),
    ("energy_capacity", "energy capacity"),
    ("hardware_capacity", "hardware capacity"),
    ("gain_bits_per_s", "bits gained a second"),
    ("gain_bits_per_j", "bits gained a joule"),
)


def _scores(record: Profile, width: int) -> str:
    rows = []
    for field, words in _SCORES:
        found = [
            getattr(c.score, field) if not isinstance(c.score, Absent) else c.score
            for c in record.cells
        ]
        if any(isinstance(f, Estimate) for f in found):
            rows.append([words, *[_with_interval(f) for f in found]])
    return (
        table(["", *[name_of(c, record.cells) for c in record.cells]], rows, width) if rows else ""
    )


def _with_interval(found: Estimate | Absent) -> str:
    if isinstance(found, Absent):
        return "-"
    write = "{:.3f}".format if abs(found.value) < 10 else si
    if found.low is None or found.high is None:
        return write(found.value)
    return f"{write(found.value)}\n{write(found.low)}..{write(found.high)}"


def _failures(record: Profile) -> list[str]:
    failed = [(c, c.outcome) for c in record.cells if isinstance(c.outcome, Failure)]
    return [
        f"failed: {c.precision} on {c.provider}, {f.stage}: {f.error}: {printable(f.message)}"
        for c, f in failed
    ]


def _energy_note(record: Profile) -> list[str]:
    reasons = dict.fromkeys(
        o.energy.reason for _, o in measured_cells(record) if isinstance(o.energy, Absent)
    )
    return [no_energy(Absent(reason=r)) for r in reasons]


def _overhead_note(record: Profile) -> list[str]:
    """What of a decoded token is not the model's, where that is more than a little."""
    found = [(c, o.latency) for c, o in measured_cells(record) if isinstance(o.latency, Latency)]
    shares = [
        (name_of(c, record.cells), x.overhead_s, x.overhead_s / stats.median(x.decode.samples_s))
        for c, x in found
        if x.overhead_s and isinstance(x.decode, Decode)
    ]
    told = [f"{name} {share:.0%}" for name, _, share in shares if share > OVERHEAD]
    if not told:
        return []
    return [
        f"of each decoded token {si(shares[0][1], 's')} is binding, Python and the runtime, measured on an empty graph "
        f"({', '.join(told)}); it is in all numbers above"
    ]


def _cautions(record: Profile) -> list[str]:
    """Each kind of caution once, with the cells that it concerns."""
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell in record.cells:
        for caution in cell.cautions:
            messages = grouped.setdefault((caution.code, caution.advice), {})
            messages.setdefault(caution.message, []).append(name_of(cell, record.cells))
    measured = len(measured_cells(record))
    return [
        f"caution: {'; '.join(_where(m, names, measured) for m, names in messages.items())}; {advice}"
        for (_, advice), messages in grouped.items()
    ]


def _where(message: str, names: list[str], measured: int) -> str:
    """The message, with the cells' names unless it concerns all of several."""
    return message if len(names) == measured > 1 else f"{', '.join(names)}: {message}"
