"""Replace the nodes that an exporter wrote with the fused operators of ONNX Runtime."""
