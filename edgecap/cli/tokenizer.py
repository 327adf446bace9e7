"""`edgecap tokenizer`: compare tokenizers on text, on languages, and by exact byte probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecap.cli import types
from edgecap.cli.options import request
from edgecap.cli.output import (
    GENERATED,
    check_output,
    print_json,
    print_text,
    to_json,
    width,
    write,
)
from edgecap.spec import DEFAULT_CORPUS, PRECISIONS

EXAMPLES = """\b
Examples:
  edgecap tokenizer edgecap-ref-xs
  edgecap tokenizer ./my-model ./other --languages declaration.jsonl --record profiles/RECORD.json
  edgecap tokenizer edgecap-ref-xs --bytes exact-24

Example: edgecap tokenizer edgecap-ref-xs ./my-model
"""
_KEY = "edgecap_tokenizer"  # first key of this command's JSON
_RUN_ONLY = (
    "precision",
    "provider",
    "threads",
    "cache",
    "timeout_s",
)  # options that belong to --bytes


@click.command(epilog=EXAMPLES)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--corpus",
    metavar="NAME|FILE|hf:ORG/NAME:FILE",
    help=f"Corpus, counted by domain. Default: {DEFAULT_CORPUS}.",
)
@click.option(
    "--documents",
    type=click.IntRange(1),
    metavar="N",
    help="Use only the first N documents of the corpus.",
)
@click.option(
    "--languages",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare one text in many languages instead: JSON Lines with 'language', and 'text' or "
    "'articles' (parallel passages), and optionally 'name'. One row must be English.",
)
@click.option(
    "--only",
    type=types.LIST,
    metavar="LIST",
    help="With --languages: use only these, and English: deu,cmn-Hans.",
)
@click.option(
    "--record",
    "records",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RECORD",
    help="With --languages: cost in FLOPs, seconds and joules on a record with this tokenizer.",
)
@click.option(
    "--bytes",
    "most_bytes",
    type=types.EXACT_BYTES,
    metavar="exact-N",
    help="Run the model: sum the probability of the first N bytes of each document "
    "over all tokenizations.",
)
@click.option(
    "--precision",
    type=types.NAMES,
    metavar="NAME",
    help=f"With --bytes: precision, {', '.join(PRECISIONS)}. Default: fp32.",
)
@click.option(
    "--provider",
    type=types.PROVIDERS,
    metavar="NAME",
    help="With --bytes: execution provider. Default: cpu.",
)
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="With --bytes: intra-op threads. Default: the physical cores, or fewer under a CPU quota.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="With --bytes: cache for exports.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="With --bytes: end a child process after this long without progress. Default: 3600.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: a page with figures (.html), or JSON (.json).",
)
@click.option("--json", "json_form", is_flag=True, help="Print the result as JSON.")
def tokenizer(
    models: tuple[str, ...],
    corpus: str | None,
    documents: int | None,
    languages: Path | None,
    only: tuple[str, ...] | None,
    records: tuple[Path, ...],
    most_bytes: int | None,
    output: Path | None,
    json_form: bool,
    **run: Any,
) -> None:
    """Compare tokenizers on the same text, one or several side by side.

    Shows bytes per token, tokens per word and character, vocabulary use, byte fallback and speed,
    by domain of a corpus; or, with --languages, the tokens of each language relative to English.
    MODEL is a reference model, a folder with tokenizer.json, a Hub id, or edgecap-ref for all
    reference models. Weights are loaded only with --bytes.
    """
    from edgecap.model.reference_models import expand_name

    models = tuple(name for model in models for name in expand_name(model))
    _check(corpus or documents, languages, only is not None or records, most_bytes, output, run)
    if output is not None:
        inputs = {
            "the corpus": [Path(corpus)] if corpus else [],
            "the file of --languages": [languages] if languages else [],
        }
        check_output(output, {**inputs, "one of the records": records}, _mark(output))
    if most_bytes is not None:
        result = _exact(models, corpus, documents, most_bytes, run)
    elif languages is not None:
        result = _languages(models, languages, only, records)
    else:
        result = _corpus(models, corpus, documents)
    if json_form:
        print_json(_values(result))
    if output is not None:
        write(
            output,
            f"{to_json(_values(result))}\n" if _is_json(output) else _page(result),
            (),
            _mark(output),
        )
        click.echo(f"tokenizer: {output}", err=True)
    elif not json_form:
        print_text(_text(result))


def _check(
    corpus: Any, languages: Any, of_languages: Any, exact: int | None, output: Path | None, run: Any
) -> None:
    """Raise click.UsageError if options do not belong together."""
    if languages and (corpus or exact):
        raise click.UsageError("--languages replaces --corpus, --documents and --bytes: give one")
    if of_languages and not languages:
        raise click.UsageError("--only and --record belong to --languages")
    misplaced = next((name for name in _RUN_ONLY if run[name] is not None), None)
    if misplaced and not exact:
        raise click.UsageError(
            f"--{misplaced.removesuffix('_s')} belongs to --bytes: nothing else runs a model"
        )
    if output is not None and output.suffix.lower() not in (".html", ".htm", ".json"):
        raise click.UsageError(f"-o {output}: end it with .html for a page, or .json")
    if output is not None and not _is_json(output) and exact:
        raise click.UsageError("--bytes has no page: end -o with .json")


def _is_json(output: Path) -> bool:
    return output.suffix.lower() == ".json"


def _mark(output: Path) -> str:
    """Return the text near the start of a result that this command wrote."""
    return f'{{\n "{_KEY}": "' if _is_json(output) else GENERATED


def _values(result: Any) -> dict[str, Any]:
    """Return the result for JSON, with the version of edgecap as the first key."""
    import msgspec

    from edgecap import __version__

    return {_KEY: __version__, **msgspec.to_builtins(result)}


def _corpus(models: tuple[str, ...], corpus: str | None, documents: int | None) -> Any:
    from edgecap.analysis.tokenizing.loading import load_tokenizers
    from edgecap.analysis.tokenizing.study import study_corpus
    from edgecap.text.corpus import read_corpus

    return study_corpus(load_tokenizers(models), read_corpus(corpus or DEFAULT_CORPUS, documents))


def _languages(
    models: tuple[str, ...],
    languages: Path,
    only: tuple[str, ...] | None,
    records: tuple[Path, ...],
) -> Any:
    from edgecap.analysis.tokenizing.loading import load_tokenizers
    from edgecap.analysis.tokenizing.parallel import read_parallel
    from edgecap.analysis.tokenizing.study import study_languages
    from edgecap.storage.records import load

    if only is not None and not only:
        raise click.UsageError("--only names no language; leave it out for all")
    return study_languages(
        load_tokenizers(models),
        read_parallel(languages, only or ()),
        [load(path) for path in records],
    )


def _exact(
    models: tuple[str, ...], corpus: str | None, documents: int | None, most_bytes: int, run: Any
) -> Any:
    from edgecap.cli.live import Live
    from edgecap.pipeline.exact_bytes import exact_bytes
    from edgecap.storage.files import resolve_paths

    if len(models) > 1:
        raise click.UsageError(f"--bytes runs one model, not {len(models)}")
    names, providers = run["precision"] or (), run["provider"] or ("cpu",)
    if len(names) > 1 or len(providers) > 1:
        raise click.UsageError("--bytes takes one precision and one provider")
    spec = request(
        model=models[0],
        corpus=corpus or DEFAULT_CORPUS,
        documents=documents,
        precisions=names,
        providers=providers,
        threads=run["threads"],
        timeout_s=run["timeout_s"] or 3600.0,
    )
    with Live() as live:
        return exact_bytes(spec, most_bytes, resolve_paths(run["cache"]), live)


def _text(result: Any) -> str:
    from edgecap.analysis.tokenizing.study import CorpusStudy, LanguageStudy
    from edgecap.report.terminal.exact_bytes import exact_text
    from edgecap.report.terminal.premiums import languages_text
    from edgecap.report.terminal.tokenizers import corpus_text

    if isinstance(result, CorpusStudy):
        return corpus_text(result, width())
    return (
        languages_text(result, width())
        if isinstance(result, LanguageStudy)
        else exact_text(result, width())
    )


def _page(result: Any) -> str:
    from edgecap.analysis.tokenizing.study import CorpusStudy
    from edgecap.report.page.tokenizers import corpus_page, languages_page

    return corpus_page(result) if isinstance(result, CorpusStudy) else languages_page(result)
