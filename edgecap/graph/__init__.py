"""ONNX graphs as files and as data: looked into, tied, quantised, given a scoring head. Owns onnx.

    read      what a file is: precision, inputs, cache, files it consists of
    stored    the same file without reading its weights
    ties      a matrix that is stored twice is stored once
    variants  fp16, int8 and int4 from fp32, with the tools of ONNX Runtime
    costs     FLOPs and bytes of every node: `shapes` walks a graph in one size, `work` and `traffic` have the tables;
              `nodes`, `rounds`, `sizes`, `tensors`, `values`, `contrib` and `attention` are what it walks with
    fuse      attention, rotary embedding and RMSNorm as the operators that ONNX Runtime has for them; `heads`, `turns`
              and `norms` find them, with `flow` (what depends on what) and `probe` (a part of a graph, tried by itself)
    scoring   log-softmax and gather inside the graph, so that logits never leave it

Running a graph is left to `engine`, exporting one to `export`.
"""
