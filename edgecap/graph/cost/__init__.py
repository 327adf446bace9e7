"""Count the FLOPs and bytes of an ONNX graph, operator by operator, without running it.

    count           Sum the costs of all nodes into `GraphCosts`.
    operators       FLOPs of each operator: tables, and the conventions for other than matrix work.
    traffic         Bytes that each node reads and writes; new positions of the KV cache.
    shapes          Walk through the graph with shapes, types and small values; enter subgraphs.
    input_sizes     Sizes and values of the graph's inputs in one run.
    tensors         A tensor in one run: type, shape, and its values if they are few.
    values          Evaluate the arithmetic on shapes.
    contrib_shapes  Output shapes of ONNX Runtime's own operators.
    attention       Sizes of fused attention: heads, queries, positions, widths.
    control_flow    Iterations of Loop and Scan.

Nothing is measured and no weights are read.
"""
