"""The hands of `peers.py`: files of one model for every contestant, and the processes that run them.

making      random weights, edgecap's graphs, the graphs of onnxruntime-genai's builder
gguf_files  the same weights for llama.cpp. Owns gguf
llama       prefill and decode by llama.cpp. Owns llama_cpp
turns       a process for each contestant, and whose turn it is
verdicts    ratios to peers, and what was asked of them
"""
