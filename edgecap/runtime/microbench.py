"""Graphs of one operator that ask a provider for its limits: matrix products, reading and copying memory.

Each probe is a session whose inputs and output stay on the device; calling it runs the operator once.
Timing and choosing the best is left to `meters.peaks`. Owns onnxruntime beside `engine`.
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
    """Probes on one provider with a number of threads; see `seams.Probes`."""

    def __init__(self, provider: str, threads: int) -> None:
        self._provider, self._threads = parse_provider(provider).with_threads(threads), threads
        load_libraries(self._provider)

    def gemm(self, precision: str, m: int, k: int, n: int) -> Probe:
        """(m, k) times a stored (k, n), as the layers of a model are."""
        from onnx import numpy_helper

        left, right = _values((m, k), precision, True), _values((k, n), precision, False)
        operator = "MatMulInteger" if precision == "int8" else "MatMul"
        return self._probe(operator, {"x": left}, [numpy_helper.from_array(right, "w")], ["x", "w"])

    def reads(self, size: int) -> Sequence[Probe]:
        """Scans, and a vector times a matrix as decoding does.

        A processor repacks a stored matrix, and holds it five times meanwhile: small ones only.
        """
        from onnx import numpy_helper

        matrix, axis = _square(size), numpy_helper.from_array(np.array([1], np.int64), "axis")
        found = [self._probe(operator, {"x": matrix}, [axis], ["x", "axis"]) for operator in _SCANS]
        if self._provider.place[0] != "cpu":
            found.append(self._probe("MatMul", {"x": matrix[:1], "w": matrix}, [], ["x", "w"]))
        elif size <= _SMALL:
            stored = numpy_helper.from_array(matrix, "w")
            found.append(self._probe("MatMul", {"x": matrix[:1]}, [stored], ["x", "w"]))
        return found

    def copies(self, size: int) -> Sequence[Probe]:
        """Several ways of reading `size` bytes and writing as many."""
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
            _with_types(model).SerializeToString(),
            options,
            **self._provider.arguments,
        )
        return self._bound(session, feeds)

    def _bound(self, session: Any, feeds: dict[str, np.ndarray]) -> Probe:
        import onnxruntime

        binding, place = session.io_binding(), self._provider.place
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(a, *place) for name, a in feeds.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("y", *self._provider.place)

        def run(
            _held: dict[str, Any] = values,
        ) -> None:  # a binding keeps no hold of what is bound to it
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


def _with_types(model: Any) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(model)


def _values(shape: tuple[int, int], precision: str, activation: bool) -> np.ndarray:
    """Noise: a GPU draws less, and runs faster, on equal numbers. int8: activations unsigned, weights signed."""
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
