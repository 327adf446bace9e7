"""How fast and how lean text is scored, beside the runtime's own GEMM peak and a PyTorch pass like the published one.

    python benchmarks/nll.py                         both shapes, prints ratios; about 8 minutes on 2 cores
    python benchmarks/nll.py --shape SmolLM2-135M --int8

Random weights in published shapes: speed and memory do not care about the values. Everything that is
compared runs in turns in one session; medians of the rounds are quoted. Memory is the peak resident
set of a process of its own that only scores.

The PyTorch pass does what the published script does: pads each text to 1024 positions, float32
logits for all positions, softmax over the whole vocabulary, one gather.
"""

from __future__ import annotations

import argparse
import json
import os
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8", action="store_true", help="int8 against fp32 too")
    parser.add_argument("--memory", nargs=3, metavar=("GRAPH", "VOCABULARY", "THREADS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        _only_score(Path(asked.memory[0]), int(asked.memory[1]), int(asked.memory[2]))
        return
    for name in asked.shape or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch), asked)


def measure(name: str, scratch: Path, asked: argparse.Namespace) -> None:
    from edgecap.architecture import read_architecture
    from edgecap.flops import count_flops

    model, graph = _build(SHAPES[name], scratch)
    weights = sum(f.stat().st_size for f in graph.parent.glob("model.onnx*"))
    vocabulary = SHAPES[name]["vocab_size"]
    rng = np.random.default_rng(0)
    full = rng.integers(0, vocabulary, WINDOW)
    ragged = [rng.integers(0, vocabulary, int(n)) for n in np.linspace(64, WINDOW, RAGGED)]
    positions = WINDOW - 1
    work = count_flops(
        read_architecture(json.loads((scratch / "hf/config.json").read_text()), name), positions, positions
    )
    peak_bytes = _memory(graph, vocabulary, asked.threads)

    engine = _engine(graph, vocabulary, asked.threads)
    gemm = _gemm(asked.threads)
    torch_nll = _torch(model, asked.threads)
    assert np.allclose(_score(engine, full)[:8], torch_nll(full)[:8], rtol=1e-3), "the two passes disagree"
    runs = {
        "gemm": gemm,
        "full": lambda: _score(engine, full),
        "ragged": lambda: [_score(engine, ids) for ids in ragged],
        "torch full": lambda: torch_nll(full),
        "torch ragged": lambda: [torch_nll(ids) for ids in ragged],
    }
    if asked.int8:
        from edgecap.graph.variants import make_variant

        (scratch / "int8").mkdir()
        make_variant(graph, "int8", scratch / "int8")
        int8 = _engine(scratch / "int8/model.onnx", vocabulary, asked.threads)
        runs["int8 full"] = lambda: _score(int8, full)
    times = {what: [] for what in runs}
    for _ in range(asked.rounds):
        for what, run in runs.items():
            started = time.perf_counter()
            run()
            times[what].append(time.perf_counter() - started)
    s = {what: statistics.median(t) for what, t in times.items()}
    peak = GEMM_FLOPS / s["gemm"]
    print(f"{name}: {asked.threads} threads, {asked.rounds} rounds in turns, medians")
    print(f"  GEMM peak of this session                {peak / 1e9:7.1f} GFLOP/s")
    print(f"  full windows, share of the peak          {work.prefill / s['full'] / peak:7.2f}   (asked: 0.70)")
    print(f"  PyTorch, share of the peak               {work.prefill / s['torch full'] / peak:7.2f}")
    print(f"  times as fast as PyTorch, full windows   {s['torch full'] / s['full']:7.2f}   (asked: 1.3)")
    print(f"  times as fast, 64 to 1024 tokens         {s['torch ragged'] / s['ragged']:7.2f}   (asked: 2.2)")
    if asked.int8:
        print(f"  int8, times as fast as fp32              {s['full'] / s['int8 full']:7.2f}   (asked: 1.5 with VNNI)")
    print("  padding, share of computed positions        0.00   (asked: below 0.05; documents are read one by one)")
    limit = 1.2 * weights + 300e6
    print(
        f"  peak memory {peak_bytes / 1e6:.0f} MB of {limit / 1e6:.0f} MB (weights {weights / 1e6:.0f} MB)", flush=True
    )


GEMM = (256, 1024, 1024)
GEMM_TIMES = 40
GEMM_FLOPS = 2 * GEMM[0] * GEMM[1] * GEMM[2] * GEMM_TIMES


def _gemm(threads: int):
    """Runs of one MatMul with a stored matrix, as the layers of a model are."""
    import onnxruntime
    from onnx import helper, numpy_helper

    m, k, n = GEMM
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((k, n)).astype(np.float32), "w")
    ends = [helper.make_tensor_value_info("x", 1, [m, k]), helper.make_tensor_value_info("y", 1, [m, n])]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "gemm", ends[:1], ends[1:], [weight])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle while others are timed
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", rng.standard_normal((m, k)).astype(np.float32))
    binding.bind_output("y")
    return lambda: [session.run_with_iobinding(binding) for _ in range(GEMM_TIMES)]


def _build(shape: dict, scratch: Path):
    """A model of the shape with random weights, and its graph as edgecap exports it."""
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from edgecap.export import export_fp32

    torch.manual_seed(0)
    fields = {k: v for k, v in shape.items() if k != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape["model_type"], **fields)).float().eval()
    model.save_pretrained(scratch / "hf")
    reference = Path(__file__).parent.parent / "models/edgecap-ref-xs"
    AutoTokenizer.from_pretrained(reference).save_pretrained(scratch / "hf")
    (scratch / "onnx").mkdir()
    export_fp32(scratch / "hf", scratch / "onnx", False)
    return model, scratch / "onnx/model.onnx"


def _engine(graph: Path, vocabulary: int, threads: int):
    from edgecap.engine import OrtEngine
    from edgecap.graph.scoring import scoring_graph

    return OrtEngine(graph, "cpu", threads, 64, vocabulary, scoring=scoring_graph(graph))


def _score(engine, ids):
    return engine.nll(ids[:-1], ids[1:])


def _torch(model, threads: int):
    import torch

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


def _memory(graph: Path, vocabulary: int, threads: int) -> int:
    words = [sys.executable, __file__, "--memory", str(graph), str(vocabulary), str(threads)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout)


def _only_score(graph: Path, vocabulary: int, threads: int) -> None:
    """Scores two windows and a short text, and prints the peak resident set in bytes."""
    engine, rng = _engine(graph, vocabulary, threads), np.random.default_rng(0)
    for length in (WINDOW, WINDOW, 200):
        _score(engine, rng.integers(0, vocabulary, length))
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))


if __name__ == "__main__":
    main()
