"""edgecap tokenizer: what tokens stand for, words and scripts, use by domain, premiums,
and every wrong request in a line.
"""

import json
import re

import click
import msgspec
import pytest
from commands import edgecap, refused
from conftest import ROOT
from tokenizer_files import (
    BYTE_LEVEL,
    SENTENCEPIECE,
    UNIGRAM,
    WORDPIECE,
    definition,
    saved,
    special,
)

from edgecap.analysis.outcomes import TIMING_CAUTIONS
from edgecap.analysis.tokenizing.cost import list_charges, list_prices
from edgecap.analysis.tokenizing.loading import load_tokenizers
from edgecap.analysis.tokenizing.parallel import read_parallel
from edgecap.analysis.tokenizing.premium import group_by_script, measure_premiums
from edgecap.analysis.tokenizing.speed import ROUNDS, measure_speed
from edgecap.analysis.tokenizing.study import study_corpus, study_languages
from edgecap.analysis.tokenizing.text_counts import count_text, script
from edgecap.analysis.tokenizing.usage import measure_usage
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.record import Absent, Caution, Energy, Estimate, Window
from edgecap.report.cells import display_views
from edgecap.report.page.token_figures import of_records
from edgecap.report.page.tokenizers import corpus_page, languages_page
from edgecap.report.terminal.premiums import ends, languages_text
from edgecap.report.terminal.tokenizers import corpus_text, percent
from edgecap.storage.records import load
from edgecap.text.corpus import Document, read_corpus
from edgecap.text.vocabulary import parse_token_bytes

replace = msgspec.structs.replace
RECORD = next(
    path
    for path in sorted((ROOT / "profiles" / "reference").glob("edgecap-ref-xs--*.json"))
    if [cell.provider for cell in load(path).cells] == ["cpu"] * 4
)


def opened(folder, made):
    return load_tokenizers([str(saved(folder, made))])[0]


def texts(*found, domain="d"):
    return [Document(str(n), domain, text) for n, text in enumerate(found)]


# --- what tokens stand for --------------------------------------------------------------------


def test_byte_level_tokens_are_bytes_and_parts_of_characters():
    pieces = parse_token_bytes(BYTE_LEVEL)
    assert pieces.kind == "BPE of bytes" and pieces.reversible
    assert (
        pieces.by_id[0] is None and pieces.by_id[257] == b"ab" and pieces.by_id[258] == "ä".encode()
    )
    assert sorted(piece for piece in pieces.by_id[1:257]) == [bytes([b]) for b in range(256)]
    assert len(pieces.single_bytes) == 256
    assert len(pieces.parts) == 128 and all(pieces.by_id[i][0] > 127 for i in pieces.parts)


def test_sentencepiece_writes_bytes_as_words_and_spaces_as_marks():
    pieces = parse_token_bytes(SENTENCEPIECE)
    assert pieces.by_id[:3] == (None, None, None) and pieces.unknown == 0
    assert pieces.by_id[3 + 0xC3] == b"\xc3" and pieces.parts == frozenset(range(3, 259))
    assert pieces.by_id[259:] == (b" ", b"a", b" a", "é".encode())


def test_what_looks_like_a_byte_is_text_where_there_is_no_fallback():
    made = definition({"type": "BPE", "vocab": {"<0x41>": 0}, "merges": []})
    assert parse_token_bytes(made).by_id == (b"<0x41>",) and not parse_token_bytes(made).parts


def test_unigram_lists_and_added_words():
    made = {**UNIGRAM, "added_tokens": [special(0, "<unk>"), special(5, "▁word", special=False)]}
    pieces = parse_token_bytes(made)
    assert pieces.kind == "Unigram" and pieces.unknown == 0
    assert pieces.by_id == (None, b" ", b"a", b" a", "é".encode(), "▁word".encode())


def test_wordpiece_is_not_reversible():
    pieces = parse_token_bytes(WORDPIECE)
    assert not pieces.reversible and pieces.by_id == (None, b"hello", b"a", b"b", None)


def test_the_reference_tokenizer_spells_the_whole_corpus():
    one = load_tokenizers(["edgecap-ref-xs"])[0]
    for document in read_corpus("edgecap-mixed").documents:
        assert one.pieces.bytes_of(one.tokenizer.encode(document.text)) == document.text.encode()


