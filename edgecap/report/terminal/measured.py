"""Heading and table of measured values: the beginning of a record's summary and details."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import NamedTuple

import click

from edgecap.analysis.cell_labels import gpus_of
from edgecap.analysis.metrics import estimates
from edgecap.analysis.outcomes import status
from edgecap.names import printable, shortened
from edgecap.record import (
    Absent,
    Cell,
    Estimate,
    Flops,
    Graph,
    GraphWork,
    Latency,
    Machine,
    Profile,
)
from edgecap.report.data import documents_text, measured_cells, medians
from edgecap.report.format import name_of, table, table_width
from edgecap.report.metric_text import metric_text
from edgecap.report.terminal.energy import provenance_of
from edgecap.units import count, si, significant, size

NAME = 12  # characters of a name that are shown however narrow the line is
TRADE_MARK = re.compile(r"\((R|TM)\)| (CPU|Processor)\b| @ [\d.]+GHz")


# --- heading ----------------------------------------------------------------------------------


def model_line(record: Profile, width: int) -> str:
    """Return the model's name, parameters and FLOPs; a long name is cut."""
    parameters = record.source.parameters
    known = (
        f"{count(parameters)} parameters" if isinstance(parameters, int) else "parameters unknown"
    )
    rest = shortened(f"  {known}, {_work(record)}", width - NAME)
    name = shortened(record.source.name, max(NAME, width - len(rest)))
    return f"{click.style(name, bold=True)}{rest}"


def machine_line(record: Profile, width: int) -> str:
    """Return processor, cores, memory, boards in use and the runtime; a long processor is cut."""
    machine = record.machine
    cores = machine.physical_cores or machine.logical_cores
    rest = (
        f", {cores} cores, {size(machine.memory_bytes)}{_boards(record)}, "
        f"ONNX Runtime {_runtime(machine)}"
    )
    return f"on {_processor(machine.processor, max(NAME, width - len(rest) - 3))}{rest}"


def _processor(name: str, most: int) -> str:
    """Return the processor's name, without trade marks where it is longer than `most`."""
    return shortened(name if len(name) <= most else TRADE_MARK.sub("", name), most)


def _runtime(machine: Machine) -> str:
    versions = [
        version
        for package, version in machine.versions.items()
        if package.startswith("onnxruntime") and "genai" not in package
    ]
    return " or ".join(dict.fromkeys(versions)) or "?"


def _boards(record: Profile) -> str:
    """Return the graphics boards that cells ran on, or may have run on; "" for the CPU provider."""
    gpus = (gpu for cell in record.cells for gpu in gpus_of(record.machine, cell.provider))
    names = dict.fromkeys(printable(gpu.name) for gpu in gpus)
    return "".join(f", {name}" for name in names)


def _work(record: Profile) -> str:
    """Return the FLOPs of a token; of an encoder those of its graph for a prompt."""
    if isinstance(record.flops, Flops):
        return f"{si(record.flops.per_token, 'FLOP')} a token"
    outcome = next((o for _, o in measured_cells(record) if isinstance(o.work, GraphWork)), None)
    if (
        record.source.task != "encoder"
        or outcome is None
        or not isinstance(outcome.work, GraphWork)
    ):
        return "FLOPs unknown"
    latency = outcome.latency
    tokens = f" of {latency.prefill.tokens}" if isinstance(latency, Latency) else ""
    return f"{si(outcome.work.prefill.matrix_flops, 'FLOP')} a prompt{tokens}"


def text_line(record: Profile, width: int, bias: bool) -> str:
    """Return the corpus, its size, how it was scored and, if `bias`, the bias in bits a token."""
    corpus = record.corpus
    if record.source.task == "encoder":
        return "encoder: nothing is scored or decoded; cosine compares its outputs with fp32's"
    of_bias = f", bias {corpus.bias_bits:g} bit/token" if bias else ""
    rest = f": {documents_text(record)}, {size(corpus.bytes)}{of_bias}{_protocol(record)}"
    name = shortened(corpus.name, max(NAME, width - len(f"text {rest}")))
    return f"text {name}{rest}"


def _protocol(record: Profile) -> str:
    spec = record.spec
    stride = f", windows every {spec.stride} positions" if spec.stride else ""
    return f", {spec.protocol} protocol" if spec.protocol != "exact" else stride


# --- table ------------------------------------------------------------------------------------

