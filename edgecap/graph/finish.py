"""Write an exported graph as it is deployed, and check a fused graph against the plain one.

    fused   with the runtime's own operators, for providers that have them
    bare    without unneeded guards, for providers that compile plain graphs
    plain   as exported

Equal matrices are stored once in all three, and a decoder computes the logits of the last positions
that are asked for (`last_logits`). The fused graph is kept only if it gives the same
results as the plain one; the caller passes the comparison, because no graph is run here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import UsageError
from edgecap.graph.cost.input_sizes import is_cache
from edgecap.graph.fusion.fuse import RECIPE, fuse
from edgecap.graph.fusion.join_matmuls import join_matmuls
from edgecap.graph.last_logits import RECIPE as LAST_LOGITS
from edgecap.graph.last_logits import keep_last_logits
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.scoring import drop_guards
from edgecap.graph.tied_weights import tie_weights
from edgecap.names import one_line

# Divergence allowed between plain and fused graph in fp32, in bits a token.
MAX_DIVERGENCE_BITS = 1e-5
FUSED, BARE, PLAIN = "fused", "bare", "plain"
RECIPES = {
    FUSED: f"tied once; {RECIPE}; products of one tensor joined, v1; {LAST_LOGITS}",
    BARE: f"tied once; guards against NaN behind Softmax dropped; {LAST_LOGITS}",
    PLAIN: f"tied once; {LAST_LOGITS}",
}

DivergenceBetween = Callable[[Path, Path], float]  # divergence of two graphs in bits a token


class WrittenGraph(NamedTuple):
    """Files of a graph relative to its folder, and reasons for parts that were not fused."""

    files: list[str]
    unfused: tuple[str, ...] = ()


def write_finished(
    finish: str, source: Path, out: Path, divergence: DivergenceBetween
) -> WrittenGraph:
    """Write the graph of `source` to the folder `out` in the given finish.

    `divergence` runs both graphs and returns their distance in bits a token.
    """
    return (
        write_fused(source, out, divergence)
        if finish == FUSED
        else write_tied(source, out, bare=finish == BARE)
    )


def write_tied(source: Path, out: Path, bare: bool = False) -> WrittenGraph:
    """Write the graph with tied matrices stored once.

    `bare` also drops the guards against fully masked attention rows, which a decoder without
    padding never has: they split the graph for providers that compile it.
    """
    model = open_graph(source)
    tie_weights(model)
    if bare:
        drop_guards(model.graph)
    keep_last_logits(model)
    return WrittenGraph(write_graph(model, out))


def write_fused(source: Path, out: Path, divergence: DivergenceBetween) -> WrittenGraph:
    """Write the fused graph if it is within `MAX_DIVERGENCE_BITS` of the plain one, else the plain.

    Raise UsageError if the graph has no KV cache: the fused attention operator appends to one.
    """
    model = open_graph(source)
    if not any(is_cache(i.name) for i in model.graph.input):
        raise UsageError(f"{source} cannot be fused: it has no KV cache")
    tie_weights(model)
    fusion = fuse(model)
    join_matmuls(model)
    keep_last_logits(model)
    files = write_graph(model, out)
    del model
    reason = _reason_to_refuse(source, out / files[0], divergence)
    if not reason:
        return WrittenGraph(files, fusion.missing)
    for name in files:
        (out / name).unlink()
    return write_tied(source, out)._replace(unfused=(reason,))


def _reason_to_refuse(plain: Path, fused: Path, divergence: DivergenceBetween) -> str:
    """Return the reason to refuse the fused graph, or an empty string."""
    try:
        bits = divergence(plain, fused)
    except Exception as error:  # of many kinds, from the runtime: fall back to the plain graph
        return f"the runtime does not run the fused graph: {one_line(error, 200)}"
    return (
        ""
        if bits <= MAX_DIVERGENCE_BITS
        else f"the fused graph is {bits:.2g} bits a token away from the model"
    )
