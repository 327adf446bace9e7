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

    def _probe(
        self, operator: str, feeds: dict[str, np.ndarray], stored: list[Any], inputs: list[str]
    ) -> Probe:
        import onnxruntime
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype
        ends = [helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in feeds.items()]
        result = helper.make_empty_tensor_value_info("y")
        graph = helper.make_graph(
            [helper.make_node(operator, inputs, ["y"])], "probe", ends, [result], stored
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            _infer_shapes(model).SerializeToString(),
            options,
            **self._provider.arguments,
        )
        return self._bind(session, feeds)

    def _bind(self, session: Any, feeds: dict[str, np.ndarray]) -> Probe:
        import onnxruntime

        binding, place = session.io_binding(), self._provider.place
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(a, *place) for name, a in feeds.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("y", *self._provider.place)

        # A binding holds no reference to the bound values; the default argument keeps them alive.
        def run(_alive: dict[str, Any] = values) -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


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
