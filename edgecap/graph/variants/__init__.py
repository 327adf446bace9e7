"""Variants of an fp32 graph, by name.

    fp16            fp16    every weight; norms, softmax and rotary angles stay in fp32
    bf16            bf16    weights stored in bfloat16, computed in fp32
    blocks/         int8 int4 int4s  as deployed: weights in blocks, formats by need, calibrated
    int8_dynamic    int8d   activations are quantized at run time, one scale a tensor
    int8_static     int8s   QDQ, with ranges of activations from calibration samples
    block_weights   int8w int4b32 int4hqq and block sizes (int4b128): one plain format everywhere
    rewrites        changes of matrices and tables that they share
    arithmetic      products of a variant in fp16 or bf16, for providers that compute in these

A variant is weights x arithmetic. The name of a precision gives the weights; the provider gives the
arithmetic, unless the name does (w8a16: int8 weights, activations in fp16).

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
from edgecap.graph.variants.arithmetic import ARITHMETIC, compute_in
from edgecap.graph.variants.bf16 import make_bf16
from edgecap.graph.variants.block_weights import make_block_weights
from edgecap.graph.variants.blocks.make import SMALL, make_int4, make_int8
from edgecap.graph.variants.blocks.moments import Observe
from edgecap.graph.variants.fp16 import make_fp16
from edgecap.graph.variants.int8_dynamic import make_int8_dynamic
from edgecap.graph.variants.int8_static import make_int8_static
from edgecap.protocols import Ids
from edgecap.provider_options import (
    BF16_PROVIDERS,
    CONTRIB,
    HALF_PROVIDERS,
    STANDARD,
    base_name,
    block_operators,
)

CORPUS, CALIBRATION = "corpus", "calibration"


class Form(NamedTuple):
    """Weights, a key of `VARIANTS`, and arithmetic, a key of `ARITHMETIC` or "" for their own.

    `operators` are those of weights in blocks.
    """

    weights: str
    arithmetic: str = ""
    operators: str = CONTRIB

    @property
    def recipe(self) -> str:
        """Return how the variant is made; it is part of the cache key."""
        parts = [VARIANTS[self.weights].recipe]
        parts += [ARITHMETIC[self.arithmetic]] if self.arithmetic else []
        parts += [LAST_LOGITS]
        parts += [_IN_STANDARD] if self.operators == STANDARD else []
        return "; ".join(parts)


class Variant(NamedTuple):
    """A variant: `recipe` is part of the cache key.

    `blocks` tells that products unpack the weights, and may compute in any type; `standard` that
    the blocks can also be written in standard operators. `samples` names the text that its samples
    are taken from: "corpus" is that of the run, which it needs; "calibration" is bundled.
    `observes` means that the fp32 graph runs on them.
    """

    recipe: str
    make: Callable[..., Any]
    samples: str = ""
    observes: bool = False
    blocks: bool = False
    standard: bool = False


def _in_blocks(bits: int, block: int, hqq: bool = False) -> Variant:
    kind = "HQQ, zero points fp32" if hqq else "symmetric, accuracy level 4"
    recipe = f"MatMulNBits {bits} bits block {block}, {kind}, gathered tables in blocks; v1"
    make = partial(make_block_weights, bits=bits, block=block, hqq=hqq)
    return Variant(recipe, make, blocks=True)


def _calibrated(formats: str, make: Callable[..., Any]) -> Variant:
    recipe = f"{formats}; scales in fp16, int8 activations; scales moved, errors fed back; v4"
    return Variant(recipe, make, CALIBRATION, observes=True, blocks=True, standard=True)


VARIANTS = {
    "fp16": Variant("float16 weights; norms, softmax and rotary angles fp32; v1", make_fp16),
    "int8": Variant(
        "8 bits, blocks of 32, scales in fp16, int8 activations; v1",
        make_int8,
        blocks=True,
        standard=True,
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
FORMS = {
    "w8a16": Form("int8", "fp16"),
    "w4a16": Form("int4", "fp16"),
    "w8a32": Form("int8", "fp32"),
    "w4a32": Form("int4", "fp32"),
}
# The variant to use instead where one is too far from fp32, or its numbers overflow.
CLOSER = {
    "fp16": "bf16",
    "int8": "fp16",
    "int8w": "fp16",
    "int4": "int8",
    **dict.fromkeys(("int8d", "int8s", "int8wb128"), "int8"),
    "w8a16": "fp16",
    "w8a32": "fp16",
    "w4a16": "w8a16",
    "w4a32": "w8a32",
    **dict.fromkeys(("int4b16", "int4b32", "int4b64", "int4b128", "int4hqq", "int4s"), "int4"),
}
_IN_STANDARD = "in DequantizeLinear of blocks, products in fp32, v1"
TUNED_RECIPE = (
    "4 and 8 bits in blocks, a format for each group of matrices; scales in fp16, "
    f"int8 activations; scales moved, errors fed back; v2; {LAST_LOGITS}"
)
NAMES = (*VARIANTS, *FORMS)


def form_of(precision: str, provider: str) -> Form:
    """Return the form of a precision, one of `NAMES`, on a provider."""
    name, form = base_name(provider), FORMS.get(precision, Form(precision))
    variant = VARIANTS[form.weights]
    operators = block_operators(provider) if variant.standard else CONTRIB
    arithmetic = form.arithmetic
    if precision == "bf16" and name in BF16_PROVIDERS:
        arithmetic = "bf16"
    elif name in HALF_PROVIDERS and (precision == "fp16" or variant.blocks):
        arithmetic = arithmetic or "fp16"
    return Form(form.weights, arithmetic, operators)


def computes_in_half(precision: str, provider: str) -> bool:
    """Return True if a precision has products and cache in fp16 or bf16 on a provider."""
    return precision in NAMES and form_of(precision, provider).arithmetic in ("fp16", "bf16")


def samples_of(precision: str) -> str:
    """Return the text that a precision takes samples from, "" if none; see `Variant`."""
    weights = FORMS[precision].weights if precision in FORMS else precision
    return VARIANTS[weights].samples if weights in VARIANTS else ""


def tuned_recipe(operators: str) -> str:
    """Return the recipe of a tuned variant whose blocks are in these operators."""
    return f"{TUNED_RECIPE}; {_IN_STANDARD}" if operators == STANDARD else TUNED_RECIPE


def make_variant(
    source: Path,
    form: Form,
    folder: Path,
    samples: Sequence[Ids] = (),
    observe: Observe | None = None,
    positions: int | None = None,
) -> list[str]:
    """Make a variant of an fp32 graph in `folder` and return the names of its files.

    `samples` are token ids, each of shape (n,), for variants with `samples`; `observe` runs the
    fp32 graph on one and returns the named tensors. `positions` are the model's, if known. Raises
    UsageError if a variant needs samples and has none, or if a library of the variant is not
    installed.
    """
    variant = VARIANTS[form.weights]
    model = open_graph(source)
    given: dict[str, Any] = {"samples": samples} if variant.samples else {}
    given |= {"operators": form.operators} if variant.standard else {}
    if form.arithmetic and not variant.blocks:  # the type of all numbers, weights too
        keep_last_logits(model)
        made = model
    elif variant.observes:  # tensors of the file; an old one has no slice in front of the head
        made = variant.make(model, observe=observe, **given)
        keep_last_logits(made)
    else:
        keep_last_logits(model)
        made = variant.make(model, **given)
    return write_graph(compute_in(form.arithmetic, made, positions), folder)
