"""Compare edgecap's formats with llama.cpp's and with those of onnxruntime-genai's builder.

    python benchmarks/peers.py --real             SmolLM2-135M, trained: quality, speed, memory
    python benchmarks/peers.py --model edgecap-ref-m
    python benchmarks/peers.py                    its shape with random weights: speed and memory
    python benchmarks/peers.py --shape tiny       a tiny shape, to try the script

--real takes two hours on 2 cores, most of them for quality; --documents 8 --rounds 3 a quarter.
Install the peers with:

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install 'edgecap[genai]' llama-cpp-python gguf

Quality: KL divergence from edgecap's fp32 in bits a token, both ways, and bits per byte, on
documents of edgecap's corpus. All programs read the ids of edgecap's tokenizer, in windows of at
most --context positions, each in one run; llama.cpp keeps its cache in fp32, without flash
attention. --move-scales repeats the divergence on weights whose scales were moved between
neighbouring matrices at random, which leaves the function as it is: a format that only suits the
trained scales loses.

Speed: a prompt of random ids with logits of at least its last token, and steps of one token around
a context of 512. Nothing is sampled.

Memory: the largest resident set of a fresh process that loads a model and reads a prompt, with that
of Python and the runtime. Loading is timed in the same processes, with the files in the page cache.

Fairness: each contestant has a process of its own, sleeps on a pipe until its turn, and in its turn
uses its own thread pool freely. In one process the pools of ONNX Runtime and OpenMP would spin into
the time of the next. With spinning turned off, steps of a few milliseconds would include waking of
threads. Each turn begins with an untimed run that wakes the threads. Contestants take turns within
each task of a round, in an order that is reversed every round. Ratios are of one round, so drift of
the machine cancels.

llama.cpp has, for each timed task, the fastest of these settings: flash attention on and off, 512
and 1024 tokens at once, and a cache in fp16 (its default) and fp32; in the measurement of memory
its defaults. Its types are made with its defaults too: no importance matrix. First the script
checks that all run the same model, on ln p of a next token.

Graphs of other programs, such as Olive's: --also NAME=FOLDER, a folder with model.onnx made from
the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers.footprint import measure_footprints, serve_footprint
from peers.hf_folder import read_config
from peers.making import (
    LLAMA,
    ROOT,
    SHAPES,
    Contestant,
    Formats,
    make,
    missing,
    moved_model,
    once,
    own_folder,
    random_model,
    work_folder,
)
from peers.merging import TIMES, measured, merge
from peers.quality import Sample, measure_quality, serve_quality
from peers.real_model import NAME, make_real_model
from peers.table import MEANING, contestants_table, targets_table
from peers.turns import Plan, Seat, open_ort, serve_times, take_turns
from peers.verdicts import FP32, Agreement, agreements

from edgecap.errors import UsageError
from edgecap.machine.cpuinfo import processor_flags, processor_name, read_cpuinfo
from edgecap.machine.info import int8_may_saturate
from edgecap.spec import PRECISIONS

WANTED = ("fp32", "fp16", "int8", "int8d", "int4", "int4s")
PREFILLS, POSITIONS, CONTEXT, STEPS = (1024, 512), 2048, 512, 32


def main() -> None:
    args = _arguments()
    if args.child:
        _child(json.loads(args.child))
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            compare(args, (args.work or Path(scratch)).resolve())
        except UsageError as error:
            raise SystemExit(str(error)) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="Hugging Face folder of a Llama, or a name in models/")
    which.add_argument("--real", action="store_true", help=f"{NAME} from a package")
    which.add_argument("--shape", choices=SHAPES, default=NAME, help="random weights: no quality")
    known = [name for name in WANTED if name in PRECISIONS]
    parser.add_argument("--variants", default=",".join(known), help="edgecap's (%(default)s)")
    parser.add_argument("--llama", help="llama.cpp's types; none: ''")
    parser.add_argument("--builder", help="the builder's algorithms; none: ''")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--context", type=int, default=1024, help="positions of a scored window")
    parser.add_argument("--move-scales", type=int, metavar="SEED")
    parser.add_argument("--no-times", action="store_true", help="neither speed nor memory")
    parser.add_argument("--no-quality", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder that keeps the graphs for the next run")
    parser.add_argument(
        "--json", type=Path, help="write every number; keeps those that were not measured again"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(args: argparse.Namespace, root: Path) -> None:
    """Make the files, check them, measure, and print."""
    model, trained = _model(args, root)
    for peer, remedy in missing().items():
        print(f"left out: {peer} ({remedy})")
    formats = _formats(args, trained)
    contestants = _made(model, root, formats)
    plan = _plan(model, args.threads)
    record = _record(model, plan, contestants)
    if trained and not args.no_quality:
        record["quality"] = _quality(args, model, plan, contestants, root)
        if args.move_scales is not None:
            moved = _moved(args.move_scales, model, root)
            others = _made(moved, root, formats._replace(others={}))
            record["moved_seed"] = args.move_scales
            record["moved_quality"] = _quality(args, moved, plan, others, root)
    if not args.no_times:
        record |= _times(args, plan, contestants)
    _print(record)
    if args.json:
        _write(record, args.json)


# --- what is compared -------------------------------------------------------------------------


def _model(args: argparse.Namespace, root: Path) -> tuple[Path, bool]:
    """Return the folder of the model, made where needed, and whether it is a trained one."""
    if args.real:
        return once(root / NAME, make_real_model), True
    if not args.model:
        return once(root / f"random-{args.shape}", lambda out: random_model(args.shape, out)), False
    found = [f for f in (Path(args.model), ROOT / "models" / args.model) if f.is_dir()]
    if not found:
        raise UsageError(f"--model {args.model}: no such folder; give a Hugging Face folder")
    return found[0].resolve(), True


def _formats(args: argparse.Namespace, trained: bool) -> Formats:
    exact = ("F16", "rtn,k_quant,k_quant_mixed") if trained else ("F32", "fp32,default")
    llama = _words(args.llama, f"{exact[0]},Q8_0,Q4_0,Q4_K_M")
    edgecap = tuple(dict.fromkeys(["fp32", *_words(args.variants, "")]))
    others = dict(named.split("=", 1) for named in args.also)
    return Formats(edgecap, llama, _words(args.builder, exact[1]), others, plain=not trained)


def _words(given: str | None, default: str) -> tuple[str, ...]:
    text = default if given is None else given
    return tuple(word for word in text.split(",") if word)


def _made(model: Path, root: Path, formats: Formats) -> list[Contestant]:
    """Make the files in a process, whose memory goes with it; fp32 is the first contestant."""
    work = work_folder(root, model)
    own = own_folder(work)
    job = {"do": "make", "args": [str(model), str(work), str(own), formats]}
    _run(job)
    listed = formats.contestants(work, own)
    return sorted(listed, key=lambda c: c.name != FP32)


def _moved(seed: int, model: Path, root: Path) -> Path:
    def fill(out: Path) -> None:
        _run({"do": "move", "args": [str(model), seed, str(out)]})

    return once(work_folder(root, model) / f"moved-{seed}", fill)


def _run(job: dict[str, Any]) -> None:
    words = [sys.executable, __file__, "--child", json.dumps(job)]
    if subprocess.run(words, stdout=sys.stderr, check=False).returncode:
        raise SystemExit("the files were not made; the reason is above")


def _plan(model: Path, threads: int) -> Plan:
    config = read_config(model)
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    positions = min(POSITIONS, config["max_position_embeddings"])
    prefills = tuple(n for n in PREFILLS if n <= positions)
    return Plan(prefills, CONTEXT, STEPS, config["vocab_size"], width, positions, threads)


# --- what is measured -------------------------------------------------------------------------


def _quality(
    args: argparse.Namespace, model: Path, plan: Plan, contestants: list[Contestant], root: Path
) -> dict[str, Any]:
    context = min(args.context, plan.positions)
    sample = Sample(str(model), args.documents, context, plan.vocabulary)
    with tempfile.TemporaryDirectory(dir=root) as folder, contextlib.ExitStack() as stack:
        shared = str(Path(folder) / "reference.npy")
        seats = [
            stack.enter_context(_seat(c, "quality", c.runs, c.path, plan, sample, shared))
            for c in contestants
        ]
        return measure_quality(seats, sample)


def _times(args: argparse.Namespace, plan: Plan, contestants: list[Contestant]) -> dict[str, Any]:
    footprints = measure_footprints(
        contestants, lambda c: _seat(c, "footprint", c.runs, c.path, plan)
    )
    with contextlib.ExitStack() as stack:
        seats = []
        for c in contestants:  # each chooses its settings alone
            seats.append(stack.enter_context(_seat(c, "times", c.runs, c.path, plan)))
            seats[-1].ask("choice")
        choices = {seat.name: choice for seat in seats if (choice := seat.ask("choice"))}
        checked = agreements({seat.name: seat.ask("next") for seat in seats})
        _print_checks(checked, choices)
        times = take_turns(seats, plan, args.rounds)
    return {
        "footprints": footprints,
        "settings": choices,
        "agreements": [c._asdict() for c in checked],
        "seconds": times,
    }


def _seat(contestant: Contestant, do: str, *args: Any) -> Seat:
    return Seat(contestant.name, __file__, {"do": do, "args": args})


# --- in a process -----------------------------------------------------------------------------


def _child(job: dict[str, Any]) -> None:
    do, args = job["do"], job["args"]
    if do == "make":
        make(Path(args[0]), Path(args[1]), Path(args[2]), _as_formats(args[3]))
    elif do == "move":
        moved_model(Path(args[0]), args[1], Path(args[2]))
    elif do == "times":
        serve_times(args[0], Path(args[1]), _as_plan(args[2]))
    elif do == "footprint":
        plan = _as_plan(args[2])
        serve_footprint(lambda: _open(args[0], Path(args[1]), plan, exact=False), plan)
    else:
        engine = _open(args[0], Path(args[1]), _as_plan(args[2]), exact=True)
        serve_quality(engine, Sample(*args[3]), Path(args[4]))


def _open(runs: str, path: Path, plan: Plan, exact: bool) -> Any:
    """Open an engine for one task: `exact` for scoring, else with the defaults of its program."""
    if runs != LLAMA:
        return open_ort(path, plan, arena=not exact)
    from peers.llama import EXACT, USUAL, Llama, open_model

    settings = EXACT if exact else USUAL
    return Llama(open_model(path), settings, plan.threads, max(plan.prefills))


def _as_plan(values: list[Any]) -> Plan:
    return Plan(tuple(values[0]), *values[1:])


def _as_formats(values: list[Any]) -> Formats:
    edgecap, llama, builder, others, plain = values
    return Formats(tuple(edgecap), tuple(llama), tuple(builder), others, plain)


# --- what is shown ----------------------------------------------------------------------------


def _record(model: Path, plan: Plan, contestants: list[Contestant]) -> dict[str, Any]:
    """Return what is known before measuring: model, machine, versions, sizes of files."""
    packages = ("edgecap", "onnx", "onnxruntime-gpu", "onnxruntime", "onnxruntime-genai-cuda")
    versions = {}
    for package in (*packages, "onnxruntime-genai", "llama-cpp-python", "gguf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    info = read_cpuinfo()
    return {
        "run": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model.name,
        "config": read_config(model),
        "machine": {
            "cpu": processor_name(info),
            "flags": [f for f in processor_flags(info) if f.startswith(("avx", "amx"))],
            "exact_int8": not int8_may_saturate(),
        },
        "versions": versions,
        "plan": plan._asdict(),
        "files": {c.name: c.bytes for c in contestants},
    }


def _write(record: dict[str, Any], path: Path) -> None:
    """Write the record, with what the file has of contestants and parts that were not run."""
    before = json.loads(path.read_text()) if path.exists() else {}
    whole = merge(before, record)
    if dropped := measured(before, TIMES) - measured(whole, TIMES):
        why = "another file of it or of fp32, another plan or machine"
        print(f"{path}: earlier times left out ({why}): {', '.join(sorted(dropped))}")
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _print(record: dict[str, Any]) -> None:
    print(f"\n{record['model']}, {record['plan']['threads']} threads\n")
    print(f"{contestants_table(record)}\n\n{MEANING}\n\n{targets_table(record)}")


def _print_checks(checked: list[Agreement], choices: dict[str, dict[str, str]]) -> None:
    print("ln p of the next token, apart from edgecap's fp32, in its standard deviations")
    for c in checked:
        token = "same token" if c.same_token else "another token"
        sizes = f"largest {c.largest:7.1e}   typical {c.typical:7.1e}"
        print(f"  {c.name:22} {sizes}   {token}   {c.verdict}")
    for name, choice in choices.items():
        for task, settings in choice.items():
            print(f"  {name} was fastest in {task} with {settings}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
