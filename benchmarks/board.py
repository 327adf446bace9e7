"""Measure the board: python benchmarks/board.py [cells] [record.json]

Write copies of a record, read them as `edgecap board` does, and open the page in chromium. Print
seconds, bytes, memory, and the milliseconds of a filter with layout.
"""

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import msgspec  # noqa: E402
from boards import named  # noqa: E402
from test_board_browser import CHROMIUM, TIMED, sync_api  # noqa: E402

from edgecap.report.board.board import board_page, board_values, relative_link  # noqa: E402
from edgecap.report.board.entries import entries  # noqa: E402
from edgecap.storage.collection import Collection  # noqa: E402
from edgecap.storage.records import load  # noqa: E402
from edgecap.units import size  # noqa: E402


def main():
    cells = int(sys.argv[1]) if sys.argv[1:] else 10_000
    source = (
        Path(sys.argv[2])
        if sys.argv[2:]
        else next((ROOT / "profiles" / "reference").glob("*.json"))
    )
    record = load(source)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = cells // len(record.cells)
        for n in range(count):
            copy = named(
                f"model-{n % 61}", f"device-{n % 41}", f"2026-11-01T00:00:{n % 60:02}Z", record
            )
            (folder / f"{n}.json").write_bytes(msgspec.json.encode(copy))
        size_read = sum(path.stat().st_size for path in folder.glob("*.json"))
        began = time.perf_counter()
        collected = Collection([folder], entries).read()
        read_s = time.perf_counter() - began
        began = time.perf_counter()
        values = board_values(collected, lambda path: relative_link(path, folder))
        text = board_page(values).encode()
        made_s = time.perf_counter() - began
        (folder / "board.html").write_bytes(text)
        each_ms = 1000 * read_s / count
        print(f"{count} records, {size(size_read)}: read in {read_s:.1f} s ({each_ms:.1f} ms each)")
        print(
            f"page of {count * len(record.cells)} cells: {size(len(text))}, made in {made_s:.2f} s"
        )
        print(f"peak memory {size(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}")
        browse(folder / "board.html")


def browse(page_file):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        began = time.perf_counter()
        page.goto(page_file.as_uri())
        page.wait_for_selector("#cells tbody tr")
        print(f"opens in {time.perf_counter() - began:.2f} s")
        boxes = ["[data-facet=precision][value=int8]", "[data-facet=device]", "[data-facet=model]"]
        times = sorted(page.evaluate(TIMED, boxes * 5))
        median = times[len(times) // 2]
        print(f"a filter: {times[0]:.0f} to {times[-1]:.0f} ms, median {median:.0f} ms")
        browser.close()


if __name__ == "__main__":
    assert shutil.which("chromium") or CHROMIUM
    main()
