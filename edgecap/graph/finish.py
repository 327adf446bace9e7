"""Writes an exported graph as it is deployed: equal matrices stored once, attention, norms and products fused, and checked.

    fused   with the runtime's own operators, for providers that have them
    bare    without guards that nothing needs, for providers that compile plain graphs
    plain   as exported

The fused graph stands only where it answers as the plain one does; whoever calls brings the comparison, since
no graph is run here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import UsageError
from edgecap.graph.cost.input_sizes import is_cache
from edgecap.graph.fusion.fuse import RECIPE, fuse
from edgecap.graph.fusion.join_matmuls import join_matmuls
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.scoring import drop_guards
from edgecap.graph.tied_weights import tie_weights

MAX_DIVERGENCE_BITS = (
    1e-5  # of divergence a token between the plain graph and the fused one, both in fp32
)
FUSED, BARE, PLAIN = "fused", "bare", "plain"
RECIPES = {
    FUSED: f"tied once; {RECIPE}; products of one tensor joined, v1",
    BARE: "tied once; guards against NaN behind Softmax dropped",
    PLAIN: "tied once",
}

DivergenceBetween = Callable[
    [Path, Path], float
]  # divergence of the second graph from the first, bits a token


class WrittenGraph(NamedTuple):
    """The files of a graph relative to its folder, and why parts of it, or all, were not fused."""

    files: list[str]
    unfused: tuple[str, ...] = ()


def write_finished(finish: str, source: Path, out: Path, apart: DivergenceBetween) -> WrittenGraph:
    """Writes the graph of `source` to `out` as `finish` says."""
    return (
        write_fused(source, out, apart)
        if finish == FUSED
        else write_tied(source, out, bare=finish == BARE)
    )


def write_tied(source: Path, out: Path, bare: bool = False) -> WrittenGraph:
    """Writes the graph with a matrix that is stored twice stored once.

    `bare` drops the guards against rows that are masked whole, which a decoder without padding never has: they cut
    the graph in pieces for providers that compile it.
    """
    model = open_graph(source)
    tie_weights(model)
    if bare:
        drop_guards(model.graph)
    return WrittenGraph(write_graph(model, out))


def write_fused(source: Path, out: Path, apart: DivergenceBetween) -> WrittenGraph:
    """Writes the fused graph where it is within `MAX_DIVERGENCE_BITS` of the plain one in `source`, which is written otherwise.

    Raises UsageError where the graph keeps no cache: its attention has nothing that the fused operator appends to.
    """
    model = open_graph(source)
    if not any(is_cache(i.name) for i in model.graph.input):
        raise UsageError(f"{source} cannot be fused: it has no KV cache")
    tie_weights(model)
    found = fuse(model)
    join_matmuls(model)
    files = write_graph(model, out)
    del model
    reason = _refused(source, out / files[0], apart)
    if not reason:
        return WrittenGraph(files, found.missing)
    for name in files:
        (out / name).unlink()
    return write_tied(source, out)._replace(unfused=(reason,))


def _refused(plain: Path, fused: Path, apart: DivergenceBetween) -> str:
    """Why the fused graph may not stand, empty where it may."""
    try:
        bits = apart(plain, fused)
    except Exception as error:  # whatever the runtime has against it: the plain graph is there
        return f"the runtime does not run the fused graph: {' '.join(str(error).split())[:200]}"
    return (
        ""
        if bits <= MAX_DIVERGENCE_BITS
        else f"the fused graph is {bits:.2g} bits a token away from the plain one"
    )
