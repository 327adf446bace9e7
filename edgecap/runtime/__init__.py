"""Run graphs on ONNX Runtime. Owns onnxruntime."""
