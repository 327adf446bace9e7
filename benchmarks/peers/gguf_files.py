"""Write a Llama of transformers as GGUF, and quantize it with llama.cpp's own quantizer.

The weights are written in F32, as llama.cpp's convert_hf_to_gguf does. Every other type is made of
that by `llama_model_quantize` with its defaults: no importance matrix, and the mixture of types
that a user gets (Q4_0 keeps a tied table at 8 or 6 bits; Q4_K_M takes Q5_0 and Q8_0 where a row is
no multiple of 256). Owns gguf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from peers.hf_folder import read_config, read_weights

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
OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write_all(hf: Path, out: Path, kinds: Iterable[str]) -> None:
    """Write KIND.gguf for each of `kinds`, names of llama.cpp's file types."""
    from peers.llama import quantize

    source = out / "F32.gguf"
    _write(read_config(hf), read_weights(hf), source)
    for kind in kinds:
        if kind != "F32":
            quantize(source, out / f"{kind}.gguf", kind)
    if "F32" not in kinds:
        source.unlink()


def _write(config: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, config)
    for name, array in _tensors(config, arrays):
        writer.add_tensor(name, array)
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


def _tensors(config: dict, arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and arrays of llama.cpp; a tied LM head is not there."""
    for name, new in OUTER.items():
        if f"{name}.weight" in arrays:
            yield f"{new}.weight", arrays[f"{name}.weight"]
    turned = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for name, new in LAYER.items():
            array = arrays[f"model.layers.{layer}.{name}.weight"]
            yield (
                f"blk.{layer}.{new}.weight",
                join_pairs(array, turned[new]) if new in turned else array,
            )


def join_pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head so that the two of a rotation are adjacent.

    transformers keeps them half a head apart.
    """
    rows, columns = array.shape
    pairs = array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return np.ascontiguousarray(pairs.reshape(rows, columns))
