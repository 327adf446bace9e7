"""Variants of an fp32 graph, by name.

    fp16            fp16    every weight; norms, softmax and rotary angles stay in fp32
    bf16            bf16    weights stored in bfloat16, computed in fp32
    int8_dynamic    int8    activations are quantized at run time
    int8_static     int8s   QDQ, with ranges of activations from calibration samples
    block_weights   int4 int8w int4hqq and block sizes (int4b128): weights only, a scale a block
    rewrites        changes of matrices and tables that they share

Gathered tables (tokens, learned positions) are quantized with the matrices. A tied token table is
stored once in every variant: quantized as the LM head, and gathered from there. Every variant
computes the logits of the last positions that are asked for, also if its fp32 graph does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edgecap.graph.last_logits import RECIPE as LAST_LOGITS
from edgecap.graph.last_logits import keep_last_logits
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.variants.bf16 import make_bf16
from edgecap.graph.variants.block_weights import make_block_weights
from edgecap.graph.variants.fp16 import make_fp16
from edgecap.graph.variants.int8_dynamic import make_int8_dynamic
from edgecap.graph.variants.int8_static import make_int8_static
from edgecap.protocols import Ids


class Variant(NamedTuple):
    """A variant: `recipe` is part of the cache key, `sampled` variants need calibration samples."""

    recipe: str
    make: Callable[..., Any]
    sampled: bool = False


def _in_blocks(bits: int, block: int, hqq: bool = False) -> Variant:
    kind = "HQQ, zero points fp32" if hqq else "symmetric, accuracy level 4"
    recipe = f"MatMulNBits {bits} bits block {block}, {kind}, gathered tables in blocks; v1"
    return Variant(recipe, partial(make_block_weights, bits=bits, block=block, hqq=hqq))


VARIANTS = {
    "fp16": Variant("float16 weights; norms, softmax and rotary angles fp32; v1", make_fp16),
    "int8": Variant(
        "dynamic int8, signed weights per channel, gathered tables per row; v3", make_int8_dynamic
    ),
    "int4": _in_blocks(4, 32)._replace(
        recipe="MatMulNBits block 32, symmetric, accuracy level 4, gathered tables in blocks; v1"
    ),
    "bf16": Variant("bfloat16 weights widened at load, computed in fp32; v1", make_bf16),
    "int8w": _in_blocks(8, 32),
    "int8s": Variant(
        "static int8 QDQ, signed weights per channel, unsigned activations by range, "
        "fp32 results; v2",
        make_int8_static,
        True,
    ),
    "int4b16": _in_blocks(4, 16),
    "int4b64": _in_blocks(4, 64),
    "int4b128": _in_blocks(4, 128),
    "int8wb128": _in_blocks(8, 128),
    "int4hqq": _in_blocks(4, 32, hqq=True),
}
# The forms that int8 and int4 had up to schema 6 of records.
VARIANTS |= {"int8d": VARIANTS["int8"], "int4b32": VARIANTS["int4"]}
# The variant to use instead where one is too far from fp32, or its numbers overflow.
CLOSER = {
    "fp16": "bf16",
    "int8": "fp16",
    "int8w": "fp16",
    "int4": "int8",
    **dict.fromkeys(("int8d", "int8s", "int8wb128"), "int8"),
    **dict.fromkeys(("int4b16", "int4b32", "int4b64", "int4b128", "int4hqq", "int4s"), "int4"),
}
RECIPES = {name: f"{variant.recipe}; {LAST_LOGITS}" for name, variant in VARIANTS.items()}
SAMPLED = frozenset(name for name, variant in VARIANTS.items() if variant.sampled)


def make_variant(
    source: Path, precision: str, folder: Path, samples: Sequence[Ids] = ()
) -> list[str]:
    """Make a variant of an fp32 graph in `folder` and return the names of its files.

    `samples` are token ids, each of shape (n,), for variants in `SAMPLED`. Raises UsageError if
    they are missing, or if a library of the variant is not installed.
    """
    variant = VARIANTS[precision]
    model = open_graph(source)
    keep_last_logits(model)
    return write_graph(
        variant.make(model, samples=samples) if variant.sampled else variant.make(model), folder
    )
