"""Definitions of small tokenizers of every kind, as tokenizer.json has them."""

import json

from conftest import REFERENCE


def definition(model, **parts):
    roles = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", "added_tokens": [], **dict.fromkeys(roles), "model": model, **parts}


def special(i, content, **more):
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {"id": i, "content": content, **flags, **more}


def letters():
    """GPT-2's character of every byte, found as the reference tokenizer spells them."""
    vocabulary = json.loads((REFERENCE / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    return [piece for piece in vocabulary if len(piece) == 1]


ALPHABET = letters()


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


BYTE_LEVEL = definition(
    {"type": "BPE", "vocab": {"<|end|>": 0, **{c: n + 1 for n, c in enumerate(ALPHABET)}, "ab": 257,
                              "Ã¤": 258},
     "merges": ["a b", "Ã ¤"]},
    added_tokens=[special(0, "<|end|>")], pre_tokenizer=LEVEL, decoder=LEVEL,
)  # fmt: skip


SENTENCE = {f"<0x{b:02X}>": b + 3 for b in range(256)}


SENTENCEPIECE = definition(
    {"type": "BPE", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, **SENTENCE, "▁": 259, "a": 260,
                              "▁a": 261, "é": 262},
     "merges": ["▁ a"], "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True},
    added_tokens=[special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    normalizer={"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "},
                                              "content": "▁"}]},
    decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
)  # fmt: skip


UNIGRAM = definition(
    {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
     "vocab": [["<unk>", 0.0], ["▁", -2.0], ["a", -2.0], ["▁a", -1.0], ["é", -3.0]]},
    added_tokens=[special(0, "<unk>")],
    pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                   "split": True},
    decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
)  # fmt: skip


WORDPIECE = definition(
    {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
     "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "hello": 1, "a": 2, "##b": 3,
                                                "[CLS]": 4}},
    added_tokens=[special(0, "[UNK]"), special(4, "[CLS]")],
    normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                "strip_accents": None, "lowercase": True},
    pre_tokenizer={"type": "BertPreTokenizer"},
    decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
)  # fmt: skip


def saved(folder, made):
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return folder
