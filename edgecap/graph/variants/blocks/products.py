"""Find the products of activations with stored matrices, and the tables that they share.

A tied head multiplies with a table through a Transpose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx


class Product(NamedTuple):
    """A MatMul of the tensor `source` with a stored matrix, or with a transposed table.

    `inputs` is the number K of rows, `outputs` the number N of columns.
    """

    node: onnx.NodeProto
    source: str
    weight: str
    inputs: int
    outputs: int
    transposed: bool = False

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return self.inputs * self.outputs


def find_products(graph: onnx.GraphProto) -> list[Product]:
    """Return the products of a graph with stored float matrices, in the order of its nodes."""
    stored = {t.name: t for t in graph.initializer if t.data_type == 1 and len(t.dims) == 2}
    turned = {
        n.output[0]: n.input[0]
        for n in graph.node
        if n.op_type == "Transpose" and n.input[0] in stored
    }
    products = []
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        table = turned.get(node.input[1])
        tensor = stored.get(table or node.input[1])
        if tensor is not None:
            inputs, outputs = tensor.dims[::-1] if table else tensor.dims
            name = tensor.name
            products.append(Product(node, node.input[0], name, inputs, outputs, bool(table)))
    return products


_ATTENTION = frozenset(
    (
        *("Softmax", "Attention", "GroupQueryAttention", "MultiHeadAttention"),
        *("SparseAttention", "DecoderMaskedMultiHeadAttention", "LinearAttention"),
    )
)


def attention_products(graph: onnx.GraphProto, products: Iterable[Product]) -> set[str]:
    """Return the results of products that make queries, keys or values.

    They lead to attention, or to a product of two activations, without another stored matrix
    between.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    results = {p.node.output[0] for p in products}
    return {name for name in results if _leads_to_attention(name, users, results)}


def _leads_to_attention(
    result: str, users: dict[str, list[onnx.NodeProto]], results: set[str]
) -> bool:
    queue, seen = [result], {result}
    while queue:
        for node in users.get(queue.pop(), ()):
            if node.output[0] in results:
                continue  # the next stored matrix
            if node.op_type in _ATTENTION or node.op_type == "MatMul":
                return True
            queue += [o for o in node.output if o not in seen]
            seen.update(node.output)
    return False


def matrix_of(tensor: onnx.TensorProto, product: Product) -> np.ndarray:
    """Return the stored weights of a product as float32 of shape (N, K)."""
    from onnx import numpy_helper

    stored = numpy_helper.to_array(tensor)
    return np.asarray(stored if product.transposed else stored.T)
