"""Measure the speed and memory of scoring, beside the GEMM peak of the runtime and PyTorch.

    python benchmarks/nll.py                 both shapes, prints ratios; about 8 minutes on 2 cores
    python benchmarks/nll.py --shape SmolLM2-135M --int8
    python benchmarks/nll.py --published FOLDER   seconds of the PyTorch pass on the bundled corpus

Random weights in published shapes: speed and memory do not depend on the values. Each program has a
process of its own and runs in turns with the others; the output shows medians of the rounds.

The PyTorch pass does the same as the published script: it pads each text to 1024 positions, and
computes float32 logits for all positions, softmax over the whole vocabulary, and one gather.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

SHAPES = {
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "tie_word_embeddings": True, "rope_theta": 1e5,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "tie_word_embeddings": True, "rope_theta": 1e6,
    },
}  # fmt: skip
WINDOW = 1024
RAGGED = 6  # documents of 64 to 1024 tokens in one round


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8", action="store_true", help="int8 against fp32 too")
    parser.add_argument(
        "--published", type=Path, metavar="FOLDER", help="time the PyTorch pass alone, on a model"
    )
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], Path(args.serve[1]), int(args.serve[2]), int(args.serve[3]))
        return
    if args.published:
        print(json.dumps(published(args.published, args.threads)))
        return
    for name in args.shape or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch), args)


def published(folder: Path, threads: int) -> dict[str, float]:
    """Time the PyTorch pass over the bundled corpus: one truncated window for each document.

    Importing and loading are apart, in `load_s`. Bits a token are those of `--protocol paper`.
    """
    from edgecap.spec import DEFAULT_CORPUS
    from edgecap.text.corpus import read_corpus
    from edgecap.text.tokenizer import read_paper_tokenizer

    begun = time.perf_counter()
    score, tokenizer = _torch(folder, threads), read_paper_tokenizer(folder)
    texts = [document.text for document in read_corpus(DEFAULT_CORPUS).documents]
    started = time.perf_counter()
    bits = [score(np.array(tokenizer.encode_with_specials(text, WINDOW))) for text in texts]
    ended = time.perf_counter()
    scored = np.concatenate(bits)
    return {
        "published_s": ended - started,
        "load_s": started - begun,
        "documents": len(texts),
        "tokens": len(scored),
        "bits_per_token": float(scored.mean()),
        "threads": threads,
    }


def measure(name: str, scratch: Path, args: argparse.Namespace) -> None:
    from edgecap.model.architecture import read_architecture
    from edgecap.model.flops import count_flops

    shape = SHAPES[name]
    _build(shape, scratch, args.int8)
    weights = sum(f.stat().st_size for f in (scratch / "fp32").glob("model.onnx*"))
    architecture = read_architecture(json.loads((scratch / "hf/config.json").read_text()), name)
    work = count_flops(architecture, WINDOW - 1, WINDOW - 1).prefill
    with contextlib.ExitStack() as stack:
        contenders = {
            what: stack.enter_context(Contender(what, scratch, shape["vocab_size"], args.threads))
            for what in ("gemm", "fp32", "torch", *(["int8"] if args.int8 else []))
        }
        times = _in_turns(contenders, args.rounds)
        memory = contenders["fp32"].ask("memory")
    s = {what: statistics.median(t) for what, t in times.items()}
    peak = GEMM_FLOPS / s["gemm full"]
    print(f"{name}: {args.threads} threads, {args.rounds} rounds in turns, medians")
    limit = 1.2 * weights + 300e6
    _row("GEMM peak of the runtime, GFLOP/s", peak / 1e9)
    _row("full windows, share of the peak", work / s["fp32 full"] / peak, "0.70")
    _row("PyTorch, share of the peak", work / s["torch full"] / peak)
    _row("times as fast as PyTorch, full windows", s["torch full"] / s["fp32 full"], "1.3")
    _row("times as fast, 64 to 1024 tokens", s["torch ragged"] / s["fp32 ragged"], "2.2")
    if args.int8:
        _row("int8, times as fast as fp32", s["fp32 full"] / s["int8 full"], "1.5 with VNNI")
    _row("padding, share of computed positions", 0.0, "below 0.05; documents are read one by one")
    _row("peak memory, MB", memory / 1e6, f"{limit / 1e6:.0f}; weights {weights / 1e6:.0f}")
    sys.stdout.flush()


def _row(quantity: str, value: float, target: str = "") -> None:
    print(f"  {quantity:41}{value:9.2f}" + (f"   (target: {target})" if target else ""))


def _in_turns(contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Return seconds by contender and task. The first round is a warm-up."""
    tasks = [
        (w, t)
        for w in contenders
        for t in ("full", "ragged")
        if t == "full" or w in ("fp32", "torch")
    ]
    times: dict[str, list[float]] = {f"{w} {t}": [] for w, t in tasks}
    for number in range(rounds + 1):
        for what, task in tasks:
            seconds = contenders[what].ask(task)
            if number:
                times[f"{what} {task}"].append(seconds)
    return times


