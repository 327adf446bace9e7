#!/usr/bin/env python3
"""Measure the overhead of edgecap: CPU time of light commands, wall time of the default run.

python benchmarks/startup.py            light commands
python benchmarks/startup.py --run      also the default run, twice: the first may export
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "tests" / "data" / "record-1.json"


def cpu_seconds(words: list[str]) -> float:
    """Run a command, and return its user and system seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [str(Path(sys.executable).with_name("edgecap")), *words],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def light() -> None:
    for words in (["--help"], ["show", str(RECORD)], ["show", str(RECORD), "--json"]):
        times = [cpu_seconds(words) for _ in range(7)]
        name = " ".join(w if not w.startswith("/") else Path(w).name for w in words)
        median, low, high = statistics.median(times), min(times), max(times)
        print(f"edgecap {name:<26} {median:.3f} s CPU, median of 7 ({low:.3f}..{high:.3f})")


def default_run(folder: str) -> tuple[float, float]:
    """Return wall seconds, and CPU seconds of the parent without its children."""
    started = time.monotonic()
    command = [sys.executable, "-m", "edgecap", "profile", "-o", folder, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own = 0.0
    while process.poll() is None:
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError):
            break
        time.sleep(0.2)
    process.wait()
    return time.monotonic() - started, own


def main() -> None:
    light()
    if "--run" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            for number in (1, 2):
                wall, own = default_run(folder)
                share = f"{own / wall:.1%} of a core"
                print(f"default run {number}: {wall:.1f} s; parent {own:.2f} s CPU, {share}")


if __name__ == "__main__":
    main()
