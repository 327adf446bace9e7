"""What the model is, as far as its config and its graphs tell, and whether it can do what was asked.

A decoder predicts the next token; an encoder reads a text at once and predicts none, so that nothing is scored or
decoded. Where a folder has graphs, those without logits and without cache are encoders whatever the config says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.errors import UsageError
from edgecap.graph.export.optimum import TASK
from edgecap.graph.read import GraphFacts
from edgecap.model.architecture import (
    DECODER,
    ENCODER,
    Sizes,
    encoder_sizes,
    encoder_task,
    read_architecture,
    read_genai,
    task_of,
)
from edgecap.model.source import Located
from edgecap.record import Absent, Architecture, Attention
from edgecap.spec import SWEEP_STEPS, Spec

HORIZON = 1024  # steps over which a decoded token's cost is averaged
_NOT_COUNTED = Absent(reason="an encoder is counted from its graph, not from its config")


class Model(NamedTuple):
    """`task` is "decoder" or "encoder"; `sizes` are what is known of its inputs, `exported_as` what Optimum calls it."""

    task: str
    architecture: Architecture | Absent
    sizes: Sizes
    exported_as: str = TASK

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder."""
        return self.task == ENCODER

    @property
    def horizon(self) -> int:
        """Steps that a token's cost is averaged over: 1024, or the model's positions where fewer."""
        return min(HORIZON, self.sizes.positions or HORIZON)

    @property
    def decode_context(self) -> int:
        """Mean positions behind which tokens are decoded; 0 where none are."""
        return 0 if self.encodes else self.horizon // 2

    @property
    def head_dim(self) -> int | None:
        """The width of cached keys, where it is known."""
        layers = self.architecture.layers if isinstance(self.architecture, Architecture) else ()
        return next(
            (x.attention.head_dim for x in layers if isinstance(x.attention, Attention)), None
        )


def read_model(located: Located, graphs: Sequence[GraphFacts] = ()) -> Model:
    """What a located model is; `graphs` are those of its folder, once they were looked at.

    Raises UsageError where it is neither a decoder nor an encoder, or its config cannot be read.
    """
    where = str(located.path / "config.json")
    if _task(located, graphs) == ENCODER:
        return Model(
            ENCODER, _NOT_COUNTED, _sizes(located, graphs, where), encoder_task(located.config)
        )
    architecture = _architecture(located, graphs, where)
    if isinstance(architecture, Absent):
        return Model(
            DECODER,
            architecture,
            Sizes(None, next((g.vocabulary for g in graphs if g.vocabulary), None)),
        )
    return Model(DECODER, architecture, Sizes(architecture.positions, architecture.vocabulary))


def _task(located: Located, graphs: Sequence[GraphFacts]) -> str:
    told = task_of(located.config)
    if (
        graphs
        and not located.config.get("is_encoder_decoder")
        and all(_encodes(g, told) for g in graphs)
    ):
        return ENCODER
    return told or DECODER


def _encodes(graph: GraphFacts, told: str | None) -> bool:
    """No cache and no logits; without a config, segments of a text are an encoder's too."""
    return not graph.has_cache and (
        not graph.predicts or (told is None and "token_type_ids" in graph.inputs)
    )


def _sizes(located: Located, graphs: Sequence[GraphFacts], where: str) -> Sizes:
    """From the config, else from the tables of the graph."""
    told = encoder_sizes(located.config, where)
    shown = graphs[0] if graphs else None
    return Sizes(
        told.positions or (shown.positions if shown else None),
        told.vocabulary or (shown.vocabulary if shown else None),
    )


def _architecture(
    located: Located, graphs: Sequence[GraphFacts], where: str
) -> Architecture | Absent:
    """From the config, or from what the onnxruntime-genai builder leaves in its place; a folder of graphs may have none."""
    if located.kind != "onnx" or located.config:
        return read_architecture(located.config, where)
    if located.genai and graphs:
        return read_genai(
            located.genai, graphs[0].matrix_weights, str(located.path / "genai_config.json")
        )
    return Absent(reason="the folder has no config.json")


def check_request(spec: Spec, model: Model) -> None:
    """Raises UsageError where the model has too few positions for what was asked, or does no such thing."""
    positions = model.sizes.positions
    if model.encodes:
        _check_encoder(spec)
    if spec.context and positions and spec.context > positions:
        raise UsageError(
            f"--context {spec.context} is longer than the model's {positions} positions"
        )
    longest, decoded = max(spec.context_sweep or (), default=0), 0 if model.encodes else SWEEP_STEPS
    if positions and longest + decoded > positions:
        behind = f"with the {decoded} tokens decoded behind it, " if decoded else ""
        raise UsageError(
            f"--context-sweep {longest} does not fit: {behind}it is longer than the model's {positions} positions"
        )
    window = spec.context or model.horizon
    if spec.stride and spec.stride >= window:
        raise UsageError(
            f"--stride {spec.stride} must be less than the {window} positions of a window"
        )


def _check_encoder(spec: Spec) -> None:
    scoring = {
        "--protocol paper": spec.protocol == "paper",
        "--context": spec.context is not None,
        "--stride": spec.stride is not None,
        "--bias": spec.bias_bits is not None,
    }
    asked = [option for option, given in scoring.items() if given]
    if asked:
        raise UsageError(
            f"{asked[0]} is about scoring text, and an encoder does not predict the next token"
        )
    if spec.exporter == "genai":
        raise UsageError("--exporter genai makes decoders only; an encoder is exported by optimum")
