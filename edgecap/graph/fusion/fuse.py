"""Fuse a plain decoder graph with the operators of ONNX Runtime (com.microsoft).

    attention    GroupQueryAttention, which appends to the cache itself; no mask, no repeated heads
    rotary       RotaryEmbedding, with the graph's own cosines and sines of the run's positions
    RMSNorm      SimplifiedLayerNormalization, with a residual SkipSimplifiedLayerNormalization

A part is replaced only if it was measured to compute just that (`match_attention`, `match_rotary`,
`match_norm`); a layer with any other attention stays as it was. Weights and their products are not
changed. Fused attention takes no padding: it uses `attention_mask` for lengths only, and all rows
of a batch have one length.
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
    """Layers with a cache, those with fused attention, and reasons for the others.

    `rotary`, `norms` and `skips` count the other replacements.
    """

    layers: int
    fused: int
    missing: tuple[str, ...]
    rotary: int = 0
    norms: int = 0
    skips: int = 0


def fuse(model: Any) -> FusionResult:
    """Fuse a decoder with KV cache in place; its weights need not be loaded."""
    flow = Flow(model)
    drop_identities(flow)
    matches, missing = _match_layers(flow := flow.refreshed())
    rotary = _replace_attention(flow, matches)
    norms = fuse_norms(flow := flow.refreshed())
    skips = fuse_skips(flow := flow.refreshed())
    import_contrib(model)
    declare_shapes(flow.refreshed())
    return FusionResult(
        len(matches) + len(missing), len(matches), tuple(missing), rotary, norms, skips
    )


def _match_layers(flow: Flow) -> tuple[list[AttentionMatch], list[str]]:
    """Return the attention of matched layers, and a reason for each of the others."""
    matches, missing = list[AttentionMatch](), list[str]()
    measured: dict[str, AttentionParameters | NoMatch] = {}
    inputs = {i.name for i in flow.model.graph.input}
    layers = dict.fromkeys(
        m[1] for i in flow.model.graph.input if (m := re.match(r"past_key_values\.(\d+)", i.name))
    )
    for layer in [n for n in layers if not _is_fused(flow, n)]:
        try:
            if "attention_mask" not in inputs or f"past_key_values.{layer}.key" not in inputs:
                raise NoMatch(
                    "the graph has no attention_mask, or no separate caches of keys and values"
                )
            matches.append(find_attention(flow, layer, measured))
        except NoMatch as reason:
            missing.append(f"layer {layer}: {reason}")
    return matches, missing


def _is_fused(flow: Flow, layer: str) -> bool:
    """Return True if a runtime operator makes the layer's keys already."""
    producer = flow.producer.get(f"present.{layer}.key")
    return producer is not None and producer.domain == _ORT


def _replace_attention(flow: Flow, matches: list[AttentionMatch]) -> int:
    """Replace matched attention, and return the number of rotary embeddings replaced."""
    builder = _Builder(flow)
    for layer in matches:
        builder.layer(layer)
    replace_nodes(
        flow.model, {name for h in matches for name in (h.key, h.value, h.result)}, builder.nodes
    )
    return builder.rotary


