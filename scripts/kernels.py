#!/usr/bin/env python3
"""Write which kernels ONNX Runtime has: edgecap/data/kernels.json.

    scripts/kernels.py cpu cuda
    scripts/kernels.py dml --doc OperatorKernels.md --version 1.31.1

Without --doc the registry of the installed runtime is read. The runtime asks all providers that it
was built with, and ends the process if a library of one is missing: run it where CUDA and TensorRT
are. --doc reads docs/OperatorKernels.md of ONNX Runtime's repository instead. Either way the
providers that are named are replaced, and the others stay.

Each kernel is a line: versions of the operator, then the types of each constraint.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

import click
import onnx

from edgecap.provider_options import PROVIDERS

DATA = Path(__file__).parent.parent / "edgecap" / "data" / "kernels.json"
DOMAINS = ("", "ai.onnx.ml", "com.microsoft")  # the others are internal to the runtime
LAST = 2**31 - 1  # of a range of versions that is open
ROW = re.compile(r"\|(.*?)\|(.*)\|(\[.*\]|\d+\+?)\|(.*)\|")

Types = dict[str, frozenset[str]]  # of a kernel, by name of the constraint
Kernel = tuple[str, str, int, int, Types]  # domain, operator, first and last version


@click.command()
@click.argument("providers", nargs=-1, required=True)
@click.option("--doc", type=click.Path(path_type=Path, exists=True))
@click.option("--version", default="", help="Version of the runtime that the document is of.")
def main(providers: tuple[str, ...], doc: Path | None, version: str) -> None:
    data = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    data = {"sources": {}, "operands": {}, "kernels": {}} | data
    for provider in providers:
        name = PROVIDERS[provider]
        kernels = from_doc(doc.read_text("utf-8"), name) if doc else from_registry(name)
        data["kernels"][provider] = lines(kernels)
        source = f"docs/OperatorKernels.md of {version}" if doc else registry_name()
        data["sources"][provider] = f"ONNX Runtime, {source}"
    if doc is None:
        data["operands"] = operands(data["kernels"])
    DATA.write_text(json.dumps(data, indent=0, sort_keys=True) + "\n", "utf-8")


# --- two sources ------------------------------------------------------------------------------


def from_registry(provider: str) -> list[Kernel]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return [
        (k.domain, k.op_name, *k.version_range, _types(k.type_constraints))
        for k in state.get_all_opkernel_def()
        if k.provider == provider
    ]


def registry_name() -> str:
    import onnxruntime

    build = re.search(r"git-commit-id=(\w+)", onnxruntime.get_build_info())
    return f"registry of {onnxruntime.__version__}" + (f" (commit {build[1]})" if build else "")


def from_doc(text: str, provider: str) -> list[Kernel]:
    part = text.partition(f"## Operators implemented by {provider}")[2].partition("\n## ")[0]
    domain, op, kernels = "", "", list[Kernel]()
    for line in part.splitlines():
        if heading := re.match(r"\|\*\*Operator Domain:\*\* \*(.*)\*\|", line):
            domain = heading[1].removeprefix("ai.onnx") if heading[1] == "ai.onnx" else heading[1]
        elif row := ROW.fullmatch(line.strip()):
            op = row[1] or op
            first, *end = map(int, re.findall(r"\d+", row[3]))
            last = LAST if row[3].endswith("+") else (end or [first])[0]
            pairs = re.findall(r"\*\*(\w+)\*\* = (.*?)(?:<br/>|$)", row[4])
            kernels.append((domain, op, first, last, _types(dict((n, [t]) for n, t in pairs))))
    return kernels


def _types(constraints: dict[str, list[str]]) -> Types:
    """Keep the types of tensors; a constraint on sequences alone is none."""
    found = {
        name: frozenset(re.findall(r"(?:^| )tensor\((\w+)\)", " ".join(types)))
        for name, types in constraints.items()
    }
    return {name: types for name, types in found.items() if types}


# --- one line a kernel ------------------------------------------------------------------------


def lines(kernels: list[Kernel]) -> dict[str, dict[str, list[str]]]:
    """Return lines by domain and operator; kernels that differ in one constraint share a line."""
    grouped: dict[tuple[str, str], dict[tuple[int, int], list[Types]]] = {}
    for domain, op, first, last, types in kernels:
        if domain in DOMAINS:
            grouped.setdefault((domain, op), {}).setdefault((first, last), []).append(types)
    result: dict[str, dict[str, list[str]]] = {domain: {} for domain in DOMAINS}
    for (domain, op), versions in grouped.items():
        result[domain][op] = [
            f"{first}{'+' if last == LAST else f'-{last}'} {text}".strip()
            for (first, last), rows in sorted(versions.items())
            for text in sorted(map(_text, merged(rows)))
        ]
    return result


def merged(rows: list[Types]) -> list[Types]:
    for name in sorted({name for row in rows for name in row}):
        alike = defaultdict[object, list[Types]](list)
        for row in rows:
            alike[frozenset((n, t) for n, t in row.items() if n != name)].append(row)
        rows = [
            {**same[0], name: frozenset[str]().union(*(r[name] for r in same))}
            if all(name in row for row in same)
            else same[0]
            for same in alike.values()
        ]
    return rows


def _text(types: Types) -> str:
    return " ".join(f"{name}={'|'.join(sorted(types[name]))}" for name in sorted(types))


def operands(kernels: dict[str, dict[str, dict[str, list[str]]]]) -> dict[str, dict[str, str]]:
    """Return constraints of inputs and outputs, of the operators that onnx does not know.

    A kernel may constrain an operand by its own name instead of that of its type.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    result: dict[str, dict[str, str]] = {domain: {} for domain in DOMAINS}
    for schema in sorted(state.get_all_operator_schema(), key=lambda s: s.since_version):
        lines = [t for p in kernels.values() for t in p.get(schema.domain, {}).get(schema.name, ())]
        if lines and not onnx.defs.has(schema.name, schema.domain):
            named = {n for line in lines for n in re.findall(r"(\w+)=", line)}
            given, made = (
                [o.name if o.name in named and o.typeStr not in named else _word(o) for o in part]
                for part in (schema.inputs, schema.outputs)
            )
            result[schema.domain][schema.name] = f"{' '.join(given)} -> {' '.join(made)}"
    return result


def _word(operand: object) -> str:
    text = operand.typeStr  # type: ignore[attr-defined]
    return text if text.isidentifier() else "-"


if __name__ == "__main__":
    main()
