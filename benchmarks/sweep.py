"""Measure a sweep that is finished: python benchmarks/sweep.py [cells]

Print the CPU seconds of `edgecap sweep` over a folder that holds a record of every cell: listing
them with --dry-run, and checking them with --resume. 10,000 cells may take 5 s.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sweeps import TOOLS, finished_sweep  # noqa: E402


def cpu_seconds(folder: Path, *words: str) -> tuple[float, int]:
    """Return the user and system seconds of a command, and the rows that it lists."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "edgecap", "sweep", "plan.toml", "-o", "out", "--json", *words],
        env=TOOLS,
        cwd=folder,
        capture_output=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, len(json.loads(done.stdout).get("rows", []))


def main():
    cells = int(sys.argv[1]) if sys.argv[1:] else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        finished_sweep(folder, cells)
        for word in ("--dry-run", "--resume"):
            spent, rows = cpu_seconds(folder, word, "--cache", "cache")
            print(f"{cells} cells, {word}: {spent:.1f} s of CPU, {rows} rows")


if __name__ == "__main__":
    main()
