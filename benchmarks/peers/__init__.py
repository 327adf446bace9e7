"""Parts of `peers.py`: the files of each contestant, the processes that run them, the numbers.

hf_folder     config and weights of a Hugging Face folder
real_model    a trained model from a package. Owns gguf, with gguf_files
moved_scales  the same function with other scales of neighbouring matrices
making        graphs of edgecap and of onnxruntime-genai's builder, random weights
gguf_files    the same weights for llama.cpp
llama         prefill, decode, scoring and quantizing by llama.cpp. Owns llama_cpp
turns         a process for each contestant, and rounds of turns
quality       divergence from fp32 and bits per byte, on the same tokens
footprint     load time and peak memory, each in a fresh process
verdicts      ratios to peers, and their targets
table         the table in Markdown
"""
