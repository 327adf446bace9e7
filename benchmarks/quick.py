#!/usr/bin/env python3
"""Compare the verdicts of quick runs with that of a full run, and their seconds.

    python benchmarks/quick.py                              the smallest reference model
    python benchmarks/quick.py --model FOLDER --repeats 10 --json FILE
    python benchmarks/quick.py --model FOLDER --full RECORD.json
    python benchmarks/quick.py --model FOLDER --published   beside the pass of nll.py in PyTorch

The full run comes first, unless its record is given (one for each model), so that graphs and
variants are made when the quick runs begin. For each variant: how often a quick run says the same
of its worth beside fp32 as the full run, how often it says unknown, and how often the opposite.
Better against worse or same is opposite, since it changes what is shipped; same and worse both keep
fp32.

--published times the pass of the published script behind the full run, in a process of its own: the
bundled corpus in fp32, each document padded to 1024 positions. Its seconds leave out importing and
loading; those of the full run are of the whole command.

--json is written after each run, so a benchmark that is cut keeps what it has.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.verdict import decide
from edgecap.errors import UsageError
from edgecap.machine.info import default_threads
from edgecap.model.locate import locate
from edgecap.storage.files import write_atomically
from edgecap.storage.records import load

METRIC = "effective_flops_per_s"
NLL = Path(__file__).with_name("nll.py")
SHOWN = 15  # last lines of what a failed run said


def main() -> None:
    args = _arguments()
    try:
        folder = locate(args.model).path if args.published else None
    except UsageError as error:
        raise SystemExit(str(error)) from None
    with tempfile.TemporaryDirectory() as scratch:
        numbers = measure(args, folder, Path(scratch))
    _print(numbers)


def measure(args: argparse.Namespace, folder: Path | None, scratch: Path) -> dict[str, Any]:
    """Run everything, and save the numbers after each run; `folder` is that of the published pass.

    Raise SystemExit if a run fails.
    """
    records, full_s = args.full, None
    if not records:
        records, full_s = profile("full run", args.model, scratch / "full")
    numbers = {"quick_s": [], "full_s": full_s, "full": verdicts(records), "quick": []}
    _save(numbers, args.json)
    if folder:
        numbers |= published(folder)
        _save(numbers, args.json)
    for n in range(args.repeats):
        name = f"quick run {n + 1} of {args.repeats}"
        records, seconds = profile(name, args.model, scratch / f"quick-{n}", "--quick")
        numbers["quick_s"].append(seconds)
        numbers["quick"].append(verdicts(records))
        _save(numbers, args.json)
    return numbers


def profile(name: str, model: str, folder: Path, *options: str) -> tuple[list[Path], float]:
    """Profile the model, and return the paths of the records, one a model, and wall seconds."""
    words = ["-m", "edgecap", "profile", "--model", model, "-o", str(folder), "--json", *options]
    started = time.monotonic()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    records = sorted(folder.glob("*.json"))
    _check(name, done, _failures(records))
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return records, seconds


def published(folder: Path) -> dict[str, float]:
    """Time the published pass, with as many threads as a full run has."""
    words = [str(NLL), "--published", str(folder), "--threads", str(default_threads())]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    _check("published pass", done)
    return {"published": json.loads(done.stdout)}


def _check(name: str, done: subprocess.CompletedProcess[str], failures: Sequence[str] = ()) -> None:
    """Raise SystemExit with the end of what the process said if it failed."""
    if done.returncode:
        said = [*done.stderr.splitlines()[-SHOWN:], *failures]
        raise SystemExit("\n".join([f"{name} failed with status {done.returncode}:", *said]))


def _failures(records: Sequence[Path]) -> list[str]:
    views = cell_views([load(record) for record in records])
    return [f"{v.label}: {failure}" for v in views if (failure := failure_of(v.cell))]


def verdicts(records: Sequence[Path]) -> dict[str, str]:
    """Return the verdict on the worth of each variant beside its baseline, by label of the cell."""
    decisions = decide(cell_views([load(record) for record in records]))
    return {o.view.label: o.against.verdict(METRIC) for d in decisions for o in d.options}


def agreement(full: str, quick: str | None) -> str:
    """Return agrees, unknown or opposite; missing if the quick run has no such cell."""
    if quick is None:
        return "missing"
    if "unknown" in (full, quick):
        return "unknown"
    return "agrees" if (full == "better") == (quick == "better") else "opposite"


def agreements(numbers: dict[str, Any]) -> dict[str, Counter[str]]:
    """Return how often the quick runs agree with the full run, by label of the cell."""
    return {
        name: Counter(agreement(said, quick.get(name)) for quick in numbers["quick"])
        for name, said in numbers["full"].items()
    }


def _save(numbers: dict[str, Any], path: Path | None) -> None:
    if path:
        text = json.dumps({**numbers, "agreement": agreements(numbers)}, indent=1)
        write_atomically(path, f"{text}\n".encode())


def _print(numbers: dict[str, Any]) -> None:
    seconds, full_s = numbers["quick_s"], numbers["full_s"]
    if seconds:
        middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
        print(f"quick: {middle:.0f} s, median of {len(seconds)} ({least:.0f}..{most:.0f})")
    if full_s is not None:
        print(f"full: {full_s:.0f} s")
    if "published" in numbers:
        published_s = numbers["published"]["published_s"]
        print(f"published: {published_s:.0f} s; full / published: {full_s / published_s:.2f}")
    counts = agreements(numbers)
    width = max(map(len, counts), default=0)
    for name, said in numbers["full"].items():
        words = ", ".join(f"{kind} {count}" for kind, count in sorted(counts[name].items()))
        print(f"{name:{width}}  full run: {said:8} quick runs: {words}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="edgecap-ref-xs")
    parser.add_argument("--repeats", type=int, default=10)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--full", type=Path, nargs="+", help="record of a full run, of each model")
    which.add_argument("--published", action="store_true", help="time the published pass too")
    parser.add_argument("--json", type=Path, help="write every number, after each run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
