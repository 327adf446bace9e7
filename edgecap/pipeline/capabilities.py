"""Describe a model from its config and graphs, and check that it can do what is asked.

A decoder predicts the next token. An encoder reads a text at once and predicts none, so nothing is
scored or decoded. Graphs without logits and without cache are encoders, whatever the config says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.errors import Uncountable, UsageError
from edgecap.graph.export.optimum import TASK
from edgecap.graph.onnx_file import GraphFacts
from edgecap.model.architecture import (
    DECODER,
    ENCODER,
    Sizes,
    decoder_sizes,
    encoder_sizes,
    encoder_task,
    genai_sizes,
    gives_shape,
    read_architecture,
    read_genai,
    task_of,
)
from edgecap.model.locate import LocatedModel
from edgecap.record import Absent, Architecture, Attention
from edgecap.spec import SWEEP_STEPS, Spec

HORIZON = 1024  # steps over which the cost of a decoded token is averaged
_NOT_COUNTED = Absent(reason="an encoder is counted from its graph, not from its config")


class Model(NamedTuple):
    """Task, architecture and sizes of a model.

    `task` is "decoder" or "encoder"; `sizes` holds the positions and token ids that are known;
    `exported_as` is Optimum's name of the task.
    """

    task: str
    architecture: Architecture | Absent
    sizes: Sizes
    exported_as: str = TASK

    @property
    def encodes(self) -> bool:
        """True for an encoder."""
        return self.task == ENCODER

    @property
    def horizon(self) -> int:
        """Steps over which a token's cost is averaged: 1024, or the model's positions if fewer."""
        return min(HORIZON, self.sizes.positions or HORIZON)

    @property
    def decode_context(self) -> int:
        """Mean context of decoded tokens, in positions; 0 for an encoder."""
        return 0 if self.encodes else self.horizon // 2

    @property
    def head_dim(self) -> int | None:
        """Width of cached keys, or None if unknown."""
        layers = self.architecture.layers if isinstance(self.architecture, Architecture) else ()
        return next(
            (x.attention.head_dim for x in layers if isinstance(x.attention, Attention)), None
        )


def read_model(located: LocatedModel, graphs: Sequence[GraphFacts] = ()) -> Model:
    """Describe a model. `graphs` are the inspected graphs of its folder.

    Raises UsageError if it is neither a decoder nor an encoder, or its config cannot be read.
    """
    where = str(located.path / "config.json")
    if _task(located, graphs) == ENCODER:
        return Model(
            ENCODER, _NOT_COUNTED, _sizes(located, graphs, where), encoder_task(located.config)
        )
    architecture = _architecture(located, graphs, where)
    if isinstance(architecture, Absent):
        return Model(DECODER, architecture, _decoder_sizes(located, graphs, where))
    return Model(DECODER, architecture, Sizes(architecture.positions, architecture.vocabulary))


def _task(located: LocatedModel, graphs: Sequence[GraphFacts]) -> str:
    task = task_of(located.config)
    two_parts = located.config.get("is_encoder_decoder")
    if graphs and not two_parts and all(_encodes(g, task) for g in graphs):
        return ENCODER
    return task or DECODER


def _encodes(graph: GraphFacts, task: str | None) -> bool:
    """Return True for a graph without cache and logits.

    If no config names the task, an input for segment ids marks an encoder, too.
    """
    has_segments = task is None and "token_type_ids" in graph.inputs
    return not graph.has_cache and (not graph.predicts or has_segments)


def _sizes(located: LocatedModel, graphs: Sequence[GraphFacts], where: str) -> Sizes:
    """Read positions and vocabulary from the config, else from the tables of the graph."""
    sizes = encoder_sizes(located.config, where)
    if not graphs:
        return sizes
    graph = graphs[0]
    return Sizes(sizes.positions or graph.positions, sizes.vocabulary or graph.vocabulary)


def _decoder_sizes(located: LocatedModel, graphs: Sequence[GraphFacts], where: str) -> Sizes:
    """Read positions and vocabulary from the config, else from the graphs."""
    sizes = (
        decoder_sizes(located.config, where)
        if located.config or not located.genai
        else genai_sizes(located.genai, str(located.path / "genai_config.json"))
    )
    return Sizes(
        sizes.positions or next((g.positions for g in graphs if g.positions), None),
        sizes.vocabulary or next((g.vocabulary for g in graphs if g.vocabulary), None),
    )


def _architecture(
    located: LocatedModel, graphs: Sequence[GraphFacts], where: str
) -> Architecture | Absent:
    """Read the architecture from config.json, or from genai_config.json.

    A folder of graphs may have neither. Return Absent if it is a decoder that cannot be counted.
    """
    if located.kind != "onnx" or located.config:
        try:
            return read_architecture(located.config, where)
        except Uncountable as error:
            if located.kind != "onnx" and not gives_shape(located.config):
                raise UsageError(str(error)) from error
            return Absent(reason=str(error).replace(where, "config.json", 1))
    if located.genai and graphs:
        return read_genai(
            located.genai, graphs[0].matrix_weights, str(located.path / "genai_config.json")
        )
    return Absent(reason="the folder has no config.json")


def check_request(spec: Spec, model: Model) -> None:
    """Raise UsageError if the model has too few positions for the request, or cannot do it."""
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
            f"--context-sweep {longest} does not fit: {behind}it is longer than the model's "
            f"{positions} positions"
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
    options = [option for option, given in scoring.items() if given]
    if options:
        raise UsageError(
            f"{options[0]} is about scoring text, and an encoder does not predict the next token"
        )
    if spec.exporter == "genai":
        raise UsageError("--exporter genai makes decoders only; an encoder is exported by optimum")
