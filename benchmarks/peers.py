"""Compare decode and prefill of edgecap, onnxruntime-genai's builder and llama.cpp in one run.

    python benchmarks/peers.py            SmolLM2-135M's shape; half an hour on 2 busy cores
    python benchmarks/peers.py --quick    a tiny shape, to try the script

Install the peers with:

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install 'edgecap[genai]' llama-cpp-python gguf

All programs run one model with random weights: speed does not depend on the values. All do the same
work: a prompt of new random ids with logits of at least its last token, and steps of one token
around a context of 512. Nothing is sampled. The graphs of edgecap and of the builder compute logits
at every position of a prompt, as their exporters made them; llama.cpp only at the last.

Fairness: each contestant has a process of its own, sleeps on a pipe until its turn, and in its turn
uses its own thread pool freely. In one process the pools of ONNX Runtime and OpenMP would spin into
the time of the next. With spinning turned off, steps of a few milliseconds would include waking of
threads. Each turn begins with an untimed run that wakes the threads. Contestants take turns within
each task of a round, in an order that is reversed every round. Ratios are of one round, so drift of
the machine cancels.

llama.cpp has, for each task, the fastest of these settings: flash attention on and off, 512 and
1024 tokens at once, and a cache in fp16 (its default) and fp32. edgecap has no such choice, except
int8 and int8w, which have the same number of bits. First the script checks that all run the same
model, on ln p of a next token; llama.cpp does this with its cache in fp32 and without flash
attention.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from peers.making import SHAPES, contestants, make, missing, own_folder
from peers.turns import Plan, Seat, Times, serve, take_turns
from peers.verdicts import Agreement, Row, agreements, rows

from edgecap.stats import median


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder that keeps the graphs for the next run")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], Path(args.serve[1]), Plan(*json.loads(args.serve[2])))
    elif args.make:
        make(Path(args.make[0]), Path(args.make[1]), args.make[2])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            compare(args, args.work or Path(scratch))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Build the graphs, check them, measure, and print."""
    shape = "tiny" if args.quick else "SmolLM2-135M"
    work, plan = folder.resolve() / shape, _plan(shape, args.threads)
    own = own_folder(work)
    for peer, remedy in missing().items():
        print(f"left out: {peer} ({remedy})")
    subprocess.run(
        [sys.executable, __file__, "--make", str(work), str(own), shape],
        check=True,
        stdout=sys.stderr,
    )
    with contextlib.ExitStack() as stack:
        seats = []
        for contestant in contestants(work, own):  # each chooses its settings alone
            seats.append(stack.enter_context(Seat(contestant, plan, __file__)))
            seats[-1].ask("choice")
        choices = {seat.name: choice for seat in seats if (choice := seat.ask("choice"))}
        checked = agreements({seat.name: seat.ask("next") for seat in seats})
        _print_checks(checked, choices)
        times = take_turns(seats, plan, args.rounds)
    compared = rows(times)
    _print_times(
        f"{shape}: {plan.threads} threads, {args.rounds} rounds in turns, medians in ms", times
    )
    _print_rows(compared)
    if args.json:
        args.json.write_text(
            json.dumps(_record(shape, plan, choices, checked, times, compared), indent=1)
        )


def _plan(shape: str, threads: int) -> Plan:
    fields = SHAPES[shape]
    width = fields["hidden_size"] // fields["num_attention_heads"]
    return Plan(
        (1024, 512),
        512,
        32,
        fields["vocab_size"],
        width,
        fields["max_position_embeddings"],
        threads,
    )


def _print_checks(checked: list[Agreement], choices: dict[str, dict[str, str]]) -> None:
    print("ln p of the next token, apart from the plain fp32 graph's, in its standard deviations")
    for c in checked:
        token = "same token" if c.same_token else "another token"
        sizes = f"largest {c.largest:7.1e}   typical {c.typical:7.1e}"
        print(f"  {c.name:20} {sizes}   {token}   {c.verdict}")
    for name, choice in choices.items():
        for task, settings in choice.items():
            print(f"  {name} was fastest in {task} with {settings}")
    sys.stdout.flush()


def _print_times(title: str, times: Times) -> None:
    print(title)
    print(f"  {'':20}" + "".join(f"{task:>15}" for task in times))
    for name in next(iter(times.values())):
        print(
            f"  {name:20}" + "".join(f"{1e3 * median(times[task][name]):15.2f}" for task in times)
        )


def _print_rows(compared: list[Row]) -> None:
    print("time over the time of the peer, 95 % interval over rounds")
    for r in compared:
        most = "below" if r.limit == 1 else "at most"
        limit = f"target: {most} {r.limit:.2f}   {r.verdict}" if r.limit else ""
        sides, interval = f"{r.ours} / {r.peer}", f"({r.low:.3f} to {r.high:.3f})"
        print(f"  {r.task:13} {sides:36} {r.ratio:6.3f} {interval}   {limit}".rstrip())


def _record(
    shape: str, plan: Plan, choices: dict, checked: list, times: Times, compared: list
) -> dict:
    """Return every number: seconds by round, ratios, settings, versions."""
    packages = (
        "onnx",
        "onnxruntime-gpu",
        "onnxruntime",
        "onnxruntime-genai-cuda",
        "onnxruntime-genai",
    )
    versions = {}
    for package in (*packages, "llama-cpp-python", "gguf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "shape": {"name": shape, **SHAPES[shape]},
        "plan": plan._asdict(),
        "versions": versions,
        "settings": choices,
        "agreements": [c._asdict() for c in checked],
        "seconds": times,
        "ratios": [r._asdict() for r in compared],
    }


if __name__ == "__main__":
    main()
