"""Advise against variants that will not pay on this machine, before time is spent on them. Pure.

Only the CPU provider is known (ONNX Runtime 1.31): the instructions that its kernels need.
`warnings` gives measured cells the same advice in the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgecap.provider_options import base_name
from edgecap.record import Caution, Machine

INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
HALF_FLAGS = {"avx512_fp16", "asimdhp", "fphp"}
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
SMALL = 1_000_000  # parameters; in smaller models the kernels of products do not matter

FP16 = Caution(
    code="fp16-emulated",
    message="this processor has no fp16 arithmetic: the runtime casts to fp32 and back",
    advice="use fp32 or int8 on this processor; fp16 saves only file size here",
)
INT8 = Caution(
    code="no-int8-dot-product",
    message="this processor has no int8 dot product (VNNI, AMX, dotprod)",
    advice="expect less speed from int8 and int4 than on newer processors",
)
INT8_SATURATES = Caution(
    code="int8-saturates",
    message=INT8.message,
    advice="use int8, which has blocks; if you deploy this one on x86, set "
    "session.x64quantprecision to 1 in your own program too, or sums saturate",
)
BF16 = Caution(
    code="bf16-emulated",
    message="this processor has no bf16 arithmetic: "
    "weights are widened to fp32 when the graph is loaded",
    advice="use fp32 or int8 on this processor; bf16 saves only file size here",
)
BF16_RUNTIME = Caution(
    code="bf16-emulated",
    message="the runtime's CPU provider has no bf16 arithmetic, though this processor has: "
    "weights are widened to fp32",
    advice="use fp32 or int8 here; bf16 saves only file size",
)
HQQ = Caution(
    code="hqq-unpacked",
    message="the runtime's CPU provider has no kernel for 4-bit weights with zero points in fp32: "
    "it unpacks them to fp32",
    advice="use int4 or int4b16 on this provider; HQQ saves only file size here",
)


class _Need(NamedTuple):
    """Processor flags that a precision needs one of, and advice `without` and `with_them`."""

    begins: str
    flags: set[str]
    without: Caution
    with_them: Caution | None = None


# The first match applies. int8, and 4-bit weights at accuracy level 4, multiply in 8 bits.
_NEEDS = (
    *(_Need(name, HALF_FLAGS, FP16) for name in ("fp16", "w8a16", "w4a16")),
    _Need("bf16", BF16_FLAGS, BF16, BF16_RUNTIME),
    _Need("int4hqq", set(), HQQ),
    _Need("int8d", INT8_FLAGS, INT8_SATURATES),
    _Need("int8s", INT8_FLAGS, INT8_SATURATES),
    _Need("int8", INT8_FLAGS, INT8),
    _Need("int4", INT8_FLAGS, INT8),
)


def _on_cpu(machine: Machine, precision: str) -> Caution | None:
    for need in _NEEDS:
        if precision.startswith(need.begins):
            return need.with_them if need.flags & set(machine.flags) else need.without
    return None


_PROVIDERS: dict[str, Callable[[Machine, str], Caution | None]] = {"cpu": _on_cpu}


def advise(
    machine: Machine, precision: str, provider: str, parameters: int | None
) -> Caution | None:
    """Return why a variant will not pay on a provider of this machine.

    None if it may, or if nothing is known. `parameters` of the model, None if unknown: below
    `SMALL`, products are lost beside the cost of each node, and there is no advice.
    """
    advice = _PROVIDERS.get(base_name(provider))
    if advice is None or (parameters is not None and parameters < SMALL):
        return None
    return advice(machine, precision)
