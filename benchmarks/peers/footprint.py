"""Load a contestant and read one prompt in a fresh process: load time and peak resident memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgecap.meters.memory import peak_bytes, resident_bytes
from edgecap.stats import median
from peers.making import Contestant
from peers.turns import Plan, Seat, random_ids

REPEATS = 3


def measure_footprints(
    contestants: Sequence[Contestant], seat: Callable[[Contestant], Seat]
) -> dict[str, dict[str, float]]:
    """Return medians over fresh processes; contestants take turns."""
    answers: dict[str, list[dict[str, float]]] = {c.name: [] for c in contestants}
    for _ in range(REPEATS):
        for contestant in contestants:
            with seat(contestant) as process:
                answers[contestant.name].append(process.ask("footprint"))
    return {
        name: {key: median([a[key] for a in several]) for key in several[0]}
        for name, several in answers.items()
    }


def serve_footprint(open_engine: Callable[[], Any], plan: Plan) -> None:
    """Answer once: seconds of loading, and the resident set before it and at its peak in bytes."""
    input()
    before, started = resident_bytes(), time.perf_counter()
    engine = open_engine()
    loaded = time.perf_counter() - started
    engine.prefill(random_ids(plan.vocabulary, max(plan.prefills), 0))
    answer = {"load_s": loaded, "before_bytes": before, "peak_bytes": peak_bytes()}
    print(json.dumps(answer), flush=True)
