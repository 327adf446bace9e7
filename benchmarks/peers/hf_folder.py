"""Read the config and the weights of a Hugging Face folder, and write a folder with new weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from edgecap.errors import UsageError

WEIGHTS = "*.safetensors"


def read_config(folder: Path) -> dict:
    """Return the config of a Llama without biases and scaled rotation, with its defaults filled in.

    Raises UsageError for other models: `gguf_files` and `moved_scales` know only this shape.
    """
    config = json.loads((folder / "config.json").read_text())
    odd = [k for k in ("attention_bias", "mlp_bias", "rope_scaling") if config.get(k)]
    if config.get("model_type") != "llama" or odd:
        raise UsageError(
            f"{folder} holds no plain Llama ({', '.join(odd) or config.get('model_type')}): "
            "the comparison writes its weights for llama.cpp itself; choose another model"
        )
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config.setdefault("rope_theta", 1e4)
    return config


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Return all tensors in fp32 by name."""
    from safetensors import safe_open

    arrays = {}
    for path in sorted(folder.glob(WEIGHTS)):
        with safe_open(path, framework="pt") as file:
            arrays |= {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
    return arrays


def write_weights(source: Path, arrays: dict[str, np.ndarray], out: Path) -> None:
    """Write `source` with other weights into the folder `out`, in fp32."""
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and not path.match(WEIGHTS) and path.name != "config.json":
            shutil.copyfile(path, out / path.name)
    config = json.loads((source / "config.json").read_text())
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=1))
    save_file(arrays, out / "model.safetensors", metadata={"format": "pt"})
