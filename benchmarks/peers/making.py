"""Make the files of each contestant once: random weights, exported, fused, quantized, built."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

REFERENCE = Path(__file__).parents[2] / "models/edgecap-ref-xs"
# Published initialization (0.02) leaves attention flat and the residual to the embedding alone: the
# check would hardly notice a peer that rotates or permutes its heads wrongly.
SPREAD = 0.06
SHAPES = {
    "SmolLM2-135M": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
        "rope_theta": 1e5,
    },
    "tiny": {
        "vocab_size": 8192, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "rope_theta": 1e4,
    },
}  # fmt: skip
VARIANTS = ("int8", "int8w", "int4")
LLAMA = ("F32", "Q8_0", "Q4_0")


class Contestant(NamedTuple):
    """A named set of files and its runtime; `runs` is "ort" or "llama.cpp"."""

    name: str
    runs: str
    path: Path


def missing() -> dict[str, str]:
    """Return the command that installs each missing peer."""
    needs = {
        "onnxruntime-genai's builder": ("'edgecap[genai]'", ("onnxruntime_genai",)),
        "llama.cpp": ("llama-cpp-python gguf", ("llama_cpp", "gguf")),
    }
    return {
        peer: f"pip install {packages}"
        for peer, (packages, modules) in needs.items()
        if not all(importlib.util.find_spec(module) for module in modules)
    }


def contestants(work: Path, own: Path) -> list[Contestant]:
    """List the contestants that can run here; those to be compared are neighbours in time."""
    absent = missing()
    built, llama = "onnxruntime-genai's builder" not in absent, "llama.cpp" not in absent
    listed = [
        Contestant("edgecap fp32 plain", "ort", work / "plain"),
        Contestant("edgecap fp32", "ort", own / "fp32"),
    ]
    listed += [Contestant("builder fp32", "ort", work / "builder-fp32")] if built else []
    listed += [Contestant("llama.cpp F32", "llama.cpp", work / "gguf/F32.gguf")] if llama else []
    listed += [Contestant(f"edgecap {name}", "ort", own / name) for name in ("int8", "int8w")]
    listed += [Contestant("llama.cpp Q8_0", "llama.cpp", work / "gguf/Q8_0.gguf")] if llama else []
    listed += [Contestant("edgecap int4", "ort", own / "int4")]
    listed += [Contestant("builder int4", "ort", work / "builder-int4")] if built else []
    listed += [Contestant("llama.cpp Q4_0", "llama.cpp", work / "gguf/Q4_0.gguf")] if llama else []
    return listed


def make(work: Path, own: Path, shape: str) -> None:
    """Write the files of `contestants` into `work` and `own`; keep those of an earlier run."""
    warnings.simplefilter("ignore")
    _once(work / "hf", lambda out: _weights(shape, out))
    _once(work / "plain", lambda out: _export(work / "hf", out))
    _once(own / "fp32", lambda out: _fuse(work / "plain", out))
    for name in VARIANTS:
        _once(own / name, lambda out, name=name: _vary(own / "fp32", name, out))
    if "onnxruntime-genai's builder" not in missing():
        _once(work / "builder-fp32", lambda out: _build(work / "hf", out, "fp32"))
        _once(work / "builder-int4", lambda out: _build(work / "hf", out, "int4"))
    if "llama.cpp" not in missing():
        from peers.gguf_files import write_all

        _once(work / "gguf", lambda out: write_all(work / "hf", out, LLAMA))


def own_folder(work: Path) -> Path:
    """Return the folder for edgecap's graphs; other code in edgecap/graph has another folder."""
    code = Path(__file__).parents[2] / "edgecap"
    sources = sorted((code / "graph").rglob("*.py"))
    key = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    return work / f"edgecap-{key}"


def _once(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a folder unless it exists. An unfinished folder is filled again."""
    if folder.exists():
        return
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fill(scratch)
    scratch.rename(folder)


def _weights(shape: str, out: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", **SHAPES[shape], tie_word_embeddings=True, initializer_range=SPREAD
    )
    AutoModelForCausalLM.from_config(config).float().eval().save_pretrained(out)
    AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(out)  # exporters need one


def _export(hf: Path, out: Path) -> None:
    """Export with Optimum, and store the tied matrix once."""
    from edgecap.graph.export import export_fp32
    from edgecap.graph.finish import write_tied

    with tempfile.TemporaryDirectory(dir=out) as scratch:
        write_tied(export_fp32(hf, Path(scratch), False), out)


def _fuse(plain: Path, out: Path) -> None:
    from edgecap.graph.finish import write_fused

    done = write_fused(plain / "model.onnx", out, lambda plain, fused: 0.0)
    if done.unfused:
        raise RuntimeError(f"{len(done.unfused)} layers were not fused: {done.unfused[0]}")


def _vary(fused: Path, name: str, out: Path) -> None:
    from edgecap.graph.variants import make_variant

    make_variant(fused / "model.onnx", name, out)


def _build(hf: Path, out: Path, precision: str) -> None:
    words = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        str(hf),
        "-o",
        str(out),
    ]
    words += ["-p", precision, "-e", "cpu", "-c", str(out / "cache")]
    words += ["--extra_options", "accuracy_level=4"] if precision == "int4" else []
    subprocess.run(words, check=True)
