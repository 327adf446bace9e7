"""The matrices and tables of a graph: find them, calibrate, round, and write them in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.graph.traversal import rotary_angle_products
from edgecap.graph.variants.blocks.formats import EIGHT, FORMATS, Format
from edgecap.graph.variants.blocks.moments import (
    Observe,
    affordable,
    measure_moments,
    relative_error,
)
from edgecap.graph.variants.blocks.nodes import write_contrib
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
from edgecap.graph.variants.blocks.standard import raise_opset, write_standard
from edgecap.graph.variants.rewrites import gemm_to_matmul, table_gathers, tidy
from edgecap.protocols import Ids
from edgecap.provider_options import CONTRIB, STANDARD

if TYPE_CHECKING:
    import onnx

_CALIBRATION_FLOPS, _LEAST_TOKENS = 2.5e12, 1024  # half a minute on two cores


class GraphWeights:
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
        self._stored = {t.name: t for t in model.graph.initializer}
        self._moments: dict[str, Moments] = {}
        self._read: tuple[str, np.ndarray] | None = None  # the last matrix: rounded, then compared

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
        """Return outputs N and inputs K of a matrix, or rows and width of a table."""
        products = self.products.get(name)
        if products:
            return products[0].outputs, products[0].inputs
        rows, width = self._stored[name].dims
        return rows, width

    def source(self, name: str) -> str:
        """Return the activations that a matrix is multiplied with; of a table alone, its name."""
        products = self.products.get(name)
        return products[0].source if products else name

    def stored(self, name: str, matrix: np.ndarray) -> np.ndarray:
        """Return a matrix of shape (N, K) in the shape of the stored tensor."""
        products = self.products.get(name)
        turned = products is not None and not products[0].transposed
        return np.ascontiguousarray(matrix.T if turned else matrix)

    def size(self, name: str, chosen: Format) -> int:
        """Return the bytes of a matrix in a format, with those of a table that stays beside it."""
        rows, width = self.shape(name)
        stays = name in self.gathers and width % chosen.block
        return chosen.size(rows, width) + (4 * rows * width if stays else 0)

    def may_have(self, name: str, chosen: Format) -> bool:
        """Test whether a matrix may have a format.

        Older runtimes gather wrong zero points where those of a row do not fill its last byte.
        """
        width = self.shape(name)[1]
        if name in self.gathers and chosen.zero_points:
            return width % chosen.block == 0 and width // chosen.block * chosen.bits % 8 == 0
        return chosen.fits(width)

    def fitting(self, name: str, chosen: Format) -> Format:
        """Return a format, or the next larger one that a matrix may have."""
        larger = reversed(FORMATS[: FORMATS.index(chosen) + 1])
        return next(f for f in larger if self.may_have(name, f))

    def of_attention(self) -> set[str]:
        """Return the names of matrices that make queries, keys or values."""
        every = [p for members in self.products.values() for p in members]
        results = attention_products(self.model.graph, every)
        return {p.weight for p in every if p.node.output[0] in results}

    def calibrate(self, samples: Sequence[Ids], observe: Observe) -> None:
        """Measure activations, and move their scales into the operators in front of products."""
        every = [p for members in self.products.values() for p in members]
        sources = {p.source: p.inputs for p in every}
        size = sum(members[0].size for members in self.products.values())
        texts = affordable(samples, size, _CALIBRATION_FLOPS, _LEAST_TOKENS)
        moments = measure_moments(sources, texts, observe)
        self._moments = smooth(self.model.graph, every, moments)
        self._read = None

    def matrix(self, name: str) -> np.ndarray:
        """Return a matrix or table as float32 of shape (N, K)."""
        from onnx import numpy_helper

        if self._read is None or self._read[0] != name:
            products, tensor = self.products.get(name), self._stored[name]
            array = matrix_of(tensor, products[0]) if products else numpy_helper.to_array(tensor)
            self._read = name, array
        return self._read[1]

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
            whole = max(float(np.square(matrix).sum()), 1e-30)
            return float(np.square(approximate - matrix).sum()) / whole
        return relative_error(matrix, approximate, moments)

    def _moments_of(self, name: str) -> Moments | None:
        products = self.products.get(name)
        return self._moments.get(products[0].source) if products else None

    def write(self, rounded: Mapping[str, BlockWeights], operators: str = CONTRIB) -> Any:
        """Put blocks in the place of matrices and tables, and return the model.

        `operators` are the runtime's own, or standard ones. Raises UsageError if the opset of the
        graph is too old for the latter.
        """
        graph = self.model.graph
        standard = operators == STANDARD
        if standard:
            raise_opset(self.model)
        for name, blocks in rounded.items():
            width = self.shape(name)[1]
            products = [p.node for p in self.products.get(name, ())]
            # A table whose rows would be padded stays.
            gathers = self.gathers.get(name, []) if width % blocks.block == 0 else []
            write = write_standard if standard else write_contrib
            write(graph, name, blocks, width, products, gathers)
        _drop_transposes(graph)
        return tidy(self.model)


def _drop_transposes(graph: onnx.GraphProto) -> None:
    """Remove transposed tables that no product uses any more."""
    used = {i for n in graph.node for i in n.input}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.output[0] not in used]:
        graph.node.remove(node)
