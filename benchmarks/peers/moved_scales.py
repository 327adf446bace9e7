"""Move scales between neighbouring matrices at random; the function stays the same.

    norm        -> columns of the matrices that read it (query, key, value; gate, up; untied head)
    up, row r   -> down, column r
    value, row  -> output, the columns of all heads of its group

A format of blocks depends on how the sizes of neighbouring columns differ, which training leaves to
chance: what one matrix has more of, the next has less of. A format that only suits the trained
scales loses more than others when they are moved.
"""

from __future__ import annotations

import numpy as np

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj")


def move_scales(arrays: dict[str, np.ndarray], config: dict, seed: int) -> dict[str, np.ndarray]:
    """Return the weights of a Llama with scales moved."""
    moved, rng = dict(arrays), np.random.default_rng(seed)
    for layer in range(config["num_hidden_layers"]):
        names = {n: f"model.layers.{layer}.{n}.weight" for n in (*ATTENTION, *MLP)}
        before = f"model.layers.{layer}"
        _out_of_norm(moved, f"{before}.input_layernorm.weight", [names[n] for n in ATTENTION], rng)
        norm = f"{before}.post_attention_layernorm.weight"
        _out_of_norm(moved, norm, [names[n] for n in MLP], rng)
        _into_next(moved, names["mlp.up_proj"], f"{before}.mlp.down_proj.weight", rng)
        value, output = names["self_attn.v_proj"], f"{before}.self_attn.o_proj.weight"
        _into_next(moved, value, output, rng, config)
    if "lm_head.weight" in moved:
        _out_of_norm(moved, "model.norm.weight", ["lm_head.weight"], rng)
    return moved


def _factors(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp2(rng.uniform(-0.5, 0.5, n)).astype(np.float32)


def _out_of_norm(
    arrays: dict[str, np.ndarray], norm: str, readers: list[str], rng: np.random.Generator
) -> None:
    factors = _factors(rng, len(arrays[norm]))
    arrays[norm] = arrays[norm] / factors
    for name in readers:
        arrays[name] = arrays[name] * factors


def _into_next(
    arrays: dict[str, np.ndarray],
    first: str,
    second: str,
    rng: np.random.Generator,
    grouped: dict | None = None,
) -> None:
    """Divide rows of `first` by factors and multiply the columns of `second` that read them.

    With the config of grouped heads, each group of rows is read by several heads.
    """
    factors = _factors(rng, len(arrays[first]))
    arrays[first] = arrays[first] / factors[:, None]
    if grouped:
        groups = grouped["num_key_value_heads"]
        heads = grouped["num_attention_heads"] // groups
        factors = np.repeat(factors.reshape(groups, 1, -1), heads, axis=1).reshape(-1)
    arrays[second] = arrays[second] * factors
