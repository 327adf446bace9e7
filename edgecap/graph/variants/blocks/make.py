"""Make a variant of a graph whose matrices and tables are stored in blocks of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgecap.graph.traversal import rotary_angle_products
from edgecap.graph.variants.blocks.formats import (
    EIGHT,
    FOUR,
    FOUR_LARGE,
    Format,
    MatrixNeed,
    widen,
)
from edgecap.graph.variants.blocks.moments import Observe, measure_moments, relative_error
from edgecap.graph.variants.blocks.nodes import gather_nodes, matmul_node, store_blocks
from edgecap.graph.variants.blocks.products import (
    Product,
    attention_products,
    find_products,
    matrix_of,
)
from edgecap.graph.variants.blocks.rounding import (
    BlockWeights,
    Moments,
    round_searched,
    round_symmetric,
    round_with_feedback,
)
from edgecap.graph.variants.blocks.smoothing import smooth
from edgecap.graph.variants.rewrites import gemm_to_matmul, replace_node, table_gathers, tidy
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
        return self.matrices if width % self.matrices.block == 0 else FOUR


SMALL = Recipe(FOUR_LARGE, FOUR, 4.4)
BALANCED = Recipe(FOUR, EIGHT, 5.25)


def make_int8(model: onnx.ModelProto) -> Any:
    """Store every matrix and table in 8 bits."""
    weights = _Weights(model)
    return _write(weights, {name: weights.round(name, EIGHT) for name in weights.names})


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
    weights = _Weights(model)
    if observe is not None and samples:
        weights.calibrate(samples, observe)
    return _write(weights, _mixed(weights, recipe))


def _mixed(weights: _Weights, recipe: Recipe) -> dict[str, BlockWeights]:
    rounded = {n: weights.round(n, recipe.tables) for n in weights.names if weights.is_table(n)}
    candidates, attention = {}, weights.of_attention()
    for name in [n for n in weights.names if n not in rounded]:
        rounded[name] = weights.round(name, recipe.format_of(weights.shape(name)[1]))
        error = weights.error(name, rounded[name])
        size = recipe.format_of(weights.shape(name)[1]).size(*weights.shape(name))
        candidates[name] = MatrixNeed(*weights.shape(name), size, error, name in attention)
    for name in widen(candidates, recipe.limit):
        rounded[name] = weights.round(name, EIGHT)
    return rounded


class _Weights:
    """The matrices and tables of a graph that can be stored in blocks."""

    def __init__(self, model: onnx.ModelProto) -> None:
        gemm_to_matmul(model)
        self.model = model
        angles = rotary_angle_products(model.graph)
        self.products: dict[str, list[Product]] = {}
        for product in find_products(model.graph):
            if product.node.output[0] not in angles and product.inputs >= EIGHT.block:
                self.products.setdefault(product.weight, []).append(product)
        self.gathers: dict[str, list[onnx.NodeProto]] = {}
        for node in table_gathers(model):
            self.gathers.setdefault(node.input[0], []).append(node)
        self._moments: dict[str, Moments] = {}

    @property
    def names(self) -> list[str]:
        """Names of all matrices and tables, products first."""
        return list(dict.fromkeys([*self.products, *self.gathers]))

    def is_table(self, name: str) -> bool:
        """Test whether rows are gathered from a matrix, or its product is the logits."""
        heads = {o.name for o in self.model.graph.output}
        return name in self.gathers or any(
            p.node.output[0] in heads for p in self.products.get(name, ())
        )

    def shape(self, name: str) -> tuple[int, int]:
        """Return outputs N and inputs K of a matrix."""
        product = self.products[name][0]
        return product.outputs, product.inputs

    def of_attention(self) -> set[str]:
        """Return the names of matrices that make queries, keys or values."""
        every = [p for members in self.products.values() for p in members]
        results = attention_products(self.model.graph, every)
        return {p.weight for p in every if p.node.output[0] in results}

    def calibrate(self, samples: Sequence[Ids], observe: Observe) -> None:
        """Measure activations, and move their scales into the operators in front of products."""
        first = [members[0] for members in self.products.values()]
        sources = {p.source: p.inputs for p in first}
        moments = measure_moments(sources, samples, observe)
        every = [p for members in self.products.values() for p in members]
        self._moments = smooth(self.model.graph, every, moments)

    def matrix(self, name: str) -> np.ndarray:
        """Return a matrix or table as float32 of shape (N, K)."""
        from onnx import numpy_helper

        tensor = next(t for t in self.model.graph.initializer if t.name == name)
        products = self.products.get(name)
        return matrix_of(tensor, products[0]) if products else numpy_helper.to_array(tensor)

    def round(self, name: str, chosen: Format) -> BlockWeights:
        """Round a matrix to a format, as well as the samples allow."""
        matrix = self.matrix(name)
        if not chosen.zero_points:
            return round_symmetric(matrix, chosen.bits, chosen.block)
        moments = self._moments_of(name)
        if moments is None:
            return round_searched(matrix, chosen.bits, chosen.block)
        return round_with_feedback(matrix, chosen.bits, chosen.block, moments)

    def error(self, name: str, rounded: BlockWeights) -> float:
        """Return the relative mean square error of a product with rounded weights."""
        matrix, moments = self.matrix(name), self._moments_of(name)
        approximate = rounded.floats()[:, : matrix.shape[1]]
        if moments is None:
            return float(np.square(approximate - matrix).sum() / np.square(matrix).sum())
        return relative_error(matrix, approximate, moments)

    def _moments_of(self, name: str) -> Moments | None:
        products = self.products.get(name)
        return self._moments.get(products[0].source) if products else None


def _write(weights: _Weights, rounded: Mapping[str, BlockWeights]) -> Any:
    graph = weights.model.graph
    for name, blocks in rounded.items():
        gathers = weights.gathers.get(name, [])
        width = weights.matrix(name).shape[1]
        stored = store_blocks(graph, name, blocks)
        for product in weights.products.get(name, []):
            replace_node(graph, product.node, [matmul_node(product.node, stored, blocks, width)])
        for node in gathers:
            if width % blocks.block == 0:  # else the table stays: its rows are padded
                replace_node(graph, node, gather_nodes(graph, node, stored, blocks))
    _drop_transposes(graph)
    return tidy(weights.model)


def _drop_transposes(graph: onnx.GraphProto) -> None:
    """Remove transposed tables that no product uses any more."""
    used = {i for n in graph.node for i in n.input}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.output[0] not in used]:
        graph.node.remove(node)
