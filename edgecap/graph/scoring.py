"""Gives a decoder graph a head that answers -log p of given targets, so that logits never leave it.

logits -> Cast(float) -> LogSoftmax -> GatherElements(targets) -> Neg -> nll
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.graph.read import open_graph

if TYPE_CHECKING:
    import onnx

TARGETS = "edgecap_targets"
NLL = "edgecap_nll"


def scoring_graph(path: Path) -> bytes:
    """The serialised graph with input `edgecap_targets` (batch, sequence) int64 and output
    `edgecap_nll` (batch, sequence, 1) float32, in nats; the logits are no longer an output.

    Weights beside the file stay there: give the runtime its folder.
    """
    model = open_graph(path, weights=False)
    add_scoring(model)
    return bytes(model.SerializeToString())


def add_scoring(model: onnx.ModelProto) -> None:
    """Adds the head in place."""
    from onnx import TensorProto, helper

    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=13)
    axes = helper.make_tensor("edgecap_last", TensorProto.INT64, [1], [-1])
    unsqueeze = (
        helper.make_node("Unsqueeze", [TARGETS, "edgecap_last"], ["edgecap_index"])
        if opset >= 13
        else helper.make_node("Unsqueeze", [TARGETS], ["edgecap_index"], axes=[-1])
    )
    graph.initializer.append(axes)
    graph.node.extend(
        [
            helper.make_node("Cast", ["logits"], ["edgecap_logits"], to=TensorProto.FLOAT),
            helper.make_node("LogSoftmax", ["edgecap_logits"], ["edgecap_logp"], axis=-1),
            unsqueeze,
            helper.make_node("GatherElements", ["edgecap_logp", "edgecap_index"], ["edgecap_gathered"], axis=-1),
            helper.make_node("Neg", ["edgecap_gathered"], [NLL]),
        ]
    )
    graph.input.append(helper.make_tensor_value_info(TARGETS, TensorProto.INT64, ["batch_size", "sequence_length"]))
    graph.output.remove(next(o for o in graph.output if o.name == "logits"))
    graph.output.insert(0, helper.make_tensor_value_info(NLL, TensorProto.FLOAT, ["batch_size", "sequence_length", 1]))
