"""ONNX graphs: export them, read them, count their cost, fuse, quantize and score with them.

    export/        Export a Hugging Face folder to an fp32 graph, with Optimum or onnxruntime-genai.
    onnx_file      Open, inspect and write ONNX files.
    external_data  Parse an ONNX file without reading its large weights.
    weight_locations  Files beside a graph that hold its weights: check, read, follow links.
    weight_formats  Name the format of each stored matrix, and count the bits of a weight.
    traversal      Order nodes, enter nested graphs, find the products of rotary angles.
    finish         Write an exported graph as it is deployed: fused, without guards, or as it is.
    tied_weights   Store a matrix that is stored twice only once.
    fusion/        Replace nodes with fused operators of ONNX Runtime.
    variants/      Make fp16, bf16, int8 and int4 variants of an fp32 graph.
    scoring        Add a head that returns -log p of given targets instead of logits.
    cost/          Count FLOPs and bytes of a graph, operator by operator.
    kernels        Find operators for which an execution provider has no kernel.
    empty_decoder  Make a decoder without work, to measure the overhead of a run.

Only this package imports onnx. Running a graph is left to the package `runtime`.
"""
