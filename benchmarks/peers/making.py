"""Make the files of each contestant once: exported, fused, quantized, built.

A model is a Hugging Face folder: a trained one, or a shape with random weights. edgecap's graphs
are those that `edgecap export` writes for deployment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from peers.hf_folder import WEIGHTS, read_config, read_weights, write_weights
from peers.moved_scales import move_scales

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "models/edgecap-ref-xs"
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
BUILDER, LLAMA = "onnxruntime-genai's builder", "llama.cpp"


class BuilderError(Exception):
    """The builder of onnxruntime-genai failed; its last line says why."""


class Contestant(NamedTuple):
    """A named set of files and its runtime; `runs` is "ort" or "llama.cpp"."""

    name: str
    runs: str
    path: str

    @property
    def bytes(self) -> int:
        """Return the bytes of graph and weights, without tokenizers and configs."""
        path = Path(self.path)
        files = [path] if path.is_file() else path.glob("*.onnx*")
        return sum(f.stat().st_size for f in files)


class Formats(NamedTuple):
    """Formats to make with each program, and folders of graphs that others made, by name.

    `plain` adds edgecap's graph before fusing.
    """

    edgecap: tuple[str, ...]
    llama: tuple[str, ...]
    builder: tuple[str, ...]
    others: dict[str, str]
    plain: bool = False

    def contestants(self, work: Path, own: Path) -> list[Contestant]:
        """List the contestants whose files are there; those of equal bits are neighbours."""
        listed = [Contestant("edgecap fp32 plain", "ort", str(work / "plain"))]
        listed += [Contestant(f"edgecap {f}", "ort", str(own / f)) for f in self.edgecap]
        listed += [Contestant(f"builder {f}", "ort", str(_built(work, f))) for f in self.builder]
        listed += [Contestant(name, "ort", path) for name, path in self.others.items()]
        gguf = _gguf(work, self.llama)
        listed += [Contestant(f"llama.cpp {f}", LLAMA, str(gguf / f"{f}.gguf")) for f in self.llama]
        return sorted((c for c in listed if Path(c.path).exists()), key=_bits)


def _bits(contestant: Contestant) -> int:
    """Return minus the bits of a weight, as a name such as Q8_0 or int4b32 has them; else -4."""
    named = re.search(r"(?:fp|bf|int|F|Q)(\d+)", contestant.name)
    return -int(named[1]) if named else -4


def missing() -> dict[str, str]:
    """Return the command that installs each missing peer."""
    needs = {
        BUILDER: ("'edgecap[genai]'", ("onnxruntime_genai",)),
        LLAMA: ("llama-cpp-python gguf", ("llama_cpp", "gguf")),
    }
    return {
        peer: f"pip install {packages}"
        for peer, (packages, modules) in needs.items()
        if not all(importlib.util.find_spec(module) for module in modules)
    }


# --- folders ----------------------------------------------------------------------------------


def work_folder(root: Path, model: Path) -> Path:
    """Return the folder for the files of a model: its name and the hash of its weights."""
    digest = hashlib.sha256()
    for path in sorted([*model.glob(WEIGHTS), model / "config.json"]):
        digest.update(path.read_bytes())
    return root / f"{model.name}-{digest.hexdigest()[:12]}"


def own_folder(work: Path) -> Path:
    """Return the folder for edgecap's graphs; other code of edgecap has another folder."""
    sources = sorted((ROOT / "edgecap").rglob("*.py"))
    key = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    return work / f"edgecap-{key}"


def _gguf(work: Path, kinds: tuple[str, ...]) -> Path:
    return work / "-".join(["gguf", *kinds])


def _built(work: Path, kind: str) -> Path:
    return work / f"builder-{kind}"


def once(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Fill a folder unless it exists, and return it. An unfinished folder is filled again."""
    if not folder.exists():
        scratch = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        fill(scratch)
        scratch.rename(folder)
    return folder


# --- models -----------------------------------------------------------------------------------


def random_model(shape: str, out: Path) -> None:
    """Write a model of random weights, with a tokenizer that does not fit: exporters need one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", **SHAPES[shape], tie_word_embeddings=True, initializer_range=SPREAD
    )
    AutoModelForCausalLM.from_config(config).float().eval().save_pretrained(out)
    AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(out)


def moved_model(model: Path, seed: int, out: Path) -> None:
    """Write the same function with scales moved between neighbouring matrices."""
    write_weights(model, move_scales(read_weights(model), read_config(model), seed), out)


# --- graphs -----------------------------------------------------------------------------------


def make(model: Path, work: Path, own: Path, formats: Formats) -> None:
    """Write the files of `formats` into `work` and `own`; keep those of an earlier run."""
    warnings.simplefilter("ignore")
    own.mkdir(parents=True, exist_ok=True)
    _export(model, own, [f for f in formats.edgecap if not (own / f).exists()])
    if formats.plain:
        once(work / "plain", lambda out: _plain(model, out))
    for kind in formats.builder if BUILDER not in missing() else ():
        try:
            once(_built(work, kind), lambda out, kind=kind: _build(model, out, kind))
        except BuilderError as error:
            print(f"left out: builder {kind} ({error})")
    if formats.llama and LLAMA not in missing():
        from peers.gguf_files import write_all

        once(_gguf(work, formats.llama), lambda out: write_all(model, out, formats.llama))


def _export(model: Path, own: Path, formats: list[str]) -> None:
    if not formats:
        return
    with tempfile.TemporaryDirectory(dir=own) as scratch:
        out = Path(scratch) / "exported"
        words = ["--model", str(model), "--precision", ",".join(formats), "-o", str(out)]
        subprocess.run([sys.executable, "-m", "edgecap", "export", *words], check=True)
        for name in formats:
            (out / name).rename(own / name)


def _plain(model: Path, out: Path) -> None:
    """Export with Optimum, and store the tied matrix once."""
    from edgecap.graph.export import export_fp32
    from edgecap.graph.finish import write_tied

    with tempfile.TemporaryDirectory(dir=out) as scratch:
        write_tied(export_fp32(model, Path(scratch), False), out)


def _build(model: Path, out: Path, kind: str) -> None:
    words = ["-i", str(model), "-o", str(out), "-c", str(out / "cache"), "-e", "cpu"]
    words += ["-p", "fp32"] if kind == "fp32" else ["-p", "int4", "--extra_options"]
    words += [] if kind == "fp32" else ["accuracy_level=4", f"algo_config={kind}"]
    log = out / "builder.log"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "onnxruntime_genai.models.builder", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    shutil.rmtree(out / "cache", ignore_errors=True)
    if done.returncode:
        raise BuilderError(log.read_text().splitlines()[-1])