class Contender:
    """A process that runs a task on request, and sleeps while others are timed."""

    def __init__(self, what: str, scratch: Path, vocabulary: int, threads: int) -> None:
        words = [
            sys.executable,
            __file__,
            "--serve",
            what,
            str(scratch),
            str(vocabulary),
            str(threads),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL, **pipes)

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def ask(self, task: str) -> float:
        """Return seconds of the task, or bytes of the peak resident set."""
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        time.sleep(0.2)  # until the thread pools of the previous process stop spinning
        return float(self._process.stdout.readline())


def serve(what: str, scratch: Path, vocabulary: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    full = rng.integers(0, vocabulary, WINDOW)
    ragged = [rng.integers(0, vocabulary, int(n)) for n in np.linspace(64, WINDOW, RAGGED)]
    score = (
        _gemm(threads)
        if what == "gemm"
        else _torch(scratch / "hf", threads)
        if what == "torch"
        else None
    )
    if score is None:
        engine = _engine(scratch / what / "model.onnx", vocabulary, threads)
        score = lambda ids: engine.nll(ids[:-1], ids[1:])  # noqa: E731
    for task in sys.stdin:
        if task.strip() == "memory":
            status = Path("/proc/self/status").read_text()
            print(1024 * int(status.split("VmHWM:")[1].split()[0]), flush=True)
            continue
        time.sleep(0.4)
        started = time.perf_counter()
        if what == "gemm":
            print(score(), flush=True)
            continue
        for ids in [full] if task.strip() == "full" else ragged:
            score(ids)
        print(time.perf_counter() - started, flush=True)


GEMMS = (
    (256, 1024, 1024),
    (256, 4096, 4096),
    (512, 2048, 2048),
    (256, 576, 49152),
)  # no shape is best everywhere
GEMM_FLOPS = 2e10  # of each shape in one task


def _gemm(threads: int):
    """Return a function that gives the seconds of the task at the rate of the fastest shape."""
    from edgecap.runtime.microbench import OrtProbes

    probes = {shape: OrtProbes("cpu", threads).gemm("fp32", *shape) for shape in GEMMS}
    for probe in probes.values():
        probe()  # warms up

    def best() -> float:
        rates = []
        for shape, probe in probes.items():
            time.sleep(0.2)  # until the threads of the previous session stop spinning
            work = 2 * math.prod(shape)
            times = math.ceil(GEMM_FLOPS / work)
            started = time.perf_counter()
            for _ in range(times):
                probe()
            rates.append(times * work / (time.perf_counter() - started))
        return GEMM_FLOPS / max(rates)

    return best


def _build(shape: dict, scratch: Path, int8: bool) -> None:
    """Build a model with random weights, export its graph, and quantize it if `int8`."""
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from edgecap.graph.export import export_fp32
    from edgecap.graph.finish import write_fused
    from edgecap.graph.variants import Form, make_variant

    torch.manual_seed(0)
    fields = {k: v for k, v in shape.items() if k != "model_type"}
    model = (
        AutoModelForCausalLM.from_config(AutoConfig.for_model(shape["model_type"], **fields))
        .float()
        .eval()
    )
    model.save_pretrained(scratch / "hf")
    reference = Path(__file__).parent.parent / "models/edgecap-ref-xs"
    AutoTokenizer.from_pretrained(reference).save_pretrained(scratch / "hf")
    (scratch / "plain").mkdir()
    (scratch / "fp32").mkdir()
    write_fused(
        export_fp32(scratch / "hf", scratch / "plain", False),
        scratch / "fp32",
        lambda plain, fused: 0.0,
    )
    if int8:
        (scratch / "int8").mkdir()
        make_variant(scratch / "fp32/model.onnx", Form("int8"), scratch / "int8")


def _engine(graph: Path, vocabulary: int, threads: int):
    from edgecap.graph.scoring import scoring_graph
    from edgecap.runtime.engine import OrtEngine

    return OrtEngine(graph, "cpu", threads, 64, vocabulary, scoring=scoring_graph(graph))


def _torch(folder: Path, threads: int):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    torch.set_num_threads(threads)

    def nll(ids):
        padded = torch.zeros(1, WINDOW, dtype=torch.long)
        mask = torch.zeros(1, WINDOW, dtype=torch.long)
        padded[0, : len(ids)], mask[0, : len(ids)] = torch.from_numpy(ids), 1
        with torch.no_grad():
            logits = model(input_ids=padded, attention_mask=mask, use_cache=False).logits
        p = torch.softmax(logits.to(torch.float32), dim=-1)
        chosen = torch.gather(p[:, :WINDOW], -1, padded[:, 1:].unsqueeze(-1)).squeeze(-1)
        return -torch.log2(chosen)[0, : len(ids) - 1].numpy()

    return nll


if __name__ == "__main__":
    main()