# --- words, characters, scripts ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("Two words.", 2),
        ("don't, l’eau - it's", 3),
        ("'quoted' rock 'n' roll", 4),
        ("3.5 kg", 3),
        ("नमस्ते दुनिया", 2),  # vowel signs and virama are marks
        ("می\u200cخواهم", 1),  # a zero width non-joiner is no end of a word
        ("snake_case", 2),
        ("e\u0301te\u0301", 1),
        ("\n\t  ", 0),
    ],
)
def test_words_are_runs_of_letters_marks_and_digits(text, words):
    assert count_text(text).words == words


def test_scripts_and_their_spaces():
    assert [script(c) for c in "aя字ひ한กＡ1!"] == [
        "Latin",
        "Cyrillic",
        "Han",
        "Hiragana",
        "Hangul",
        "Thai",
        "Latin",
        None,
        None,
    ]
    assert count_text("日本語のテキスト").scripts[0] in ("Han", "Katakana", "Hiragana")
    assert not count_text("ภาษาไทย").has_words and count_text("한국어 문장").has_words
    assert (
        count_text("one 字 in many words of this text").has_words and not count_text("12").scripts
    )


# --- use --------------------------------------------------------------------------------------


def test_use_is_counted_by_domain_and_in_all(tmp_path):
    one = opened(tmp_path / "b", BYTE_LEVEL)
    whole, found = measure_usage(
        one, [*texts("ab ab", "ä", domain="x"), *texts("字", domain="y"), Document("e", "z", "")]
    )
    assert list(found) == ["x", "y", "z"]
    x, y = found["x"], found["y"]
    assert (x.bytes, x.characters, x.tokens, x.words) == (7, 6, 4, 3)  # ab, space, ab; ä
    assert (
        x.bytes_per_token.value == 7 / 4
        and x.tokens_per_word == 4 / 3
        and x.tokens_per_character == 4 / 6
    )
    assert x.vocabulary_used == 3 and x.vocabulary_share == 3 / 259
    assert (x.byte_fallback_share, x.single_byte_share) == (0, 1 / 4)
    assert (y.tokens, y.byte_fallback_share, y.single_byte_share) == (3, 1, 1)
    assert (
        y.bytes_per_token.low is None
        and isinstance(y.tokens_per_word, Absent)
        and y.worded_documents == 0
    )
    assert isinstance(found["z"].bytes_per_token, Absent) and isinstance(
        found["z"].tokens_per_character, Absent
    )
    assert (whole.tokens, whole.bytes, whole.documents, whole.vocabulary_used) == (7, 10, 4, 6)
    assert (
        whole.tokens_per_word == 4 / 3 and whole.worded_documents == 2
    )  # of the documents that have words
    assert whole.altered_documents == 0 and whole.unknown_share == 0


def test_byte_fallback_of_sentencepiece(tmp_path):
    one = opened(tmp_path / "s", SENTENCEPIECE)
    whole, _ = measure_usage(one, texts("a字"))  # ▁a, three bytes
    assert (whole.tokens, whole.byte_fallback_share, whole.single_byte_share) == (4, 3 / 4, 3 / 4)
    assert whole.altered_documents == 0


def test_text_that_is_lost_is_told(tmp_path):
    for name, made, text, unknown in (
        ("u", UNIGRAM, "a字", 1 / 2),
        ("w", WORDPIECE, "Hello ab zebra", 1 / 4),
    ):
        one = opened(tmp_path / name, made)
        study = study_corpus([one], corpus_of(tmp_path, text))
        whole = study.tokenizers[0].all
        assert whole.altered_documents == 1 and whole.unknown_share == pytest.approx(unknown)
        shown = corpus_text(study, 100)
        assert (
            "do not come back from their tokens: 1 of 1" in click.unstyle(shown).replace("\n", " ")
            and "text that is lost" in shown
        )
    lower = measure_usage(opened(tmp_path / "w", WORDPIECE), texts("Hello"))[0]
    assert lower.altered_documents == 1 and lower.unknown_share == 0


def corpus_of(folder, *found):
    path = folder / "text.jsonl"
    path.write_text(
        "".join(json.dumps({"text": t, "domain": f"d{n % 2}"}) + "\n" for n, t in enumerate(found))
    )
    return read_corpus(str(path))


