"""Run each contestant in a process that sleeps on a pipe, and take turns in rounds."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Thread pools of the previous process must stop spinning: ONNX Runtime took 30 ms, OpenMP 10.
PAUSE_S = 0.3
PROMPT = 48  # tokens of the prompt of the check
Times = dict[str, dict[str, list[float]]]  # task -> contestant -> seconds by round


class Plan(NamedTuple):
    """Prompt lengths and mean decode context in tokens, decode steps of a turn, and sizes."""

    prefills: tuple[int, ...]
    context: int
    steps: int
    vocabulary: int
    head_dim: int
    positions: int
    threads: int

    @property
    def tasks(self) -> list[str]:
        return [*(f"prefill {n}" for n in self.prefills), f"decode {self.context}"]


class Seat:
    """The process of one contestant, seen from its parent."""

    def __init__(self, name: str, script: str, job: dict[str, Any]) -> None:
        words = [sys.executable, script, "--child", json.dumps(job)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.name = name
        self._process = subprocess.Popen(words, **pipes)

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def ask(self, task: str, number: int = 0) -> Any:
        """Send a task and return the answer; `number` is the round, and seeds the token ids."""
        time.sleep(PAUSE_S)
        with contextlib.suppress(BrokenPipeError):  # reported below
            self._process.stdin.write(f"{json.dumps([task, number])}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended at '{task}' with status {self._process.wait()}")
        return json.loads(line)


def take_turns(seats: Sequence[Seat], plan: Plan, rounds: int) -> Times:
    """Return seconds of each task. In a round all do one task before the next; round 0 warms up."""
    times: Times = {task: {seat.name: [] for seat in seats} for task in plan.tasks}
    for number in range(rounds + 1):
        for task in plan.tasks:
            for seat in seats if number % 2 else reversed(seats):
                seconds = seat.ask(task, number)
                if number:
                    times[task][seat.name].append(seconds)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return times


# --- in the process -------------------------------------------------------------------------


def serve_times(runs: str, path: Path, plan: Plan) -> None:
    """Answer each line of standard input with one line, until it is closed."""
    engines, choice = _open_llama(path, plan) if runs == "llama.cpp" else _open_ort(path, plan)
    for line in sys.stdin:
        task, number = json.loads(line)
        kind, _, size = task.partition(" ")
        if kind == "choice":
            answer: Any = choice
        elif kind == "next":
            answer = _next(engines["next"], plan)
        else:
            answer = _MEASURES[kind](engines[kind], plan, int(size), number)
        print(json.dumps(answer), flush=True)


def open_ort(path: Path, plan: Plan, arena: bool = True) -> Any:
    """Open a folder of ONNX Runtime."""
    from edgecap.runtime.engine import OrtEngine

    graph, vocabulary = path / "model.onnx", plan.vocabulary
    return OrtEngine(graph, "cpu", plan.threads, plan.head_dim, vocabulary, arena=arena)


def _open_ort(path: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, str]]:
    return dict.fromkeys((*_MEASURES, "next"), open_ort(path, plan)), {}


def _open_llama(path: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, str]]:
    """Open contexts with the fastest settings for prefill and for decode, and an exact one."""
    from peers.llama import EXACT, Llama, fastest, open_model

    model = open_model(path)
    once = {
        "prefill": partial(_prefill_s, plan=plan, size=plan.prefills[0], number=0),
        "decode": partial(_decode_s, plan=plan, size=plan.context, number=0),
    }
    best = fastest(model, plan.threads, plan.positions, once)
    chosen = {**best, "next": EXACT}
    engines = {
        task: Llama(model, settings, plan.threads, plan.positions)
        for task, settings in chosen.items()
    }
    return engines, {task: str(settings) for task, settings in best.items()}


def _prefill_s(engine: Any, plan: Plan, size: int, number: int) -> float:
    """Return the seconds of one prompt of `size` tokens."""
    ids = random_ids(plan.vocabulary, size, number)
    engine.prefill(ids[:64])  # wakes the threads
    started = time.perf_counter()
    engine.prefill(ids)
    return time.perf_counter() - started


def _decode_s(engine: Any, plan: Plan, size: int, number: int) -> float:
    """Return the median seconds of a decoded token around a context of `size` tokens."""
    ids = random_ids(plan.vocabulary, size + plan.steps, number)
    begin = size - plan.steps // 2
    cache, times = engine.prefill(ids[:begin]), []
    for token in ids[begin : begin + plan.steps].tolist():
        started = time.perf_counter()
        cache = engine.decode(cache, token)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


_MEASURES = {"prefill": _prefill_s, "decode": _decode_s}


def _next(engine: Any, plan: Plan) -> list[float]:
    """Return ln p of the token after the prompt of the check, shape (vocabulary,)."""
    ln_p = engine.log_probabilities(random_ids(plan.vocabulary, PROMPT, 0))[-1] * np.log(2)
    return ln_p.tolist()


def random_ids(vocabulary: int, n: int, number: int) -> np.ndarray:
    """Return n ids, shape (n,), with a seed."""
    return np.random.default_rng(number).integers(0, vocabulary, n, dtype=np.int64)
