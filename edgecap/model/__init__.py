"""Find a model, read its config, and count its FLOPs, parameters and bytes.

    locate            Find a model by folder, name or Hub id; download it if needed.
    reference_models  Names and folders of the reference models that ship with edgecap.
    config_file       Read the JSON files of a model folder.
    manifest          Read and check the manifest of a folder written by `edgecap export`.
    onnx_folder       List the ONNX graphs of a folder, and choose the one to measure.
    checkpoint        Find the weights that transformers loads from a folder; refuse doubtful ones.
    safetensors_file  Read and check the header of a safetensors file.
    weight_files      Hash the weights and the tokenizer; count the parameters in safetensors files.
    architecture/     Read `config.json` into the layers of a model: attention, experts, norms.
    flops/            Count FLOPs, parameters, cache and weight bytes of an architecture.
    config_counts     Put these counts side by side for `edgecap flops`.

Exporting a graph and reading one are left to the package `graph`.
"""
