#!/usr/bin/env python3
"""Compare the verdicts of quick runs with that of a full run, and their seconds.

    python benchmarks/quick.py                              the smallest reference model
    python benchmarks/quick.py --model FOLDER --repeats 10 --json FILE
    python benchmarks/quick.py --model FOLDER --full RECORD.json

The full run comes first, unless a record of one is given, so that graphs and variants are made when
the quick runs begin. For each variant: how often a quick run says the same of its worth beside
fp32 as the full run, how often it says unknown, and how often the opposite. Better against worse or
same is opposite, since it changes what is shipped; same and worse both keep fp32.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.verdict import decide
from edgecap.storage.records import load

METRIC = "effective_flops_per_s"


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        full, full_s = args.full, None
        if full is None:
            full, full_s = run(args, Path(scratch) / "full")
        expected = verdicts(full)
        runs = [run(args, Path(scratch) / f"quick-{n}", "--quick") for n in range(args.repeats)]
        found = [verdicts(record) for record, _ in runs]
    seconds = [seconds for _, seconds in runs]
    middle = statistics.median(seconds)
    print(f"quick: {middle:.0f} s, median of {len(runs)} ({min(seconds):.0f}..{max(seconds):.0f})")
    if full_s is not None:
        print(f"full: {full_s:.0f} s")
    counts = {
        name: Counter(agreement(said, f.get(name)) for f in found)
        for name, said in expected.items()
    }
    for name, said in expected.items():
        words = ", ".join(f"{kind} {count}" for kind, count in sorted(counts[name].items()))
        print(f"{name:8} full run: {said:8} quick runs: {words}")
    if args.json:
        numbers = {"quick_s": seconds, "full_s": full_s, "full": expected, "agreement": counts}
        args.json.write_text(json.dumps(numbers, indent=1) + "\n")


def run(args: argparse.Namespace, folder: Path, *options: str) -> tuple[Path, float]:
    """Profile the model, and return the path of the record and wall seconds."""
    command = [sys.executable, "-m", "edgecap", "profile", "--model", args.model]
    command += ["-o", str(folder), "--json", *options]
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    (record,) = folder.glob("*.json")
    return record, time.monotonic() - started


def verdicts(record: Path) -> dict[str, str]:
    """Return the verdict on the worth of each variant beside fp32."""
    (decision,) = decide(cell_views([load(record)]))
    return {o.view.cell.precision: o.against.verdict(METRIC) for o in decision.options}


def agreement(full: str, quick: str | None) -> str:
    """Return agrees, unknown or opposite."""
    if "unknown" in (full, quick) or quick is None:
        return "unknown"
    return "agrees" if (full == "better") == (quick == "better") else "opposite"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="edgecap-ref-xs")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--full", type=Path, help="record of a full run")
    parser.add_argument("--json", type=Path, help="write every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
