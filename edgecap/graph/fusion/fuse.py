"""Turns a plain decoder graph into a fused one, with the operators of ONNX Runtime (com.microsoft).

    attention    GroupQueryAttention, which appends to the cache itself; mask and repeated heads are gone
    rotary       RotaryEmbedding, with the graph's own cosines and sines of the run's positions
    RMSNorm      SimplifiedLayerNormalization, with the residual before it SkipSimplifiedLayerNormalization

Only what was found and measured to be just that is replaced (`heads`, `turns`, `norms`); a layer whose
attention is anything else stays as it was. Weights and their products are not touched. Fused attention
takes no padding: `attention_mask` tells lengths only, rows of a batch are of one length.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from edgecap.graph.fusion.edit import declare_shapes, drop_identities, replace_nodes
from edgecap.graph.fusion.flow import PRIME_SIZES, Flow
from edgecap.graph.fusion.match_attention import (
    AttentionMatch,
    AttentionParameters,
    NoMatch,
    find_attention,
)
from edgecap.graph.fusion.match_norm import fuse_norms, fuse_skips
from edgecap.graph.fusion.match_rotary import MeasuredRotary, RotaryMatch, find_rotary
from edgecap.graph.onnx_file import import_contrib

RECIPE = "fused: GroupQueryAttention, RotaryEmbedding, SkipSimplifiedLayerNormalization; v1"
_ORT = "com.microsoft"
_PREFIX = "edgecap_fused"


class FusionResult(NamedTuple):
    """How many layers have a cache, how many of them have fused attention now, and why others have not."""

    layers: int
    fused: int
    missing: tuple[str, ...]
    rotary: int = 0
    norms: int = 0
    skips: int = 0


def fuse(model: Any) -> FusionResult:
    """Fuses a decoder with KV cache in place, opened with its weights or without them."""
    flow = Flow(model)
    drop_identities(flow)
    found, missing = _attention(flow := flow.again())
    rotary = _replace(flow, found)
    norms = fuse_norms(flow := flow.again())
    skips = fuse_skips(flow := flow.again())
    import_contrib(model)
    declare_shapes(flow.again())
    return FusionResult(len(found) + len(missing), len(found), tuple(missing), rotary, norms, skips)


def _attention(flow: Flow) -> tuple[list[AttentionMatch], list[str]]:
    """Attention of layers that have the one that is known, and the others with a reason."""
    found, missing = list[AttentionMatch](), list[str]()
    measured: dict[str, AttentionParameters | NoMatch] = {}
    inputs = {i.name for i in flow.model.graph.input}
    layers = dict.fromkeys(
        m[1] for i in flow.model.graph.input if (m := re.match(r"past_key_values\.(\d+)", i.name))
    )
    for layer in [n for n in layers if not _is_fused(flow, n)]:
        try:
            if "attention_mask" not in inputs or f"past_key_values.{layer}.key" not in inputs:
                raise NoMatch(
                    "the graph has no attention_mask, or no cache of keys and values apart"
                )
            found.append(find_attention(flow, layer, measured))
        except NoMatch as reason:
            missing.append(f"layer {layer}: {reason}")
    return found, missing


def _is_fused(flow: Flow, layer: str) -> bool:
    """Whether an operator of the runtime's makes the layer's keys already."""
    maker = flow.maker.get(f"present.{layer}.key")
    return maker is not None and maker.domain == _ORT


def _replace(flow: Flow, found: list[AttentionMatch]) -> int:
    """Puts the operators in; returns how many rotations are among them."""
    build = _Builder(flow)
    for layer in found:
        build.layer(layer)
    replace_nodes(
        flow.model, {name for h in found for name in (h.key, h.value, h.result)}, build.nodes
    )
    return build.rotary


class _Builder:
    """Collects new nodes; what all layers share is made once."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._shared: dict[tuple[str, ...], str] = {}
        self._turns: MeasuredRotary = {}
        self.nodes: list[Any] = []
        self.rotary = 0

    def layer(self, at: AttentionMatch) -> None:
        """Attention of one layer."""
        query = self._turned(at.query, at.heads, at.width)
        key = self._turned(at.new_key, at.kv_heads, at.width)
        value = self._flat(at.new_value, at.kv_heads * at.width)
        options: dict[str, Any] = {"softcap": at.softcap} if at.softcap else {}
        self._add(
            "GroupQueryAttention",
            [query, key, value, at.past_key, at.past_value, self._last(), self._total()],
            [at.result, at.key, at.value],
            num_heads=at.heads,
            kv_num_heads=at.kv_heads,
            scale=at.scale,
            local_window_size=at.window,
            do_rotary=0,
            **options,
        )

    def _turned(self, name: str, heads: int, width: int) -> str:
        """A tensor (batch, heads, sequence, width) as (batch, sequence, heads x width), turned by RotaryEmbedding."""
        turn = find_rotary(self._flow, name, self._turns)
        if turn is None:
            return self._flat(name, heads * width)
        moved = self._flow.shape(turn.source) != self._flow.shape(name)
        source = (
            self._merged(turn.source, heads * width)
            if moved
            else self._flat(turn.source, heads * width)
        )
        tables = [self._table(table, turn) for table in (turn.cosines, turn.sines)]
        positions = self._positions(turn)
        options: dict[str, Any] = {"rotary_embedding_dim": turn.part} if turn.part != width else {}
        self.rotary += 1
        return self._add(
            "RotaryEmbedding",
            [source, positions, *tables],
            [f"{name}/turned"],
            num_heads=heads,
            interleaved=int(turn.interleaved),
            **options,
        )

    def _flat(self, name: str, width: int) -> str:
        maker = self._flow.maker.get(name)
        if (
            maker is not None
            and maker.op_type == "Transpose"
            and list(maker.attribute[0].ints) == [0, 2, 1, 3]
        ):
            return self._merged(maker.input[0], width)
        moved = self._add("Transpose", [name], [f"{name}/moved"], "", perm=[0, 2, 1, 3])
        return self._add(
            "Reshape", [moved, self._numbers("flat", [0, 0, width])], [f"{name}/flat"], ""
        )

    def _merged(self, name: str, width: int) -> str:
        """(batch, sequence, heads, width) as it was before it was split, or put together again."""
        maker = self._flow.maker.get(name)
        whole = (PRIME_SIZES.batch, PRIME_SIZES.sequence, width)
        if (
            maker is not None
            and maker.op_type == "Reshape"
            and self._flow.shape(maker.input[0]) == whole
        ):
            return str(maker.input[0])
        return self._add(
            "Reshape", [name, self._numbers("flat", [0, 0, width])], [f"{name}/flat"], ""
        )

    # --- shared by all layers -------------------------------------------------------------

    def _last(self) -> str:
        """seqlens_k: for each row the index of its last position."""
        axis, one, kind = self._numbers("axis", [1]), self._numbers("one", [1]), 6
        total = self._once("ReduceSum", ["attention_mask", axis], keepdims=0)
        return self._once("Cast", [self._once("Sub", [self._as_int64(total), one])], to=kind)

    def _as_int64(self, name: str) -> str:
        mask = next(i for i in self._flow.model.graph.input if i.name == "attention_mask")
        return name if mask.type.tensor_type.elem_type == 7 else self._once("Cast", [name], to=7)

    def _total(self) -> str:
        """total_sequence_length: a scalar."""
        shape = self._once("Shape", ["attention_mask"])
        return self._once(
            "Cast", [self._once("Gather", [shape, self._scalar("second", 1)], axis=0)], to=6
        )

    def _table(self, name: str, turn: RotaryMatch) -> str:
        """(positions of the run, part / 2): each angle once."""
        half = (turn.part + 1) // 2
        ends, steps = (turn.part, 2) if turn.interleaved else (half, 1)
        limits = [self._numbers("limit", [n]) for n in (0, ends, -1, steps)]
        once = self._once("Slice", [name, *limits])
        return self._once("Reshape", [once, self._numbers("rows", [-1, half])])

    def _positions(self, turn: RotaryMatch) -> str:
        """Where in the tables a position's angles are: row after row, or the same for every row."""
        size = self._flow.shape(turn.cosines) or ()
        if size[0] == 1:
            return self._numbers("start", [0])
        count = self._once("Size", ["input_ids"])
        every = self._once("Range", [self._scalar("zero", 0), count, self._scalar("second", 1)])
        return self._once("Reshape", [every, self._once("Shape", ["input_ids"])])

    def _numbers(self, role: str, values: list[int]) -> str:
        return self._stored((role, *map(str, values)), [len(values)], values)

    def _scalar(self, role: str, value: int) -> str:
        return self._stored((role, "scalar", str(value)), [], [value])

    def _stored(self, key: tuple[str, ...], dims: list[int], values: list[int]) -> str:
        from onnx import TensorProto, helper

        if key not in self._shared:
            self._shared[key] = f"{_PREFIX}/{'_'.join(key)}"
            proto = helper.make_tensor(self._shared[key], TensorProto.INT64, dims, values)
            self._flow.model.graph.initializer.append(proto)
        return self._shared[key]

    def _once(self, op: str, inputs: list[str], **attributes: Any) -> str:
        key = (op, *inputs, str(sorted(attributes.items())))
        if key not in self._shared:
            self._shared[key] = f"{_PREFIX}/{op}_{len(self._shared)}"
            self._add(op, inputs, [self._shared[key]], "", **attributes)
        return self._shared[key]

    def _add(
        self, op: str, inputs: list[str], outputs: list[str], domain: str = _ORT, **attributes: Any
    ) -> str:
        from onnx import helper

        name = f"{outputs[0]}/{op}"
        self.nodes.append(
            helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]