class _Builder:
    """Build the new nodes; those that all layers share are made once."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._shared: dict[tuple[str, ...], str] = {}
        self._measured_rotary: MeasuredRotary = {}
        self.nodes: list[Any] = []
        self.rotary = 0

    def layer(self, match: AttentionMatch) -> None:
        """Add the attention of one layer."""
        query = self._rotated(match.query, match.heads, match.width)
        key = self._rotated(match.new_key, match.kv_heads, match.width)
        value = self._flattened(match.new_value, match.kv_heads * match.width)
        options: dict[str, Any] = {"softcap": match.softcap} if match.softcap else {}
        self._add(
            "GroupQueryAttention",
            [
                query,
                key,
                value,
                match.past_key,
                match.past_value,
                self._last_positions(),
                self._total_length(),
            ],
            [match.result, match.key, match.value],
            num_heads=match.heads,
            kv_num_heads=match.kv_heads,
            scale=match.scale,
            local_window_size=match.window,
            do_rotary=0,
            **options,
        )

    def _rotated(self, name: str, heads: int, width: int) -> str:
        """Return a tensor as (batch, sequence, heads x width), rotated by RotaryEmbedding.

        The tensor is (batch, heads, sequence, width).
        """
        rotary = find_rotary(self._flow, name, self._measured_rotary)
        if rotary is None:
            return self._flattened(name, heads * width)
        is_transposed = self._flow.shape(rotary.source) != self._flow.shape(name)
        source = (
            self._merged(rotary.source, heads * width)
            if is_transposed
            else self._flattened(rotary.source, heads * width)
        )
        tables = [self._table(table, rotary) for table in (rotary.cosines, rotary.sines)]
        positions = self._positions(rotary)
        options: dict[str, Any] = (
            {"rotary_embedding_dim": rotary.part} if rotary.part != width else {}
        )
        self.rotary += 1
        return self._add(
            "RotaryEmbedding",
            [source, positions, *tables],
            [f"{name}/turned"],
            num_heads=heads,
            interleaved=int(rotary.interleaved),
            **options,
        )

    def _flattened(self, name: str, width: int) -> str:
        """Return a tensor (batch, heads, sequence, width) as (batch, sequence, heads x width)."""
        producer = self._flow.producer.get(name)
        if (
            producer is not None
            and producer.op_type == "Transpose"
            and list(producer.attribute[0].ints) == [0, 2, 1, 3]
        ):
            return self._merged(producer.input[0], width)
        transposed = self._add("Transpose", [name], [f"{name}/moved"], "", perm=[0, 2, 1, 3])
        return self._add(
            "Reshape", [transposed, self._numbers("flat", [0, 0, width])], [f"{name}/flat"], ""
        )

    def _merged(self, name: str, width: int) -> str:
        """Return (batch, sequence, heads, width) with heads merged, as it was before a split."""
        producer = self._flow.producer.get(name)
        whole = (PRIME_SIZES.batch, PRIME_SIZES.sequence, width)
        if (
            producer is not None
            and producer.op_type == "Reshape"
            and self._flow.shape(producer.input[0]) == whole
        ):
            return str(producer.input[0])
        return self._add(
            "Reshape", [name, self._numbers("flat", [0, 0, width])], [f"{name}/flat"], ""
        )

    # --- shared by all layers -------------------------------------------------------------

    def _last_positions(self) -> str:
        """Return seqlens_k: for each row the index of its last position."""
        axis, one, kind = self._numbers("axis", [1]), self._numbers("one", [1]), 6
        total = self._once("ReduceSum", ["attention_mask", axis], keepdims=0)
        return self._once("Cast", [self._once("Sub", [self._as_int64(total), one])], to=kind)

    def _as_int64(self, name: str) -> str:
        mask = next(i for i in self._flow.model.graph.input if i.name == "attention_mask")
        return name if mask.type.tensor_type.elem_type == 7 else self._once("Cast", [name], to=7)

    def _total_length(self) -> str:
        """Return total_sequence_length, a scalar."""
        shape = self._once("Shape", ["attention_mask"])
        return self._once(
            "Cast", [self._once("Gather", [shape, self._scalar("second", 1)], axis=0)], to=6
        )

    def _table(self, name: str, rotary: RotaryMatch) -> str:
        """Return a table (positions of the run, part / 2) with each angle once."""
        half = (rotary.part + 1) // 2
        ends, steps = (rotary.part, 2) if rotary.interleaved else (half, 1)
        limits = [self._numbers("limit", [n]) for n in (0, ends, -1, steps)]
        once = self._once("Slice", [name, *limits])
        return self._once("Reshape", [once, self._numbers("rows", [-1, half])])

    def _positions(self, rotary: RotaryMatch) -> str:
        """Return the rows of the tables: one after another, or the same for each row of a batch."""
        shape = self._flow.shape(rotary.cosines) or ()
        if shape[0] == 1:
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
