#!/usr/bin/env python3
"""Train one of the reference models of edgecap, and write its card.

A reference model is a calibration standard: a fixed model on a fixed corpus makes devices
comparable. This script trains one from plain text with a fixed seed: a byte-level BPE of 8,192
tokens, then a LLaMA-architecture model with tied embeddings. It writes fp16 safetensors, a card and
the training curve.

    python scripts/train_reference.py --size xs --corpus TEXTS --eval JSONL_FOLDER

`--packed FILE` keeps the tokenizer and the token stream, so that every size reads the same tokens,
also on a machine that has only this file. `--corpus FILE_OR_FOLDER` takes any UTF-8 text, with
documents separated by four newlines. An interrupted run continues from its last checkpoint when the
same command is given again, with the same tokens in the same order.

Recipe: Muon for the matrices of the blocks, AdamW for embeddings and norms, linear warm-up, cosine
decay to a fiftieth, documents packed after one BOS each; on a GPU in bfloat16 by autocast.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import lzma
import math
import random
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS = "<|endoftext|>"
VOCABULARY = 8192
CHECKPOINT = "checkpoint.pt"  # in the output folder during a run
SEPARATOR = "\n\n\n\n"
SIZES = {
    "xs": {"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4, "kv_heads": 2},
    "s": {"hidden_size": 192, "intermediate_size": 512, "layers": 5, "heads": 6, "kv_heads": 2},
    "m": {"hidden_size": 256, "intermediate_size": 704, "layers": 7, "heads": 8, "kv_heads": 4},
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="xs")
    parser.add_argument(
        "--corpus", type=Path, default=Path("../shared/data/train"), help="file or folder of .txt"
    )
    parser.add_argument(
        "--packed", type=Path, help="tokenizer and tokens: read if the file exists, else written"
    )
    parser.add_argument(
        "--eval", type=Path, default=Path("../shared/data/eval"), help="folder of JSONL, optional"
    )
    parser.add_argument("--out", type=Path, help="default: models/edgecap-ref-SIZE")
    parser.add_argument("--tokens", type=int, default=6_000_000, help="training tokens seen")
    parser.add_argument("--batch", type=int, default=8, help="windows a step")
    parser.add_argument("--window", type=int, default=512, help="training window, positions")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak of AdamW's learning rate")
    parser.add_argument("--muon-lr", type=float, default=2e-2, help="peak of Muon's learning rate")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--checkpoint", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out = args.out or Path("models") / f"edgecap-ref-{args.size}"
    return args


def read_domains(corpus: Path) -> dict[str, list[str]]:
    """Read documents by domain, in the order of the file names."""
    files = sorted(corpus.glob("*.txt")) if corpus.is_dir() else [corpus]
    if not files:
        raise SystemExit(f"no .txt file in {corpus}")
    return {f.stem: [d for d in f.read_text("utf-8").split(SEPARATOR) if d] for f in files}


def hold_out(domains: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split off the last hundredth of each domain, or of its text if it is one document."""
    training, held_out = {}, {}
    for name, documents in domains.items():
        if len(documents) == 1:
            cut = max(1, len(documents[0]) * 99 // 100)
            documents = [documents[0][:cut], documents[0][cut:]]
        n = max(1, len(documents) // 100)
        training[name], held_out[name] = documents[:-n], documents[-n:]
    return training, held_out


def train_tokenizer(domains: dict[str, list[str]], seed: int) -> Tokenizer:
    """Train a byte-level BPE on up to 6 MB of each domain."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sample: list[str] = []
    for documents in domains.values():
        shuffled = documents[:]
        random.Random(seed).shuffle(shuffled)
        size = 0
        for document in shuffled:
            if size > 6_000_000:
                break
            sample.append(document)
            size += len(document.encode())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


class Packed(NamedTuple):
    """Tokenizer and tokens, shared by all sizes."""

    tokenizer: Tokenizer
    stream: np.ndarray  # uint16 (tokens,)
    held_out: list[str]  # texts without training
    text: dict[str, str]  # description of the training text, for the card


def prepare(args: argparse.Namespace) -> Packed:
    """Tokenize and pack the corpus, or read the file of an earlier run."""
    if args.packed and args.packed.is_file():
        with np.load(args.packed) as saved:
            held_out, text = json.loads(str(saved["held"])), json.loads(str(saved["text"]))
            tokenizer = Tokenizer.from_str(str(saved["tokenizer"]))
            return Packed(tokenizer, saved["stream"], held_out, text)
    started = time.monotonic()
    training, held_out = hold_out(read_domains(args.corpus))
    tokenizer = train_tokenizer(training, args.seed)
    whole = "".join(d for ds in training.values() for d in ds).encode()
    text = {
        "training_text": ", ".join(training),
        "training_text_sha256": hashlib.sha256(whole).hexdigest(),
    }
    packed = Packed(
        tokenizer,
        pack(training, tokenizer, args.seed),
        [d[:4000] for ds in held_out.values() for d in ds[:4]],
        text,
    )
    print(
        f"tokenizer and packing: {time.monotonic() - started:.0f} s, {len(packed.stream):,} tokens",
        flush=True,
    )
    if args.packed:
        texts = {
            "held": json.dumps(packed.held_out),
            "text": json.dumps(text),
            "tokenizer": tokenizer.to_str(),
        }
        np.savez_compressed(args.packed, stream=packed.stream, **texts)
    return packed


def pack(domains: dict[str, list[str]], tokenizer: Tokenizer, seed: int) -> np.ndarray:
    """Return one stream of ids: all documents shuffled, each after one BOS."""
    documents = [d for ds in domains.values() for d in ds]
    random.Random(seed).shuffle(documents)
    bos = tokenizer.token_to_id(BOS)
    stream: list[np.ndarray] = []
    for start in range(0, len(documents), 512):
        for encoding in tokenizer.encode_batch(
            documents[start : start + 512], add_special_tokens=False
        ):
            stream.append(np.array([bos, *encoding.ids], np.uint16))
    return np.concatenate(stream)


def build(size: str) -> LlamaForCausalLM:
    """Create a model of a size with initial weights."""
    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["hidden_size"] // shape["heads"],
        max_position_embeddings=1024,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    for name, p in model.named_parameters():
        if p.ndim == 2 and ("o_proj" in name or "down_proj" in name):
            torch.nn.init.normal_(p, std=0.02 / math.sqrt(2 * shape["layers"]))
    return model


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz (Keller Jordan, 2024).

    It differs from torch.optim.Muon: it computes in float32, and all matrices of a shape at once.
    The library rounds to bfloat16, which a CPU emulates (23 % of a step here), and takes matrices
    one by one, which leaves a GPU idle.
    """

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        shapes = sorted({p.shape for p in params})
        groups = [{"params": [p for p in params if p.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            updates = []
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                updates.append(p.grad.lerp(average, group["momentum"]))
            rows, columns = group["params"][0].shape
            rate = -group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, update in zip(group["params"], orthogonalize(torch.stack(updates)), strict=True):
                p.add_(update, alpha=rate)


def orthogonalize(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Orthogonalize matrices of shape (n, rows, columns)."""
    x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = g.shape[1] > g.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class HeadLoss(torch.autograd.Function):
    """Mean cross entropy of a linear head, 512 positions at a time to keep logits in cache."""

    @staticmethod
    def forward(
        ctx, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:  # type: ignore[no-untyped-def, override]
        total, d_hidden, d_weight = (
            hidden.new_zeros(()),
            torch.empty_like(hidden),
            torch.zeros_like(weight),
        )
        for start in range(0, len(hidden), 512):
            part = slice(start, start + 512)
            logits = torch.log_softmax(hidden[part] @ weight.T, -1)
            total -= logits.gather(1, targets[part, None]).sum()
            grad = logits.exp_()
            grad[torch.arange(len(grad)), targets[part]] -= 1.0
            torch.mm(grad, weight, out=d_hidden[part])
            d_weight.addmm_(grad.T, hidden[part])
        ctx.save_for_backward(d_hidden.div_(len(hidden)), d_weight.div_(len(hidden)))
        return total / len(hidden)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # type: ignore[no-untyped-def, override]
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grad, d_weight * grad, None


def make_optimizers(
    model: LlamaForCausalLM, args: argparse.Namespace
) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=args.muon_lr),
        torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up over 3 %, then cosine to 0.02."""
    warm = max(1, steps * 3 // 100)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def window_at(step: int, steps: int, args: argparse.Namespace) -> tuple[int, int]:
    """Return windows and positions of a step; the last tenth uses windows twice as long."""
    longer = step >= steps * 9 // 10
    return (args.batch // 2, args.window * 2) if longer else (args.batch, args.window)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of token ids, shape (windows, positions + 1), in nats."""
    targets = ids[:, 1:].flatten()
    if not ids.is_cuda:
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return HeadLoss.apply(hidden.flatten(0, 1), model.lm_head.weight, targets)
    with torch.autocast("cuda", torch.bfloat16):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return torch.nn.functional.cross_entropy(model.lm_head(hidden.flatten(0, 1)), targets)


def chunk_at(step: int, chunks: int, seed: int) -> tuple[int, int]:
    """Return chunk and pass of a step; each pass over the stream has its own order."""
    passes, place = divmod(step, chunks)
    return int(order_of(passes, chunks, seed)[place]), passes


@functools.lru_cache(1)
def order_of(passes: int, chunks: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, passes]).permutation(chunks)


@torch.no_grad()
def bits_per_byte(
    model: LlamaForCausalLM, tokenizer: Tokenizer, texts: list[str], device: str
) -> float:
    """Score texts by the exact protocol of docs/method.md: sums pooled over bytes."""
    bos, bits, size = tokenizer.token_to_id(BOS), 0.0, 0
    for text in texts:
        size += len(text.encode())
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for start in range(0, len(ids), 1023):
            window = torch.tensor([[bos, *ids[start : start + 1023]]], device=device)
            hidden = model.model(input_ids=window[:, :-1], use_cache=False).last_hidden_state[0]
            for some in range(0, len(hidden), 512):
                part = slice(some, some + 512)
                logits = hidden[part] @ model.lm_head.weight.T
                bits += torch.nn.functional.cross_entropy(
                    logits, window[0, 1:][part], reduction="sum"
                ).item()
    return bits / math.log(2) / size


def train(
    model: LlamaForCausalLM, packed: Packed, args: argparse.Namespace
) -> tuple[list[dict[str, float]], float]:
    """Train, and return the curve (loss in nats, held-out bits per byte) and the seconds."""
    tokenizer, stream, held_out = packed.tokenizer, packed.stream, packed.held_out
    optimizers = make_optimizers(model, args)
    peaks = [g["lr"] for o in optimizers for g in o.param_groups]
    per_step = args.batch * args.window
    steps = args.tokens // per_step
    chunks = len(stream) // per_step - 1
    checkpoint = Checkpoint(args)
    begin_at, curve, recent, before_s = checkpoint.restore(model, optimizers)
    started = time.monotonic() - before_s
    for step in range(begin_at, steps):
        if step and step % args.checkpoint == 0:
            checkpoint.save(model, optimizers, step, curve, recent, time.monotonic() - started)
        chunk, passes = chunk_at(step, chunks, args.seed)
        rows, columns = window_at(step, steps, args)
        begin = chunk * per_step + passes * 997 % per_step  # other cuts in each pass
        flat = stream[begin : begin + per_step + 1].astype(np.int64)
        ids = np.stack([flat[r * columns : r * columns + columns + 1] for r in range(rows)])
        for group, peak in zip((g for o in optimizers for g in o.param_groups), peaks, strict=True):
            group["lr"] = peak * schedule(step, steps)
        loss = loss_of(model, torch.from_numpy(ids).to(args.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.append(loss.detach())
        if (step + 1) % -(-steps // 12) == 0 or step + 1 == steps:
            model.eval()
            held_bpb = bits_per_byte(model, tokenizer, held_out, args.device)
            model.train()
            row = {
                "step": step + 1,
                "tokens": (step + 1) * per_step,
                "train_nats": torch.stack(recent).mean().item(),
                "held_out_bits_per_byte": held_bpb,
            }
            curve.append(row)
            recent.clear()
            print(json.dumps({**row, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return curve, time.monotonic() - started


class Checkpoint:
    """The saved state of a run: weights, optimizers, curve. Another recipe refuses it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.path, self.device = args.out / CHECKPOINT, args.device
        recipe = {
            k: str(v)
            for k, v in vars(args).items()
            if k not in ("out", "packed", "eval", "checkpoint", "device")
        }
        self.recipe = json.dumps(recipe, sort_keys=True)

    def save(self, model, optimizers, step, curve, recent, seconds) -> None:  # type: ignore[no-untyped-def]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".new")
        states = [o.state_dict() for o in optimizers]
        state = {
            "model": model.state_dict(),
            "optimizers": states,
            "step": step,
            "seconds": seconds,
        }
        torch.save({**state, "curve": curve, "recent": recent, "recipe": self.recipe}, scratch)
        scratch.replace(self.path)

    def restore(self, model, optimizers) -> tuple[int, list[dict[str, float]], list[float], float]:  # type: ignore[no-untyped-def]
        if not self.path.is_file():
            return 0, [], [], 0.0
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe:
            raise SystemExit(f"{self.path} belongs to another recipe; move it away")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        print(f"continues at step {state['step']}", flush=True)
        return state["step"], state["curve"], state["recent"], state["seconds"]


def read_eval(folder: Path) -> dict[str, list[str]]:
    """Read the evaluation texts by domain; none if there is no folder."""
    if not folder.is_dir():
        return {}
    texts = {}
    for file in sorted(folder.glob("*.jsonl")):
        lines = file.read_text("utf-8").split("\n")
        texts[file.stem] = [json.loads(line)["text"] for line in lines if line]
    return texts


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write the tokenizer and the weights in fp16."""
    out.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(out)
    model.half().save_pretrained(out, safe_serialization=True)


def xz_bits_per_byte(texts: list[str]) -> float:
    """Compress all texts in one piece with xz -9e; return bits per byte."""
    joined = "".join(texts).encode()
    return 8 * len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME)) / len(joined)


def write_card(
    out: Path,
    recipe: dict[str, object],
    curve: list[dict[str, float]],
    domains: dict[str, float],
    xz: dict[str, float],
) -> None:
    values = {
        "recipe": recipe,
        "curve": curve,
        "eval_bits_per_byte": domains,
        "eval_xz_bits_per_byte": xz,
    }
    (out / "training.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    rows = "\n".join(
        f"| {int(c['tokens']):,} | {c['train_nats']:.3f} | {c['held_out_bits_per_byte']:.3f} |"
        for c in curve
    )
    evals = "\n".join(
        f"| {name} | {value:.3f} | {xz[name]:.3f} | {100 * (1 - value / xz[name]):.0f} % |"
        for name, value in domains.items()
    )
    facts = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in recipe.items())
    (out / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: transformers
---
# {out.name}

A small LLaMA-architecture language model, a calibration standard of edgecap: the same weights on
the same text make two devices comparable. It is not a chat model.
`scripts/train_reference.py` wrote this card; its numbers come from that run (`training.json`).

{facts}

Held-out text is the last hundredth of each training domain. Bits per byte follow the exact protocol
(`docs/method.md`) with context 1,024. The second table uses the fp16 weights of this folder.

| tokens seen | training loss, nats per token | held-out bits per byte |
|---:|---:|---:|
{rows}

| evaluation domain | bits per byte | xz -9e, all documents joined | below xz |
|---|---:|---:|---:|
{evals or "| none given | | | |"}
""",
        "utf-8",
    )


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, bfloat16"
    return f"{device}, {torch.get_num_threads()} threads"


def main() -> None:
    args = options()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    out = args.out
    packed = prepare(args)
    model = build(args.size).to(args.device)
    curve, seconds = train(model, packed, args)
    save(model, packed.tokenizer, out)
    reread = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).to(args.device).eval()
    evaluated = read_eval(args.eval)
    domains = {
        n: bits_per_byte(reread, packed.tokenizer, texts, args.device)
        for n, texts in evaluated.items()
    }
    recipe = {
        "parameters": sum(p.numel() for p in reread.parameters()),
        **packed.text,
        "distinct_tokens": len(packed.stream),
        "training_tokens": int(curve[-1]["tokens"]),
        "optimizer": f"Muon lr {args.muon_lr} (matrices), AdamW lr {args.lr} (rest), cosine",
        "batch_tokens": args.batch * args.window,
        "window": f"{args.window}, last tenth {args.window * 2}",
        "seed": args.seed,
        "device": device_name(args.device),
        "training_minutes": round(seconds / 60, 1),
        "torch": torch.__version__,
    }
    write_card(
        out,
        recipe,
        curve,
        domains,
        {name: xz_bits_per_byte(texts) for name, texts in evaluated.items()},
    )
    (out / CHECKPOINT).unlink(missing_ok=True)
    print(json.dumps(domains), flush=True)


if __name__ == "__main__":
    main()
