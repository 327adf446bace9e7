"""Write a Llama of transformers as GGUF, as llama.cpp's convert_hf_to_gguf does. Owns gguf.

Every matrix has the requested type, including the token table (`llama-quantize --pure`); norms stay
F32. Plain Q4_0 keeps the LM head of this shape at 8 bits. Pure is the lighter peer, and as uniform
as edgecap's int4.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_all(hf: Path, out: Path, kinds: Iterable[str]) -> None:
    """Write KIND.gguf for each of `kinds`, names of GGMLQuantizationType."""
    config = json.loads((hf / "config.json").read_text())
    for kind in kinds:
        _write(config, hf, out / f"{kind}.gguf", kind)


def _write(config: dict, hf: Path, path: Path, kind: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, config)
    chosen = gguf.GGMLQuantizationType[kind]
    for name, array in _tensors(config, hf):
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer, config: dict) -> None:
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _tensors(config: dict, hf: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and arrays of llama.cpp, without the tied LM head."""
    from safetensors.numpy import load_file

    arrays = load_file(hf / "model.safetensors")
    yield "token_embd.weight", arrays["model.embed_tokens.weight"]
    yield "output_norm.weight", arrays["model.norm.weight"]
    turned = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for name, new in LAYER.items():
            array = arrays[f"model.layers.{layer}.{name}.weight"]
            yield (
                f"blk.{layer}.{new}.weight",
                _turned(array, turned[new]) if new in turned else array,
            )


def _turned(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head so that the two of a rotation are adjacent.

    transformers keeps them half a head apart.
    """
    rows, columns = array.shape
    pairs = array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns))
