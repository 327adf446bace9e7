"""Fixtures: shared material, a tiny real model, one cache of exports, a home for each test.

Without `--all` the run leaves out tests with a heavy marker, unless they are marked `core`.
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
VARIANTS = ("fp32", "fp16", "int8", "int4")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with models and expected numbers of other hands."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: models, texts and expected numbers of other hands")
    return SHARED


HEAVY = ("export", "oracle", "browser", "fleet", "kill", "wheel", "slow")


def pytest_addoption(parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests with a heavy marker, too")


def pytest_configure(config) -> None:
    """Keep each worker, and what it starts, on one processor: their threads do not compete."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[int(worker[2:]) % len(processors)]})


def pytest_collection_modifyitems(config, items) -> None:
    """Leave out heavy tests, unless they are asked for by `--all`, by a marker, or by name."""
    if config.getoption("--all") or config.option.markexpr or config.option.keyword:
        return
    if any("::" in argument for argument in config.args):
        return
    heavy = [i for i in items if not i.get_closest_marker("core") and _is_heavy(i)]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [i for i in items if i not in set(heavy)]


def _is_heavy(item) -> bool:
    return any(item.get_closest_marker(name) for name in HEAVY)


def heavy(values, mark, core=()):
    """Parameters of which all but the `core` ones carry a heavy marker."""
    return [v if v in core else pytest.param(v, marks=mark) for v in values]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for the whole run, so that each model is exported once, by one worker.

    It holds peaks of the machine from a stand-in: measuring them takes long.
    """
    from exports import with_peaks

    base = tmp_path_factory.getbasetemp()
    run = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return with_peaks(run / "cache")


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
def tiny(cache) -> Path:
    """A two-layer llama of random weights, untied."""
    from exports import small

    return small("llama", cache)


@pytest.fixture(scope="session")
def reference(cache) -> Path:
    """The portable folder of the reference model in the four plain variants."""
    from exports import exported

    return exported(REFERENCE, cache, VARIANTS)


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
