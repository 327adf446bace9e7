"""Count the FLOPs and bytes of an ONNX graph, operator by operator, without running it."""
