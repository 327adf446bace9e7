"""Graphs of one operator that measure a provider's limits: matrix products, memory traffic.

Each probe is a session whose inputs and output stay on the device. A call runs the operator once,
synchronised. `meters.peaks` times the probes and picks the fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecap.protocols import Probe
from edgecap.provider_options import parse_provider
from edgecap.runtime.providers import load_libraries

_SMALL = 1 << 25  # bytes
_SCANS = ("ReduceMax", "ReduceSum")
_COPIES = ("Neg", "Identity")
_OPSET, _IR = 18, 9
_BEYOND_CACHE, _MOST_PRODUCTS = 64_000_000, 64  # bytes of matrices, and their number


class OrtProbes:
    """Probes on one provider with so many threads; implements `protocols.Probes`."""

    def __init__(self, provider: str, threads: int) -> None:
        self._provider, self._threads = parse_provider(provider).with_threads(threads), threads
        load_libraries(self._provider)

    def gemm(self, precision: str, m: int, k: int, n: int) -> Probe:
        """Multiply (m, k) by a stored (k, n) matrix, as the layers of a model do."""
        from onnx import numpy_helper

        left, right = _values((m, k), precision, True), _values((k, n), precision, False)
        operator = "MatMulInteger" if precision == "int8" else "MatMul"
        return self._probe(operator, {"x": left}, [numpy_helper.from_array(right, "w")], ["x", "w"])

    def reads(self, size: int) -> Sequence[Probe]:
        """Scan `size` bytes, and multiply a vector by a matrix of that size, as decode does.

        A CPU repacks a stored matrix and holds it five times meanwhile: small matrices only.
        """
        from onnx import numpy_helper

        matrix, axis = _square(size), numpy_helper.from_array(np.array([1], np.int64), "axis")
        probes = [
            self._probe(operator, {"x": matrix}, [axis], ["x", "axis"]) for operator in _SCANS
        ]
        if self._provider.place[0] != "cpu":
            probes.append(self._probe("MatMul", {"x": matrix[:1], "w": matrix}, [], ["x", "w"]))
        elif size <= _SMALL:
            stored = numpy_helper.from_array(matrix, "w")
            probes.append(self._probe("MatMul", {"x": matrix[:1]}, [stored], ["x", "w"]))
        return probes

    def copies(self, size: int) -> Sequence[Probe]:
        """Read `size` bytes and write as many, by several operators."""
        return [self._probe(operator, {"x": _square(size)}, [], ["x"]) for operator in _COPIES]

    def block_products(
        self, outputs: int, inputs: int, bits: int, block: int, zero_points: bool
    ) -> tuple[Probe, int]:
        """Multiply a vector by matrices in blocks, as decode does; return how many as well.

        There are up to 64 matrices of shape (outputs, inputs), and at most 64 MB of them, so that
        large ones do not stay in a cache.
        """
        size = outputs * inputs * bits // 8
        count = min(max(1, _BEYOND_CACHE // max(size, 1)), _MOST_PRODUCTS)
        stored, nodes = _block_matrices(count, outputs, inputs, bits, block, zero_points)
        vector = {"x": _values((1, inputs), "fp32", True)}
        return self._bind_nodes(nodes, vector, stored, [f"y{n}" for n in range(count)]), count

    def _probe(
        self, operator: str, feeds: dict[str, np.ndarray], stored: list[Any], inputs: list[str]
    ) -> Probe:
        from onnx import helper

        return self._bind_nodes([helper.make_node(operator, inputs, ["y"])], feeds, stored, ["y"])

    def _bind_nodes(
        self,
        nodes: list[Any],
        feeds: dict[str, np.ndarray],
        stored: list[Any],
        results: list[str],
    ) -> Probe:
        import onnxruntime
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype
        ends = [helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in feeds.items()]
        outputs = [helper.make_empty_tensor_value_info(name) for name in results]
        graph = helper.make_graph(nodes, "probe", ends, outputs, stored)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            _infer_shapes(model).SerializeToString(),
            options,
            **self._provider.arguments,
        )
        return self._bind(session, feeds, results)

    def _bind(self, session: Any, feeds: dict[str, np.ndarray], results: list[str]) -> Probe:
        import onnxruntime

        binding, place = session.io_binding(), self._provider.place
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(a, *place) for name, a in feeds.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in results:
            binding.bind_output(name, *place)

        # A binding holds no reference to the bound values; the default argument keeps them alive.
        def run(_alive: dict[str, Any] = values) -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


def _block_matrices(
    count: int, outputs: int, inputs: int, bits: int, block: int, zero_points: bool
) -> tuple[list[Any], list[Any]]:
    """Return stored tensors, and nodes that multiply `x` with each matrix to `y0`, `y1`, ..."""
    from onnx import helper, numpy_helper

    groups = -(-inputs // block)
    noise = np.random.default_rng(0)
    parts = {
        "codes": noise.integers(0, 256, (outputs, groups, block * bits // 8), np.uint8),
        "scales": np.full(outputs * groups, 0.01, np.float32),
    }
    if zero_points:
        parts["zeros"] = noise.integers(0, 256, outputs * (-(-groups * bits // 8)), np.uint8)
    stored = [
        numpy_helper.from_array(array, f"{part}{n}")
        for n in range(count)
        for part, array in parts.items()
    ]
    attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", *(f"{part}{n}" for part in parts)],
            [f"y{n}"],
            domain="com.microsoft",
            accuracy_level=4,
            **attributes,
        )
        for n in range(count)
    ]
    return stored, nodes


def _infer_shapes(model: Any) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(model)


def _values(shape: tuple[int, int], precision: str, activation: bool) -> np.ndarray:
    """Return noise, since a GPU draws less power and runs faster on equal numbers.

    int8 activations are unsigned, weights signed.
    """
    noise = np.random.default_rng(0).integers(-8, 8, 1 << 16)
    if precision == "int8":
        return np.resize(
            np.abs(noise).astype(np.uint8) if activation else noise.astype(np.int8), shape
        )
    return np.resize(
        (noise / 16).astype({"fp32": np.float32, "fp16": np.float16}[precision]), shape
    )


def _square(size: int) -> np.ndarray:
    side = max(64, int((size / 4) ** 0.5) // 16 * 16)
    return np.ones((side, side), np.float32)
