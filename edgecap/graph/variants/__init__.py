"""Variants of an fp32 graph, by name.

    fp16            fp16    every weight; norms, softmax and rotary angles stay in fp32
    bf16            bf16    weights stored in bfloat16, computed in fp32
    blocks/         int8 int4 int4s  as deployed: weights in blocks, formats by need, calibrated
    int8_dynamic    int8d   activations are quantized at run time, one scale a tensor
    int8_static     int8s   QDQ, with ranges of activations from calibration samples
    block_weights   int8w int4b32 int4hqq and block sizes (int4b128): one plain format everywhere
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
from edgecap.graph.variants.blocks.make import SMALL, make_int4, make_int8
from edgecap.graph.variants.blocks.moments import Observe
from edgecap.graph.variants.fp16 import make_fp16
from edgecap.graph.variants.int8_dynamic import make_int8_dynamic
from edgecap.graph.variants.int8_static import make_int8_static
from edgecap.protocols import Ids
from edgecap.provider_options import CONTRIB, STANDARD
from edgecap.spec import TUNED

CORPUS, CALIBRATION = "corpus", "calibration"


class Variant(NamedTuple):
    """A variant: `recipe` is part of the cache key.

    `samples` names the text that its samples are taken from: "corpus" is that of the run, which it
    needs; "calibration" is bundled. `observes` means that the fp32 graph runs on them. `standard`
    means that its weights can also be written in standard operators.
    """

    recipe: str
    make: Callable[..., Any]
    samples: str = ""
    observes: bool = False
    standard: bool = False


def _in_blocks(bits: int, block: int, hqq: bool = False) -> Variant:
    kind = "HQQ, zero points fp32" if hqq else "symmetric, accuracy level 4"
    recipe = f"MatMulNBits {bits} bits block {block}, {kind}, gathered tables in blocks; v1"
    return Variant(recipe, partial(make_block_weights, bits=bits, block=block, hqq=hqq))


def _calibrated(formats: str, make: Callable[..., Any]) -> Variant:
    recipe = f"{formats}; scales in fp16, int8 activations; scales moved, errors fed back; v4"
    return Variant(recipe, make, CALIBRATION, observes=True, standard=True)


VARIANTS = {
    "fp16": Variant("float16 weights; norms, softmax and rotary angles fp32; v1", make_fp16),
    "int8": Variant(
        "8 bits, blocks of 32, scales in fp16, int8 activations; v1", make_int8, standard=True
    ),
    "int4": _calibrated(
        "4 bits, blocks of 32 with zero points; tables and heads in blocks of 16; "
        "8 bits where needed",
        make_int4,
    ),
    "int4s": _calibrated(
        "4 bits, blocks of 64 with zero points; tables and heads in blocks of 32; "
        "8 bits where needed",
        partial(make_int4, recipe=SMALL),
    ),
    "int8d": Variant(
        "dynamic int8, signed weights per channel, gathered tables per row; v3", make_int8_dynamic
    ),
    "int4b32": _in_blocks(4, 32)._replace(
        recipe="MatMulNBits block 32, symmetric, accuracy level 4, gathered tables in blocks; v1"
    ),
    "bf16": Variant("bfloat16 weights widened at load, computed in fp32; v1", make_bf16),
    "int8w": _in_blocks(8, 32),
    "int8s": Variant(
        "static int8 QDQ, signed weights per channel, unsigned activations by range, "
        "fp32 results; v2",
        make_int8_static,
        CORPUS,
    ),
    "int4b16": _in_blocks(4, 16),
    "int4b64": _in_blocks(4, 64),
    "int4b128": _in_blocks(4, 128),
    "int8wb128": _in_blocks(8, 128),
    "int4hqq": _in_blocks(4, 32, hqq=True),
}
# The variant to use instead where one is too far from fp32, or its numbers overflow.
CLOSER = {
    "fp16": "bf16",
    "int8": "fp16",
    "int8w": "fp16",
    "int4": "int8",
    **dict.fromkeys(("int8d", "int8s", "int8wb128"), "int8"),
    **dict.fromkeys(("int4b16", "int4b32", "int4b64", "int4b128", "int4hqq", "int4s"), "int4"),
}
TUNED_RECIPE = (
    "4 and 8 bits in blocks, a format for each group of matrices; scales in fp16, "
    f"int8 activations; scales moved, errors fed back; v2; {LAST_LOGITS}"
)
_IN_STANDARD = "in DequantizeLinear of blocks, products in fp32, v1"
RECIPES = {name: f"{variant.recipe}; {LAST_LOGITS}" for name, variant in VARIANTS.items()}
SAMPLED = {name: variant.samples for name, variant in VARIANTS.items() if variant.samples}


def recipe_of(precision: str, operators: str) -> str:
    """Return the recipe of a variant, a tuned one too, whose blocks are in these operators."""
    recipe = TUNED_RECIPE if precision == TUNED else RECIPES[precision]
    is_standard = precision == TUNED or VARIANTS[precision].standard
    return f"{recipe}; {_IN_STANDARD}" if is_standard and operators == STANDARD else recipe


def make_variant(
    source: Path,
    precision: str,
    folder: Path,
    samples: Sequence[Ids] = (),
    observe: Observe | None = None,
    operators: str = CONTRIB,
) -> list[str]:
    """Make a variant of an fp32 graph in `folder` and return the names of its files.

    `samples` are token ids, each of shape (n,), for variants in `SAMPLED`; `observe` runs the fp32
    graph on one and returns the named tensors. `operators` are those of weights in blocks. Raises
    UsageError if a variant needs samples and has none, or if a library of the variant is not
    installed.
    """
    variant = VARIANTS[precision]
    model = open_graph(source)
    given: dict[str, Any] = {"samples": samples} if variant.samples else {}
    given |= {"operators": operators} if variant.standard else {}
    if (
        variant.observes
    ):  # tensors of the file, which has no slice in front of the head if it is old
        made = variant.make(model, observe=observe, **given)
        keep_last_logits(made)
    else:
        keep_last_logits(model)
        made = variant.make(model, **given)
    return write_graph(made, folder)