COLUMNS = {
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
OPTIONAL = ("J/token", "cosine")  # columns that are left out where no cell has a value
# Left out in this order where the table is too wide: the first follows from decode.
LEAST_NEEDED = ("tokens/s", "KL bits")

_METRICS = {  # by column
    "bits/byte": "bits_per_byte",
    "KL bits": "divergence_bits",
    "prefill": "prefill_s",
    "decode": "decode_s",
    "J/token": "decode_j",
    "peak RAM": "peak_bytes",
    "file": "file_bytes",
}

Row = dict[str, str]  # the texts of a cell by column; empty of a cell that failed


class Column(NamedTuple):
    """A column of the table: its key in a row, and its title, which may have two lines."""

    key: str
    title: str


def measured_table(record: Profile, width: int, shown: Container[str] = ()) -> str:
    """Return one row a cell with all columns, in several tables if wider than `width`.

    Columns of a metric in `shown` are left out: another table has them.
    """
    rows = [_row(record, cell) for cell in record.cells]
    keys = _columns(record, rows, shown)
    columns = [Column(key, _title(record, key, " ")) for key in keys]
    return table(*_texts(record, rows, columns), width)


def compact_table(record: Profile, width: int, shown: Container[str] = ()) -> str:
    """Return one row a cell, as many columns as fit into `width`, without those in `shown`.

    Beside another table it also lacks tokens a second, which are decode once more.
    """
    rows = [_row(record, cell) for cell in record.cells]
    common = _common_provenance(record)
    keys = [key for key in _columns(record, rows, shown) if key != "tokens/s" or not shown]
    between = " " if "file_bytes" in shown else "\n"  # few columns have room for long titles
    columns = [Column(key, _title(record, key, between, common)) for key in keys]
    if common:
        rows = [_without_tag(row, common) for row in rows]
    for least in LEAST_NEEDED:
        if table_width(*_texts(record, rows, columns)) > width:
            columns = [column for column in columns if column.key != least]
    return table(*_texts(record, rows, columns), width)


def _columns(record: Profile, rows: Sequence[Row], shown: Container[str]) -> list[str]:
    """Return the keys of the columns that a record has values for, and that are not shown."""
    filled = {key for row in rows for key, text in row.items() if text != "-"}
    names = [key for key in COLUMNS[record.source.task] if _METRICS.get(key) not in shown]
    return [key for key in names if key not in OPTIONAL or key in filled]


def _title(record: Profile, key: str, separator: str, common: str = "") -> str:
    words = {
        "prefill": ["prefill", _prompt_tokens(record)],
        "peak RAM": ["peak", "RAM"],
        "J/token": ["J/token", common],
    }.get(key, [key])
    return separator.join(word for word in words if word)


def _prompt_tokens(record: Profile) -> str:
    latencies = (o.latency for _, o in measured_cells(record))
    return next((f"{x.prefill.tokens}" for x in latencies if isinstance(x, Latency)), "")


def _texts(
    record: Profile, rows: Sequence[Row], columns: Sequence[Column]
) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows as texts, each with the cell's name in front."""
    lines = [
        [name_of(cell, record.cells), *_line(cell, row, columns)]
        for cell, row in zip(record.cells, rows, strict=True)
    ]
    return ["", *[column.title for column in columns]], lines


def _line(cell: Cell, row: Row, columns: Sequence[Column]) -> list[str]:
    if not row:
        return [status(cell), *[""] * (len(columns) - 1)]
    return [row[column.key] for column in columns]


def _row(record: Profile, cell: Cell) -> Row:
    if status(cell) != "measured":
        return {}
    values = estimates(record, cell, seed=None)
    rate, graph = medians(cell, intervals=False).get("decode_tokens_per_s"), cell.graph
    joules = "decode_j" if isinstance(values["decode_j"], Estimate) else "prefill_j"
    metrics = {**_METRICS, "J/token": joules}
    texts = {key: _text(metric, values[metric]) for key, metric in metrics.items()}
    return texts | {
        "cosine": _cosine(graph),
        "tokens/s": significant(rate.value) if isinstance(rate, Estimate) else "-",
        "J/token": f"{texts['J/token']} {provenance_of(cell)}".strip(),
        "file": size(graph.bytes) if isinstance(graph, Graph) else "-",
    }


def _text(metric: str, value: Estimate | Absent) -> str:
    return metric_text(metric, value.value) if isinstance(value, Estimate) else "-"


def _common_provenance(record: Profile) -> str:
    """Return "sampled" or "assumed" where that is true of all joules, else nothing."""
    provenances = {provenance_of(cell) for cell, _ in measured_cells(record)}
    return provenances.pop() if len(provenances) == 1 else ""


def _without_tag(row: Row, provenance: str) -> Row:
    return row | {"J/token": row["J/token"].removesuffix(f" {provenance}")} if row else row


def _cosine(graph: Graph | Absent) -> str:
    return f"{graph.cosine:.4f}" if isinstance(graph, Graph) and graph.cosine is not None else "-"
