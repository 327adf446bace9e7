"""Open sessions of ONNX Runtime: options, weights behind links, exact products of int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecap.graph.onnx_file import open_in_memory
from edgecap.graph.weight_locations import InMemoryGraph
from edgecap.machine.info import int8_may_saturate

# x86 without VNNI adds pairs of unsigned x signed products in 16 bits and saturates (0.72 bits per
# token of divergence on a 260 K model). This option makes the runtime use unsigned weights, which
# would halve the speed of VNNI.
EXACT_INT8 = ("session.x64quantprecision", "1")
OUTSIDE = "External data path"  # in the runtime's message on weights behind links
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


def session_options(threads: int, level: str, arena: bool) -> Any:
    """Return options; `level` is that of graph optimisation: off, basic, extended or all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel,
        "ORT_DISABLE_ALL" if level == "off" else f"ORT_ENABLE_{level.upper()}",
    )
    options.enable_cpu_mem_arena = arena
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if int8_may_saturate():
        options.add_session_config_entry(*EXACT_INT8)
    return options


def create_session(graph: Path | InMemoryGraph, options: Any, arguments: dict[str, Any]) -> Any:
    """Open a session. The runtime refuses a path whose weights lie behind some links."""
    import onnxruntime

    if isinstance(graph, InMemoryGraph):
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(graph.folder))
        return onnxruntime.InferenceSession(graph.model, options, **arguments)
    try:
        return onnxruntime.InferenceSession(str(graph), options, **arguments)
    except Exception as error:
        if OUTSIDE not in str(error):
            raise
    return create_session(open_in_memory(graph), options, arguments)
