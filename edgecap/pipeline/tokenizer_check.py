"""Check before an export that a model has a tokenizer, and that the model has all of its ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgecap.errors import UsageError
from edgecap.graph.onnx_file import GraphFacts
from edgecap.model.locate import TOKENIZER_FILES, LocatedModel
from edgecap.pipeline.capabilities import Model
from edgecap.text.tokenizer import check_ids, check_paper_ids, check_slow_ids

_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_SLOW = (*(name for name in TOKENIZER_FILES if name not in _CONFIGS), "spiece.model", "*.tiktoken")


def check_tokenizer(
    located: LocatedModel,
    model: Model,
    graphs: Sequence[GraphFacts],
    texts: Iterable[str],
    paper: bool,
) -> None:
    """Raise UsageError if the tokenizer cannot be read or gives ids that the model does not have.

    The paper protocol reads special tokens in the `texts`. Of a slow tokenizer, which the export
    converts, the ids that its files list are checked.
    """
    sizes = (model.sizes.vocabulary, *(g.vocabulary for g in graphs))
    vocabulary = min((n for n in sizes if n), default=None)
    if not (located.path / "tokenizer.json").is_file():
        check_slow_ids(located.path, vocabulary)
        return
    if paper and vocabulary:
        check_ids(located.path, vocabulary)
        check_paper_ids(located.path, vocabulary, texts)
    else:
        check_ids(located.path, vocabulary, texts)


def require_tokenizer(located: LocatedModel, may_run_code: bool) -> None:
    """Raise UsageError if a folder has no tokenizer; code of a model may make one."""
    names = ("tokenizer.json",) if located.kind == "onnx" else _SLOW
    if may_run_code or any(any(located.path.glob(name)) for name in names):
        return
    raise UsageError(
        f"{located.path} holds no tokenizer ({', '.join(names[:3])}), which the text needs; "
        "copy the tokenizer of the model into it"
    )
