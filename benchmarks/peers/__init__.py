"""Parts of `peers.py`: the files of each contestant, and the processes that run them.

making      random weights, graphs of edgecap, graphs of onnxruntime-genai's builder
gguf_files  the same weights for llama.cpp. Owns gguf
llama       prefill and decode by llama.cpp. Owns llama_cpp
turns       a process for each contestant, and rounds of turns
verdicts    ratios to peers, and their targets
"""