def test_two_side_by_side(tmp_path):
    pair = [opened(tmp_path / "b", BYTE_LEVEL), opened(tmp_path / "s", SENTENCEPIECE)]
    study = study_corpus(pair, corpus_of(tmp_path, "ab ab ab", "a a a", "字"))
    shown = corpus_text(study, 120)
    assert "s, ratio" in shown and "Tokens for the same text" in shown
    first, second = (t.all for t in study.tokenizers)
    assert f"{second.tokens / first.tokens:.3f}" in shown
    page = corpus_page(study)
    assert 'id="figure-tokens"' in page and "Tokens of b and s" in page


def test_speed_is_taken_in_turns_with_tokenizers_that_have_seen_nothing():
    one = load_tokenizers(["edgecap-ref-xs"])[0]
    ticks = iter(range(1000))
    found = measure_speed([one, one], texts("hello " * 10), lambda: float(next(ticks)))
    assert all(
        len(s.rounds) == ROUNDS and s.bytes == 60 and s.bytes_per_s.value == 60 for s in found
    )
    assert next(ticks) == 2 * 2 * (ROUNDS + 1)
    assert isinstance(measure_speed([one], texts(""))[0], Absent)


def test_names_tell_tokenizers_apart(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    folders = [str(saved(tmp_path / side / "same", BYTE_LEVEL)) for side in ("one", "two")]
    assert [o.name for o in load_tokenizers(folders)] == folders
    with pytest.raises(UsageError, match="given twice"):
        load_tokenizers([folders[0], folders[0]])


# --- languages --------------------------------------------------------------------------------

ROWS = [
    {"language": "xx", "name": "Doubled", "text": "", "articles": ["abab", "ab", "ababab"]},
    {"language": "eng", "text": "x", "articles": ["ab", "a", "ab"]},
    {"language": "zz-Hant", "text": "", "articles": ["字", "", "字"]},
]


def parallel(folder, rows=None, name="parallel.jsonl"):
    path = folder / name
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows or ROWS), "utf-8"
    )
    return path


def test_premium_is_tokens_over_those_of_english(tmp_path):
    one = opened(tmp_path / "b", BYTE_LEVEL)
    found = {p.language: p for p in measure_premiums(one, read_parallel(parallel(tmp_path)))}
    assert (found["eng"].tokens, found["eng"].premium) == (
        3,
        Estimate(value=1.0, low=1.0, high=1.0),
    )
    assert (found["xx"].tokens, found["xx"].premium.value, found["xx"].name) == (6, 2.0, "Doubled")
    assert found["xx"].premium.low < 2 < found["xx"].premium.high
    han = found["zz-Hant"]
    assert (han.premium.value, han.script, han.byte_fallback_share) == (2.0, "Han", 1.0)
    assert [(g.script, g.languages, g.median) for g in group_by_script(list(found.values()))] == [
        ("Latin", 2, 1.5),
        ("Han", 1, 2),
    ]


def test_whole_texts_have_premiums_without_intervals(tmp_path):
    rows = [{"language": "eng", "text": "ab"}, {"language": "xx", "text": "a字"}]
    study = study_languages(
        [opened(tmp_path / "b", BYTE_LEVEL)], read_parallel(parallel(tmp_path, rows))
    )
    assert study.tokenizers[0].languages[1].premium == Estimate(value=4.0, low=None, high=None)
    assert not study.left_out


def test_one_of_a_kind_and_two_tokenizers_side_by_side(tmp_path):
    rows = [{"language": "eng", "text": "ab"}]
    pair = [opened(tmp_path / "b", BYTE_LEVEL), opened(tmp_path / "s", SENTENCEPIECE)]
    text = read_parallel(parallel(tmp_path, rows))
    assert "1 language," in languages_text(study_languages(pair, text), 100)
    assert "By script, the median premium\n" in languages_text(study_languages(pair, text), 100)
    assert ": 1 language<" in languages_page(study_languages(pair[:1], text))
    study = study_corpus(pair[:1], corpus_of(tmp_path, "ab"))
    assert "1 document," in corpus_text(study, 100) and ": 1 document," in corpus_page(study)


