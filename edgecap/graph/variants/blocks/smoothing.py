"""Move scales of activations into the operator in front of a product, without another operator.

Few of a matrix's inputs are large in most models. Divided by a factor, with the factor multiplied
into the matrix, all inputs and weights are of like size, and rounding costs less (SmoothQuant,
arXiv 2211.10438; AWQ, arXiv 2306.00978). The factor divides what makes the input: the weights of a
norm, or the matrix that one side of a gate comes from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgecap.graph.variants.blocks.moments import scale_moments
from edgecap.graph.variants.blocks.products import Product, matrix_of
from edgecap.graph.variants.blocks.rounding import Moments

if TYPE_CHECKING:
    import onnx

_STRENGTH = 0.4  # share of the activations' spread that moves into the weights
_NORMS = {  # inputs that hold weight and bias, by operator
    "SimplifiedLayerNormalization": (1,),
    "SkipSimplifiedLayerNormalization": (2,),
    "LayerNormalization": (1, 2),
    "SkipLayerNormalization": (2, 3),
    "RMSNormalization": (1,),
}


class _Divisible(NamedTuple):
    """A stored tensor whose last axis, from `begin`, makes the inputs of a product."""

    tensor: str
    begin: int


def smooth(
    graph: onnx.GraphProto, products: list[Product], moments: dict[str, Moments]
) -> dict[str, Moments]:
    """Scale the inputs of products in place, and return the moments that they have then."""
    result = dict(moments)
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.source, []).append(product)
    finder = _Finder(graph, products)
    for source, members in groups.items():
        places = finder.places(source, members)
        if source in moments and places:
            factors = _factors(graph, members, moments[source].diagonal)
            _apply(graph, places, members, factors)
            result[source] = scale_moments(moments[source], factors)
    return result


class _Finder:
    """Find the stored tensors that can take factors of a product's inputs."""

    def __init__(self, graph: onnx.GraphProto, products: list[Product]) -> None:
        self._producers = {o: n for n in graph.node for o in n.output}
        self._uses: dict[str, int] = {}
        for name in [i for n in graph.node for i in n.input] + [o.name for o in graph.output]:
            self._uses[name] = self._uses.get(name, 0) + 1
        self._stored = {t.name: t for t in graph.initializer if t.data_type == 1}
        self._sizes = {t.name: t for t in graph.initializer if t.data_type == 7}
        self._products = {p.node.output[0]: p for p in products}

    def places(self, source: str, members: list[Product]) -> list[_Divisible]:
        """Return the tensors to divide, or none if something else uses `source` as well."""
        if self._uses[source] != len(members) or any(self._shared(p) for p in members):
            return []
        node = self._producers.get(source)
        if node is None or source != node.output[0]:
            return []
        if node.op_type in _NORMS:
            return self._of_norm(node)
        return self._of_factor(node, members[0].inputs) if node.op_type == "Mul" else []

    def _shared(self, product: Product) -> bool:
        return product.transposed or self._uses[product.weight] != 1

    def _of_norm(self, node: onnx.NodeProto) -> list[_Divisible]:
        names = [node.input[i] for i in _NORMS[node.op_type] if i < len(node.input)]
        return [_Divisible(n, 0) for n in names if n] if self._own(n for n in names if n) else []

    def _of_factor(self, node: onnx.NodeProto, width: int) -> list[_Divisible]:
        """Return the vector or the matrix that makes one side of a product of two tensors."""
        for name in node.input:
            if name in self._stored:
                is_vector = list(self._stored[name].dims) == [width]
                return [_Divisible(name, 0)] if is_vector and self._own([name]) else []
        for name in reversed(node.input):  # the activation function's side comes first
            place = self._of_matrix(name)
            if place and self._own([place.tensor]):
                return [place]
        return []

    def _of_matrix(self, name: str) -> _Divisible | None:
        """Return the matrix that makes a tensor, also as one part of a Split."""
        node = self._producers.get(name)
        begin = 0
        if node is not None and node.op_type == "Split" and self._uses[name] == 1:
            begin = self._begin_of(node, name)
            name = node.input[0]
        if begin < 0 or self._uses[name] != 1 or name not in self._products:
            return None
        product = self._products[name]
        return None if product.transposed else _Divisible(product.weight, begin)

    def _begin_of(self, node: onnx.NodeProto, name: str) -> int:
        """Return where a part of a Split of the last axis begins, or -1."""
        from onnx import numpy_helper

        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        sizes = self._sizes.get(node.input[1]) if len(node.input) > 1 else None
        if axis != -1 or sizes is None:
            return -1
        parts = numpy_helper.to_array(sizes)
        return int(parts[: list(node.output).index(name)].sum())

    def _own(self, names: Iterable[str]) -> bool:
        return all(n in self._stored and self._uses[n] == 1 for n in names)


def _factors(graph: onnx.GraphProto, members: list[Product], diagonal: np.ndarray) -> np.ndarray:
    """Return the factor of each input: large for large activations and small weights."""
    stored = {t.name: t for t in graph.initializer}
    matrices = (matrix_of(stored[p.weight], p) for p in members)
    squares = [np.einsum("ij,ij->j", m, m) for m in matrices]
    weights = np.sqrt(np.sum(squares, axis=0) / sum(p.outputs for p in members))
    inputs = np.sqrt(diagonal)
    usable = (inputs > 0) & (weights > 0)
    factors = np.ones(len(inputs), np.float32)
    factors[usable] = inputs[usable] ** _STRENGTH / weights[usable] ** (1 - _STRENGTH)
    factors[usable] /= np.exp(np.log(factors[usable]).mean())
    return factors


def _apply(
    graph: onnx.GraphProto, places: list[_Divisible], members: list[Product], factors: np.ndarray
) -> None:
    from onnx import numpy_helper

    stored = {t.name: t for t in graph.initializer}
    for place in places:
        array = numpy_helper.to_array(stored[place.tensor]).copy()
        array[..., place.begin : place.begin + len(factors)] /= factors
        _store(stored[place.tensor], array)
    for product in members:
        tensor = stored[product.weight]
        _store(tensor, numpy_helper.to_array(tensor) * factors[:, None])


def _store(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    """Put float32 numbers into a tensor of the same shape."""
    tensor.ClearField("float_data")
    tensor.raw_data = array.astype("<f4", copy=False).tobytes()
