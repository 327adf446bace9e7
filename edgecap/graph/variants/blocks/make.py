"""Make a variant of a graph whose matrices and tables are stored in blocks of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecap.graph.variants.blocks.formats import (
    EIGHT,
    FOUR,
    FOUR_LARGE,
    Format,
    MatrixNeed,
    widen,
)
from edgecap.graph.variants.blocks.moments import Observe
from edgecap.graph.variants.blocks.rounding import BlockWeights
from edgecap.graph.variants.blocks.weights import GraphWeights
from edgecap.protocols import Ids

if TYPE_CHECKING:
    import onnx


class Recipe(NamedTuple):
    """Formats of a variant: of most matrices, of heads and tables, and bits a weight at most.

    Matrices that err most get 8 bits while the mean over all matrices, heads and tables apart,
    stays within `limit` bits a weight.
    """

    matrices: Format
    tables: Format
    limit: float

    def format_of(self, width: int) -> Format:
        """Return the format of a matrix, with smaller blocks where large ones need padding."""
        return self.matrices if self.matrices.fits(width) else FOUR


SMALL = Recipe(FOUR_LARGE, FOUR, 4.4)
BALANCED = Recipe(FOUR, EIGHT, 5.25)


def make_int8(model: onnx.ModelProto) -> Any:
    """Store every matrix and table in 8 bits."""
    weights = GraphWeights(model)
    return weights.write({name: weights.round(name, EIGHT) for name in weights.names})


def make_int4(
    model: onnx.ModelProto,
    samples: Sequence[Ids] = (),
    observe: Observe | None = None,
    recipe: Recipe = BALANCED,
) -> Any:
    """Store matrices in 4 bits, and in 8 bits the tables and what errs most.

    `samples` are token ids of shape (n,), and `observe` runs the fp32 graph on them. Without
    samples all inputs of a matrix count the same.
    """
    weights = GraphWeights(model)
    if observe is not None and samples:
        weights.calibrate(samples, observe)
    return weights.write(_mixed(weights, recipe))


def _mixed(weights: GraphWeights, recipe: Recipe) -> dict[str, BlockWeights]:
    rounded = {n: weights.round(n, recipe.tables) for n in weights.names if weights.is_table(n)}
    candidates, attention = {}, weights.of_attention()
    for name in [n for n in weights.names if n not in rounded]:
        rows, columns = weights.shape(name)
        chosen = recipe.format_of(columns)
        rounded[name] = weights.round(name, chosen)
        error = weights.error(name, rounded[name])
        size = chosen.size(rows, columns)
        candidates[name] = MatrixNeed(rows, columns, size, error, name in attention)
    for name in widen(candidates, recipe.limit):
        rounded[name] = weights.round(name, EIGHT)
    return rounded
