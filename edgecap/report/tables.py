"""A record and a comparison as tables for people: prefixed units, intervals, cautions with advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecap.cautions import no_energy
from edgecap.record import (
    Absent,
    Cell,
    Compression,
    Estimate,
    Failure,
    Flops,
    Graph,
    Latency,
    Measurement,
    Memory,
    Profile,
)
from edgecap.report.data import medians
from edgecap.units import si, significant, size

if TYPE_CHECKING:
    from edgecap.compare import Comparison, Difference

_VERDICT_STYLE = {"better": "green", "worse": "red", "same": "", "unknown": "yellow"}


def show(record: Profile) -> RenderableType:
    """The whole record: what was measured where, the tables, what to know about them."""
    parts: list[RenderableType] = [_heading(record), Text(), _title("Measured"), _measured(record)]
    if any(isinstance(c.outcome, Measurement) for c in record.cells):
        parts += [Text(), _title("Scores, with 95 % intervals"), _scores(record)]
    notes = [*_failures(record), *_energy_note(record), *_cautions(record)]
    if notes:
        parts += [Text(), *notes]
    return Group(*parts)


def _heading(record: Profile) -> Text:
    source, machine, corpus = record.source, record.machine, record.corpus
    count = f"{si(source.parameters)} parameters" if isinstance(source.parameters, int) else "parameters unknown"
    work = f"{si(record.flops.per_token, 'FLOP')} a token" if isinstance(record.flops, Flops) else "FLOPs unknown"
    cores = machine.physical_cores or machine.logical_cores
    runtime = machine.versions.get("onnxruntime-gpu") or machine.versions.get("onnxruntime") or "?"
    state = "" if record.complete else "  (incomplete: the run was cut off)"
    text = Text()
    text.append(source.name, style="bold")
    text.append(f"  {count}, {work}{state}\n")
    text.append(f"on {machine.cpu}, {cores} cores, {size(machine.memory_bytes)}, ONNX Runtime {runtime}\n")
    text.append(
        f"text {corpus.name}: {corpus.documents} documents, {size(corpus.bytes)}, bias {corpus.bias_bits:g} bit/token"
    )
    return text


def _title(words: str) -> Text:
    return Text(words, style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def name_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """The precision, with the provider where the record has several."""
    several = len({c.provider for c in cells}) > 1
    return f"{cell.precision} {cell.provider}" if several else cell.precision


def _measured(record: Profile) -> Table:
    prompt = next((o.latency.prefill.tokens for o in _outcomes(record) if isinstance(o.latency, Latency)), None)
    columns = [
        "bits/byte",
        "KL bits",
        f"prefill {prompt or ''}".strip(),
        "decode",
        "tokens/s",
        "J/token",
        "peak RAM",
        "file",
    ]
    rows = [_row(cell) for cell in record.cells]
    shown = [i for i, name in enumerate(columns) if name != "J/token" or any(row[i] not in ("", "-") for row in rows)]
    table = _table("", *[columns[i] for i in shown])
    for cell, row in zip(record.cells, rows, strict=True):
        table.add_row(name_of(cell, record.cells), *[row[i] for i in shown])
    return table


def _outcomes(record: Profile) -> list[Measurement]:
    return [c.outcome for c in record.cells if isinstance(c.outcome, Measurement)]


def _row(cell: Cell) -> list[str]:
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        return ["failed", *[""] * 7]
    found = medians(cell, intervals=False)
    rate = found.get("decode_tokens_per_s")
    return [
        f"{outcome.compression.bits_per_byte:.4f}" if isinstance(outcome.compression, Compression) else "-",
        _divergence(cell.graph),
        _plain(found.get("prefill_s"), "s"),
        _plain(found.get("decode_s"), "s"),
        significant(rate.value) if isinstance(rate, Estimate) else "-",
        _plain(found.get("decode_j"), "J"),
        size(outcome.memory.peak_bytes) if isinstance(outcome.memory, Memory) else "-",
        size(cell.graph.bytes) if isinstance(cell.graph, Graph) else "-",
    ]


def _divergence(graph: Graph | Absent) -> str:
    if isinstance(graph, Absent) or isinstance(graph.divergence_bits, Absent):
        return "-"
    return f"{graph.divergence_bits:.4f}" if graph.divergence_bits >= 5e-5 or not graph.divergence_bits else "<0.0001"


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


_SIDE_BY_SIDE = 4


def _scores(record: Profile) -> RenderableType:
    """Scores below the names of the cells, four cells side by side."""
    starts = range(0, len(record.cells), _SIDE_BY_SIDE)
    return Group(*[_score_table(record, record.cells[s : s + _SIDE_BY_SIDE]) for s in starts])


def _score_table(record: Profile, cells: Sequence[Cell]) -> Table:
    table = _table("", *[name_of(c, record.cells) for c in cells])
    for field, words in _SCORES:
        found = [getattr(c.score, field) if not isinstance(c.score, Absent) else c.score for c in cells]
        if any(isinstance(f, Estimate) for f in found):
            table.add_row(words, *[_with_interval(f) for f in found])
    return table


def _with_interval(found: Estimate | Absent) -> str:
    if isinstance(found, Absent):
        return "-"
    write = "{:.3f}".format if abs(found.value) < 10 else si
    if found.low is None or found.high is None:
        return write(found.value)
    return f"{write(found.value)}\n{write(found.low)}..{write(found.high)}"


def _failures(record: Profile) -> list[Text]:
    failed = [(c, c.outcome) for c in record.cells if isinstance(c.outcome, Failure)]
    return [
        Text(f"failed: {c.precision} on {c.provider}, {f.stage}: {f.error}: {f.message}", style="red")
        for c, f in failed
    ]


def _energy_note(record: Profile) -> list[Text]:
    reasons = dict.fromkeys(o.energy.reason for o in _outcomes(record) if isinstance(o.energy, Absent))
    return [Text(no_energy(Absent(reason=r))) for r in reasons]


def _cautions(record: Profile) -> list[Text]:
    """Each kind of caution once, with the cells that it concerns."""
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell in record.cells:
        for caution in cell.cautions:
            messages = grouped.setdefault((caution.code, caution.advice), {})
            messages.setdefault(caution.message, []).append(name_of(cell, record.cells))
    measured = len(_outcomes(record))
    return [
        Text(
            f"caution: {'; '.join(_where(m, names, measured) for m, names in messages.items())}; {advice}",
            style="yellow",
        )
        for (_, advice), messages in grouped.items()
    ]


def _where(message: str, names: list[str], measured: int) -> str:
    """The message, with the cells' names unless it concerns all of several."""
    return message if len(names) == measured > 1 else f"{', '.join(names)}: {message}"


# --- compare ----------------------------------------------------------------------------------


def comparison(found: Comparison) -> RenderableType:
    """Two cells, each metric's ratio and verdict, and what differs between the runs."""
    table = _table(
        "",
        found.baseline,
        found.candidate,
        "ratio",
        "95 % interval",
        "verdict",
    )
    for d in found.differences:
        table.add_row(d.metric, *_difference(d))
    notes = [Text(f"caution: {m}", style="yellow") for m in found.mismatches]
    return Group(_title(f"{found.candidate} against {found.baseline}"), table, *notes)


def _difference(d: Difference) -> list[str | Text]:
    verdict = Text(d.verdict, style=_VERDICT_STYLE[d.verdict])
    ratio, interval = "-", "-"
    if isinstance(d.ratio, Estimate):
        ratio = f"{d.ratio.value:.3f}"
        interval = (
            f"{d.ratio.low:.3f}..{d.ratio.high:.3f}" if d.ratio.low is not None and d.ratio.high is not None else "-"
        )
    return [_value(d.baseline, d.unit), _value(d.candidate, d.unit), ratio, interval, verdict]


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit in ("s", "J", "B"):
        return si(value, unit)
    return f"{value:.4f}"
