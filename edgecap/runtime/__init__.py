"""Run graphs on ONNX Runtime, and measure what a provider can do. Owns onnxruntime."""
