"""Measure how far each exporter's fp32 graph is from transformers, for every family it knows.

    python benchmarks/fidelity.py                      all families: about 15 minutes on 2 cores
    python benchmarks/fidelity.py --only phi3,gemma2

Models are tiny and have random weights. Each is exported as `edgecap profile` does, and the graph
is compared with transformers on short text, on text beyond every window and original length, and on
tokens decoded behind a cache. Print a table in Markdown: the largest of these in bits a token, or
why the export is refused.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from families import BASE, SMALL, torch_kit  # noqa: E402

from edgecap.errors import EdgecapError  # noqa: E402
from edgecap.graph.export import TASK, recipe  # noqa: E402
from edgecap.graph.finish import FUSED, PLAIN  # noqa: E402
from edgecap.pipeline.worker import Export, ignore_progress, in_child  # noqa: E402
from edgecap.record import Absent, Failure  # noqa: E402

REFERENCE = ROOT / "models" / "edgecap-ref-xs"
EVEN = {"head_dim": 32, "intermediate_size": 96}  # the builder's fused attention needs such sizes
WINDOW = {"sliding_window": 32}
ANGLES = 8  # of a head of 16
LONG_ROPE = {
    "head_dim": 16,
    "original_max_position_embeddings": 64,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * ANGLES,
                     "long_factor": [1.0 + i for i in range(ANGLES)]},
}  # fmt: skip
SCALED = {"factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **SCALED}
ENCODER = {k: v for k, v in BASE.items() if k not in ("num_key_value_heads", "head_dim")}
ENCODERS = (
    *("albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "roformer", "xlm-roberta"),
)
CHANGES = {"phi": {"num_key_value_heads": 4}}  # Optimum fails on fewer than attention heads
SHARPENED = " with predictions sharpened, which are flat as random ones"
# Further models of a family: the name in the table, the type, and the changes of its config.
SPECIAL = {
    "llama, linear rope": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic rope": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    "llama, yarn": ("llama", {"rope_scaling": {"rope_type": "yarn", **SCALED}}),
    "llama, llama3 rope": ("llama", {"rope_scaling": LLAMA3}),
    "phi3, long rope": ("phi3", LONG_ROPE),
    "phi3, window": ("phi3", WINDOW),
    "mistral, window": ("mistral", WINDOW),
    "qwen2, window": ("qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 0}),
    "gemma2, window, sharp": ("gemma2", {**WINDOW, "initializer_range": 0.3}),
    "gemma3_text, window": ("gemma3_text", {**WINDOW, "sliding_window_pattern": 2}),
    "olmo, sharp": ("olmo", {"initializer_range": 0.3}),
    "gpt_oss, window": ("gpt_oss", WINDOW),
    "cohere2, window": ("cohere2", WINDOW),
}


def known_types() -> list[str]:
    """Return the types of decoders that an exporter knows and that have a shape here."""
    with torch_kit():
        import optimum.exporters.onnx.model_configs  # noqa: F401
        from optimum.exporters.tasks import TasksManager

    types = TasksManager._SUPPORTED_MODEL_TYPE
    known = {t for t, tasks in types.items() if TASK in tasks.get("onnx", {})}
    lacking = sorted(known - set(SMALL))
    print(f"without a shape here: {', '.join(lacking)}", file=sys.stderr)
    return sorted((known | {"ernie4_5", "phimoe"}) & set(SMALL))


def models(only: list[str]) -> dict[str, tuple[str, dict, str]]:
    """Return type, config changes and task by name."""
    decoders = {t: (t, CHANGES.get(t, {}), TASK) for t in known_types()}
    special = {name: (kind, changes, TASK) for name, (kind, changes) in SPECIAL.items()}
    encoders = {t: (t, {}, "fill-mask") for t in ENCODERS}
    everything = {**decoders, **special, **encoders}
    return {n: m for n, m in everything.items() if not only or n in only or m[0] in only}


def build(folder: Path, kind: str, changes: dict, task: str) -> None:
    """Write a tiny model of random weights with the tokenizer of the reference model."""
    with torch_kit() as (torch, transformers):
        torch.manual_seed(0)
        shape = ENCODER if task != TASK else SMALL[kind]
        even = {name: EVEN[name] for name in EVEN if name in shape}
        config = transformers.AutoConfig.for_model(kind, **{**shape, **even, **changes})
        auto = transformers.AutoModelForCausalLM if task == TASK else None
        auto = auto or transformers.AutoModelForMaskedLM
        auto.from_config(config).float().save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(folder)


def measure(folder: Path, exporter: str, task: str) -> str:
    """Export a folder in a child, and return the cell of the table."""
    with tempfile.TemporaryDirectory() as out:
        step = Export(
            folder=str(folder),
            out=out,
            trust_remote_code=False,
            exporter=exporter,
            task=task,
            finish=FUSED if exporter == "optimum" and task == TASK else PLAIN,
        )
        try:
            answer = in_child(step, ignore_progress, 600)
        except EdgecapError as error:
            return refusal(str(error))
    if isinstance(answer, Failure):
        return f"fails: {answer.message[:60]}"
    bits = answer.fidelity_bits
    return f"not compared: {bits.reason[:60]}" if isinstance(bits, Absent) else f"{bits:.0e}"


def refusal(message: str) -> str:
    """Shorten the reason of a refusal to what the table needs."""
    apart = re.search(r"bits a token: (.*?)(;|$)", message)
    if apart:
        return "refused: " + apart[1].replace(SHARPENED, "*")
    unknown = re.search(r"does not know|does not export|cannot rotate|gets .* wrong", message)
    return f"refused: {unknown[0]}" if unknown else f"refused: {message[:90]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="types or names, separated by commas")
    parser.add_argument("--exporters", default="optimum,genai")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    exporters = arguments.exporters.split(",")
    for exporter in exporters:
        print(f"{exporter}: {recipe(exporter, TASK)}", file=sys.stderr)
    print(f"| model | {' | '.join(exporters)} |\n|---|{'---|' * len(exporters)}")
    only = [name for name in arguments.only.split(",") if name]
    for name, (kind, changes, task) in models(only).items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            build(folder, kind, changes, task)
            cells = [
                measure(folder, e, task) if e == "optimum" or task == TASK else "decoders only"
                for e in exporters
            ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