def test_a_language_with_other_pieces_than_english_has_no_premium(tmp_path):
    rows = [
        *ROWS,
        {"language": "half", "text": "a"},
        {"language": "more", "text": "", "articles": ["a"] * 4},
    ]
    one = load_tokenizers(["edgecap-ref-xs"])
    study = study_languages(one, read_parallel(parallel(tmp_path, rows)), [load(RECORD)])
    known = {"eng", "xx", "zz-Hant"}
    assert {p.language for p in study.tokenizers[0].languages} == known
    assert {c.language for c in study.costs[0].charges} == known
    assert sum(g.languages for g in study.tokenizers[0].scripts) == 3
    assert [msgspec.to_builtins(u) for u in study.left_out] == [
        {"language": "half", "name": "half", "pieces": 1, "english_pieces": 3},
        {"language": "more", "name": "more", "pieces": 4, "english_pieces": 3},
    ]
    said = "no premium of half (1), more (4): English has 3 pieces"
    assert said in languages_text(study, 200) and said in languages_page(study)


def test_rows_of_a_language_are_pieces_of_its_text(tmp_path):
    rows = [{"language": code, "text": text} for text in ("one", "two") for code in ("en_US", "de")]
    text = read_parallel(parallel(tmp_path, rows))
    assert text.english.language == "en_US" and text.english.pieces == ("one", "two")
    assert [v.language for v in read_parallel(parallel(tmp_path), ["xx"]).versions] == ["xx", "eng"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"language": "deu", "text": "x"}', "has no English row"),
        (
            '{"language": "eng", "text": "x"}\n{"language": "xx", "text": " "}',
            "language 'xx' has no text",
        ),
        (
            '{"language": "en", "text": "x"}\n{"language": "eng", "text": "x"}',
            "English as 'en' and 'eng'",
        ),
        ('{"language": "eng"}', "line 1: no 'text' field"),
        ('{"language": "eng", "text": "x", "articles": [1]}', "line 1: no 'text' field"),
        ('{"text": "x"}', "line 1: no 'language' field"),
        ("language,text\n", "line 1: not JSON Lines"),
        ("[1]", "line 1: no 'language' field"),
        ("\n\n", "is empty"),
        ('{"language": "eng", "text": "\\ud800"}', "not JSON Lines|lone surrogate"),
    ],
)
def test_files_that_are_no_parallel_text(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_parallel(path)


def test_bytes_that_are_no_text_and_a_folder(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"language": "eng"}\n\xff\n')
    with pytest.raises(UsageError, match="not UTF-8: byte 20, line 2"):
        read_parallel(tmp_path / "p.jsonl")
    with pytest.raises(UsageError, match="cannot read --languages"):
        read_parallel(tmp_path)


def test_costs_are_tokens_times_what_a_token_costs_in_the_record(tmp_path):
    record, one = load(RECORD), load_tokenizers(["edgecap-ref-xs"])[0]
    prices = list_prices(record, [one])
    found = measure_premiums(one, read_parallel(parallel(tmp_path)))
    made = list_charges(prices, found)
    assert len(made) == len(found) * len(prices.prices)
    for charge in made:
        price = next(p for p in prices.prices if p.cell == charge.cell)
        assert charge.flops == charge.tokens * record.flops.per_token
        assert charge.write_s.value == charge.tokens * price.decode_s.value
        assert charge.write_j == price.decode_j  # absent, with the record's reason
    shown = languages_text(study_languages([one], read_parallel(parallel(tmp_path)), [record]), 100)
    names = ", ".join(cell.precision for cell in record.cells)
    assert f"no joules of {names}: no RAPL counter" in shown


def test_what_the_record_warns_of_in_its_costs_is_told(tmp_path):
    record, one = load(RECORD), load_tokenizers(["edgecap-ref-xs"])
    codes = ("noisy", "few-documents", "energy-incomplete", "noisy", "divergent")
    told = tuple(Caution(code=code, message="m", advice="a") for code in codes)
    quiet = [replace(cell, cautions=told[1:2]) for cell in record.cells[1:]]
    doubted = replace(record, cells=(replace(record.cells[0], cautions=told), *quiet))
    study = study_languages(one, read_parallel(parallel(tmp_path)), [doubted])
    line = "fp32 (edgecap-ref-xs): energy-incomplete, noisy"
    assert line in click.unstyle(
        languages_text(study, 100)
    ).splitlines() and f">{line}<" in languages_page(study)
    assert [price.cautions for price in study.costs[0].bill.prices[1:]] == [()] * len(quiet)


def test_the_cautions_of_costs_are_those_of_cautions():
    modules = (ROOT / "edgecap" / "analysis" / "warnings").glob("*.py")
    known = {c for m in modules for c in re.findall('code="([a-z0-9-]+)"', m.read_text("utf-8"))}
    assert TIMING_CAUTIONS - {"latency-failed"} <= known


def test_joules_are_charged_where_the_record_has_them(tmp_path):
    record, one = load(RECORD), load_tokenizers(["edgecap-ref-xs"])[0]
    window = tuple(Window(joules=j, seconds=1.0, tokens=10) for j in (1.0, 2.0, 3.0))
    energy = Energy(counter="rapl", domains=("package-0",), provenance="counter", tick_s=0.001,
                    resolution_j=1e-6, idle_w=(1.0, 1.0), prefill=window,
                    decode=window)  # fmt: skip
    cell = record.cells[0]
    measured = replace(
        record,
        cells=(replace(cell, outcome=replace(cell.outcome, energy=energy)), *record.cells[1:]),
    )
    study = study_languages([one], read_parallel(parallel(tmp_path)), [measured])
    charge = next(c for c in study.costs[0].charges if c.cell == "fp32" and c.language == "eng")
    assert charge.write_j.value == pytest.approx(0.2 * charge.tokens)
    assert "fp32, J" in languages_text(study, 200) and "write_j" in languages_page(study)


def test_a_record_of_another_tokenizer_is_refused(tmp_path):
    with pytest.raises(UsageError, match="another tokenizer"):
        list_prices(load(RECORD), [opened(tmp_path / "b", BYTE_LEVEL)])
    failed = replace(load(RECORD), cells=())
    with pytest.raises(UsageError, match="no cell that was measured"):
        list_prices(failed, load_tokenizers(["edgecap-ref-xs"]))


def test_many_languages_are_shown_at_their_ends():
    few, many = list(range(20)), list(range(30))
    assert ends(few) == (few, 0)
    assert ends(many) == ([*many[:8], *many[-8:]], 14)


def test_names_from_outside_are_only_names(tmp_path):
    rows = [
        {"language": "eng", "text": "ab"},
        {"language": "\x1b[31m<b>", "name": "</script><img>\u202e", "text": "ab"},
    ]
    study = study_languages(
        [opened(tmp_path / "b", BYTE_LEVEL)], read_parallel(parallel(tmp_path, rows))
    )
    assert "\x1b[31m" not in languages_text(study, 100)
    page = languages_page(study)
    assert "<img>" not in page and "\u202e" not in page


@pytest.mark.oracle
def test_the_declaration_of_human_rights(shared):
    one = load_tokenizers(["edgecap-ref-xs"])[0]
    text = read_parallel(shared / "data" / "udhr.jsonl")
    found = {p.language: p for p in measure_premiums(one, text)}
    assert len(found) == 67 and all(
        p.pieces == 30 and p.premium.low is not None and p.lossless for p in found.values()
    )
    assert (
        found["eng"].premium.value == 1
        and found["mya"].premium.value > found["deu"].premium.value > 1.5
    )
    assert {"Han", "Latin", "Cyrillic", "Hiragana+Han", "Hangul", "Thai"} <= {
        p.script for p in found.values()
    }
    page = languages_page(study_languages([one], text))
    assert 'id="figure-premiums"' in page


# --- the command, and the figure of the report ------------------------------------------------


@pytest.mark.slow
def test_the_command_in_its_forms(tmp_path):
    shown = edgecap("tokenizer", "edgecap-ref-xs")
    assert shown.returncode == 0 and "bytes/token" in shown.stdout and "chinese" in shown.stdout
    page = tmp_path / "page.html"
    words = ("tokenizer", "edgecap-ref-xs", "--languages", parallel(tmp_path), "--record", RECORD)
    made = edgecap(*words, "--only", "xx", "--json", "-o", page)
    found = json.loads(made.stdout)
    assert [p["language"] for p in found["tokenizers"][0]["languages"]] == ["eng", "xx"]
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert edgecap(*words, "-o", tmp_path / "x.json").stdout == ""
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["english"] == "eng"


def test_wrong_requests_are_told_in_a_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.jsonl").write_text('{"text": ""}\n')
    text = parallel(tmp_path)
    for words, message in (
        (("./nothing",), "no model './nothing'"),
        ((tmp_path / "empty",), "has no tokenizer.json"),
        ((text,), "is a file; give the folder"),
        (("edgecap-ref-xs", "edgecap-ref-xs"), "given twice"),
        (("edgecap-ref-xs", "--corpus", tmp_path / "none.jsonl"), "holds no text"),
        (("edgecap-ref-xs", "--corpus", "nothing.jsonl"), "cannot read corpus"),
        (("edgecap-ref-xs", "--languages", "nothing.jsonl"), "cannot read --languages"),
        (("edgecap-ref-xs", "--languages", text, "--only", "zz"), "no language 'zz'"),
        (("edgecap-ref-xs", "--languages", text, "--corpus", "x"), "give one"),
        (("edgecap-ref-xs", "--only", "xx"), "belong to --languages"),
        (("edgecap-ref-xs", "--languages", text, "--only", ""), "--only names no language"),
        (("edgecap-ref-xs", "--languages", text, "--only", " , "), "--only names no language"),
        (("edgecap-ref", "edgecap-ref-s"), "given twice"),
        (("edgecap-ref", "--bytes", "exact-8"), "--bytes runs one model, not 3"),
        (
            (
                "edgecap-ref-xs",
                "--languages",
                text,
                "--record",
                ROOT / "tests" / "data" / "record-5.json",
            ),
            "another tokenizer",
        ),
        (("edgecap-ref-xs", "-o", "x.png"), "end it with .html"),
        (("edgecap-ref-xs", "--languages", text, "-o", text), "end it with .html"),
    ):
        assert message in refused("tokenizer", *words), words
    run = edgecap("tokenizer", "./nothing")
    assert (
        run.returncode == 2
        and run.stderr.startswith("edgecap: no model")
        and run.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("name", ["x.json", "x.html"])
def test_only_a_former_result_is_written_over(tmp_path, name):
    words = (
        "tokenizer",
        "edgecap-ref-xs",
        "--languages",
        parallel(tmp_path),
        "-o",
        tmp_path / name,
    )
    for _ in range(2):
        cli.main([str(word) for word in words], standalone_mode=False)
    (tmp_path / name).write_text('{"version": "1.0"}')
    assert "not a result of this command" in refused(*words)
    assert (tmp_path / name).read_text() == '{"version": "1.0"}'


def test_the_definition_of_a_tokenizer_that_is_read_is_not_written_over(tmp_path):
    file = saved(tmp_path / "b", BYTE_LEVEL) / "tokenizer.json"
    before = file.read_bytes()
    assert "not a result of this command" in refused("tokenizer", file.parent, "-o", file)
    assert file.read_bytes() == before


def test_an_output_that_is_read_is_named(tmp_path):
    text = parallel(tmp_path, name="text.json")
    for words, what in (
        (("--corpus", text), "is the corpus"),
        (("--languages", text), "is the file of --languages"),
        (("--languages", parallel(tmp_path), "--record", text), "is one of the records"),
    ):
        assert what in refused("tokenizer", "edgecap-ref-xs", *words, "-o", text)


def test_the_report_shows_bytes_a_token_of_each_tokenizer():
    record = load(RECORD)
    record = replace(record, cells=record.cells[:1])
    other = replace(record, source=replace(record.source, name="other", tokenizer_sha256="0" * 64))
    figure = of_records(display_views([record, record, other]))
    assert [trace["name"] for trace in figure.plot["data"]] == ["edgecap-ref-xs", "other"]
    text = record.cells[0].outcome.compression.by_domain["code"]
    at = figure.plot["layout"]["yaxis"]["ticktext"].index("code")
    assert figure.plot["data"][0]["x"][at] == text.bytes / text.tokens
    assert "(chinese) to 3.57 (technical)" in figure.text
    assert of_records(display_views([replace(record, cells=())])) is None


def test_shares_as_people_read_them():
    assert [percent(x) for x in (0, 0.0004, 0.0123, 0.5, 1)] == [
        "0 %",
        "<0.1 %",
        "1.2 %",
        "50 %",
        "100 %",
    ]
