"""Show where the memory of a decoder goes: resident megabytes by kind, after a prompt.

    python benchmarks/memory.py FOLDER/int4/model.onnx FOLDER/int8w/model.onnx [--tokens 1024]

Each graph runs in a process of its own. Linux only: reads /proc. docs/performance.md has a table.
Packed weights are private memory after loading, activations what a prompt adds to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

KINDS = (
    *("interpreter, libraries", "packed weights", "mapped weights"),
    *("code of the runtime", "KV cache", "activations"),
)


def main() -> None:
    """Print a table with a column for each graph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.graphs[0], given.tokens)))
        return
    columns = [alone(graph, given.tokens) for graph in given.graphs]
    print("| MB | " + " | ".join(g.parent.name for g in given.graphs) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{column[name]:.0f}" for column in columns) + " |")


def alone(graph: Path, tokens: int) -> dict[str, float]:
    """Measure a graph in a process of its own."""
    words = [sys.executable, __file__, str(graph), "--tokens", str(tokens), "--alone"]
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))


def measure(graph: Path, tokens: int) -> dict[str, float]:
    """Return the resident megabytes of this process by kind."""
    import onnxruntime  # noqa: F401 - part of what is there before the model

    from edgecap.runtime.engine import OrtEngine

    before = resident()
    engine = OrtEngine(graph, "cpu", 2)
    loaded = resident()
    ids = np.random.default_rng(0).integers(0, engine.vocabulary, tokens)
    cache = engine.prefill(ids)
    after, mapped = resident(), mapped_bytes(graph.parent)
    files = after["RssFile"] - before["RssFile"]
    parts = (
        sum(before.values()),
        loaded["RssAnon"] - before["RssAnon"],
        mapped,
        files - mapped,
        after["RssShmem"],
        after["RssAnon"] - loaded["RssAnon"],
    )
    assert cache.length == tokens
    weights = sum(f.stat().st_size for f in graph.parent.glob("model.onnx*"))
    total = {"resident": sum(parts), "files of the graph": weights}
    return {k: v / 1e6 for k, v in (dict(zip(KINDS, parts, strict=True)) | total).items()}


def resident() -> dict[str, int]:
    """Return the resident bytes of this process: private, of files, shared."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    names = ("RssAnon", "RssFile", "RssShmem")
    return {w[0][:-1]: 1024 * int(w[1]) for w in lines if w and w[0][:-1] in names}


def mapped_bytes(folder: Path) -> int:
    """Return the resident bytes of the files in a folder that are mapped."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = str(folder.resolve()) in line
        elif inside and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


if __name__ == "__main__":
    main()
