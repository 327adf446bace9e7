"""Replace the nodes that an exporter wrote with the fused operators of ONNX Runtime.

    fuse             Fuse attention, rotary embedding and RMSNorm of a whole graph.
    match_attention  Find the attention of a layer and measure what it computes.
    match_rotary     Find rotary embeddings and measure how they rotate.
    match_norm       Find and replace RMSNorm, with the residual before it.
    join_matmuls     Join products of one tensor with several matrices into one product.
    flow             Producers, users and shapes of tensors; which tensors depend on which.
    evaluate         Run a part of a graph by itself.
    edit             Change a graph in place: rename, remove, replace, declare shapes.

Weights and their products keep their values; a part that is not recognised stays as it was.
"""
