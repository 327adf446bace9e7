"""Make a variant of a graph whose matrices and tables are stored in blocks of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecap.graph.variants.blocks.formats import (
    EIGHT,
    EIGHT_LARGE,
    FOUR,
    FOUR_LARGE,
    FOUR_SMALL,
    Format,
    MatrixNeed,
    widen,
)
from edgecap.graph.variants.blocks.moments import Observe
from edgecap.graph.variants.blocks.rounding import BlockWeights
from edgecap.graph.variants.blocks.weights import GraphWeights
from edgecap.protocols import Ids
from edgecap.provider_options import CONTRIB

if TYPE_CHECKING:
    import onnx


class Recipe(NamedTuple):
    """Formats of a variant: of matrices, of heads and tables, and of matrices that need more.

    Matrices get the format `wide` in turns, while the mean over all of them, heads and tables
    apart, stays within `limit` bits a weight.
    """

    matrices: Format
    tables: Format
    wide: Format
    limit: float


SMALL = Recipe(FOUR_LARGE, FOUR, EIGHT_LARGE, 4.4)
BALANCED = Recipe(FOUR, FOUR_SMALL, EIGHT_LARGE, 5.65)
_EARLY = 0.25  # of the matrices


def make_int8(model: onnx.ModelProto, operators: str = CONTRIB) -> Any:
    """Store every matrix and table in 8 bits."""
    weights = GraphWeights(model)
    return weights.write({name: weights.round(name, EIGHT) for name in weights.names}, operators)


def make_int4(
    model: onnx.ModelProto,
    samples: Sequence[Ids] = (),
    observe: Observe | None = None,
    recipe: Recipe = BALANCED,
    operators: str = CONTRIB,
) -> Any:
    """Store matrices and tables in 4 bits, and in 8 bits the matrices that need it.

    `samples` are token ids of shape (n,), and `observe` runs the fp32 graph on them. Without
    samples all inputs of a matrix count the same.
    """
    weights = GraphWeights(model)
    if observe is not None and samples:
        weights.calibrate(samples, observe)
    return weights.write(_mixed(weights, recipe), operators)


def _mixed(weights: GraphWeights, recipe: Recipe) -> dict[str, BlockWeights]:
    rounded: dict[str, BlockWeights] = {}
    needs: dict[str, MatrixNeed] = {}
    turns = _turns(weights)
    for name in weights.names:
        table = name not in turns
        chosen = weights.fitting(name, recipe.tables if table else recipe.matrices)
        rounded[name] = weights.round(name, chosen)
        if not table:
            rows, columns = weights.shape(name)
            error = weights.error(name, rounded[name]) / (rows * columns)
            wide = weights.fitting(name, recipe.wide).size(rows, columns)
            small = chosen.size(rows, columns)
            needs[name] = MatrixNeed(rows * columns, small, wide, error, turns[name])
    for name in widen(needs, recipe.limit):
        rounded[name] = weights.round(name, weights.fitting(name, recipe.wide))
    return rounded


def _turns(weights: GraphWeights) -> dict[str, int]:
    """Return when each matrix gets 8 bits: the last one, the early ones, attention's, the rest.

    An error in an early matrix is carried through all layers; softmax enlarges errors of queries
    and keys; and nothing comes behind the last matrix that could lessen its error.
    """
    names = [n for n in weights.names if not weights.is_table(n)]
    attention, early = weights.of_attention(), names[: round(_EARLY * len(names))]
    turns = {n: 1 if n in early else 2 if n in attention else 3 for n in names}
    return turns | dict.fromkeys(names[-1:], 0)
