"""Fixtures: shared material where it is there, a tiny real model,
a home of its own for every test.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # OpenVINO's environment has none
    from hypothesis import settings

    settings.register_profile("edgecap", deadline=None)  # a busy machine is no failure
    settings.load_profile("edgecap")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
REFERENCE = ROOT / "models" / "edgecap-ref-xs"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with models and expected numbers of other hands."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: models, texts and expected numbers of other hands")
    return SHARED


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for the whole session, so that each model is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_home(tmp_path, cache, monkeypatch):
    """No test writes into the user's cache or the project's profiles."""
    monkeypatch.setenv("EDGECAP_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


def build_model(folder: Path, kind: str = "llama", **changes) -> Path:
    """A model of random weights with the reference tokenizer, saved as transformers saves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        fields = {**SMALL[kind], **changes}
        config = AutoConfig.for_model(kind, **fields)
        model = AutoModelForCausalLM.from_config(config)
        model.float().save_pretrained(folder)
        AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(folder)
    return folder


_COMMON = {"vocab_size": 8192, "bos_token_id": 0, "eos_token_id": 0}
_LLAMA = {
    **_COMMON,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SMALL = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 32},
    "bloom": {**_COMMON, "hidden_size": 64},
    "gpt2": {**_COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {
        **_COMMON,
        "hidden_size": 64,
        "word_embed_proj_dim": 32,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "do_layer_norm_before": False,
    },
    "gpt_neox": {k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}
    | {"intermediate_size": 256},
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A two-layer llama of random weights, untied."""
    return build_model(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture
def corpus_file(tmp_path) -> Path:
    """Six short documents in two domains."""
    path = tmp_path / "six.jsonl"
    rows = [
        {
            "id": f"d{i}",
            "domain": "ab"[i % 2],
            "text": f"Document {i}. " + "Words and more words. " * (4 + i),
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path
