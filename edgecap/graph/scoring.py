"""Add a head to a decoder graph that returns -log p of given targets instead of logits.

logits -> Cast(float) -> [Slice] -> LogSoftmax -> GatherElements(targets) -> Neg -> nll

Logits then never leave the graph, which computes those of all positions. Two things are removed
that scoring does not need: guards against attention rows in which everything is masked, and a
second copy of tied embeddings that the runtime would make. docs/performance.md says what each is
worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.graph.last_logits import fix_kept_logits
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.weight_locations import InMemoryGraph, in_memory

if TYPE_CHECKING:
    import onnx

TARGETS = "edgecap_targets"
NLL = "edgecap_nll"
_FLOAT = 1  # TensorProto.FLOAT


def scoring_graph(path: Path, on_host: bool = True, vocabulary: int | None = None) -> InMemoryGraph:
    """Return the scoring graph of an ONNX file.

    Its input `edgecap_targets` is (batch, sequence) int64, its output `edgecap_nll` (batch,
    sequence, 1) float32 in nats; the logits are no longer an output. `on_host` means that it will
    run in main memory; `vocabulary` limits the softmax to the first ids. Weights stay on the disk.
    """
    model = open_graph(path, weights=False)
    fix_kept_logits(model, 0)
    drop_guards(model.graph)
    if on_host:
        keep_tied_tables(model.graph)
    add_scoring(model, vocabulary)
    return in_memory(model, path)


def fixed_logits_graph(path: Path, positions: int) -> InMemoryGraph:
    """Return the graph of an ONNX file with the logits of the last positions, 0 for all.

    Its weights stay there.
    """
    model = open_graph(path, weights=False)
    fix_kept_logits(model, positions)
    return in_memory(model, path)


def drop_guards(graph: onnx.GraphProto) -> int:
    """Remove Where(IsNaN(p), 0, p) behind a softmax, and return the number removed.

    The guard is for positions that may attend to nothing, which padding on the left makes. A scored
    text has no padding; each position attends at least to itself.
    """
    producers = {output: node for node in graph.node for output in node.output}
    softmax = {o for n in graph.node if n.op_type in ("Softmax", "Cast") for o in n.output}
    unguarded: dict[str, str] = {}
    for node in [n for n in graph.node if n.op_type == "Where"]:
        test = producers.get(node.input[0])
        guarded = node.input[2]
        if (
            test is not None
            and test.op_type == "IsNaN"
            and test.input[0] == guarded
            and guarded in softmax
        ):
            unguarded[node.output[0]] = guarded
            graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = unguarded.get(name, name)
    used = {i for n in graph.node for i in n.input}
    for node in [n for n in graph.node if n.op_type == "IsNaN" and n.output[0] not in used]:
        graph.node.remove(node)
    return len(unguarded)


def keep_tied_tables(graph: onnx.GraphProto) -> list[str]:
    """Make tied float tables inputs with a default value, and return their names.

    Such tables are gathered from and, transposed, multiplied with. The runtime may not fold or
    repack what a caller could replace, so that it multiplies with the table as it lies on disk: 1
    copy instead of 2, as fast for runs of 100 positions and more.
    """
    from onnx import helper

    tables = {t.name: t for t in graph.initializer if t.data_type == _FLOAT and len(t.dims) == 2}
    gathered = {n.input[0] for n in graph.node if n.op_type == "Gather"}
    transposed = {n.input[0] for n in graph.node if n.op_type == "Transpose"}
    inputs = {i.name for i in graph.input}
    names = sorted((tables.keys() & gathered & transposed) - inputs)
    graph.input.extend(
        helper.make_tensor_value_info(n, _FLOAT, list(tables[n].dims)) for n in names
    )
    return names


def add_scoring(model: onnx.ModelProto, vocabulary: int | None = None) -> None:
    """Add the scoring head in place; see `scoring_graph` for its input and output."""
    from onnx import TensorProto, helper

    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=13)
    constants = {"edgecap_last": [-1]}
    if vocabulary:
        constants |= {"edgecap_first": [0], "edgecap_vocabulary": [vocabulary]}
    graph.initializer.extend(
        helper.make_tensor(n, TensorProto.INT64, [1], v) for n, v in constants.items()
    )
    logits = "edgecap_logits"
    graph.node.append(helper.make_node("Cast", ["logits"], [logits], to=TensorProto.FLOAT))
    if vocabulary:
        limits = [logits, "edgecap_first", "edgecap_vocabulary", "edgecap_last"]
        graph.node.append(helper.make_node("Slice", limits, ["edgecap_limited"]))
        logits = "edgecap_limited"
    unsqueeze = (
        helper.make_node("Unsqueeze", [TARGETS, "edgecap_last"], ["edgecap_index"])
        if opset >= 13
        else helper.make_node("Unsqueeze", [TARGETS], ["edgecap_index"], axes=[-1])
    )
    graph.node.extend(
        [
            helper.make_node("LogSoftmax", [logits], ["edgecap_logp"], axis=-1),
            unsqueeze,
            helper.make_node(
                "GatherElements", ["edgecap_logp", "edgecap_index"], ["edgecap_gathered"], axis=-1
            ),
            helper.make_node("Neg", ["edgecap_gathered"], [NLL]),
        ]
    )
    graph.input.append(
        helper.make_tensor_value_info(TARGETS, TensorProto.INT64, ["batch_size", "sequence_length"])
    )
    graph.output.remove(next(o for o in graph.output if o.name == "logits"))
    graph.output.insert(
        0,
        helper.make_tensor_value_info(NLL, TensorProto.FLOAT, ["batch_size", "sequence_length", 1]),
    )
