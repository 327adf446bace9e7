"""The exact probability of texts: against enumeration on tiny vocabularies, against identities,
and with the real model.
"""

import itertools
import json
import math

import numpy as np
import pytest
from commands import edgecap, refused
from conftest import REFERENCE
from fakes import scripted
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_files import BYTE_LEVEL, WORDPIECE, saved

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters.exact.search import ROWS, TOLERANCE, Vocabulary, search
from edgecap.meters.exact.texts import TextBits, sum_texts, text_bits, text_prefix
from edgecap.pipeline.exact_bytes import exact_bytes, parse_bytes
from edgecap.pipeline.worker import ExactBytes, ExactBytesResult
from edgecap.record import Failure
from edgecap.report.terminal.exact_bytes import exact_text
from edgecap.spec import Spec
from edgecap.storage.files import Paths
from edgecap.text.corpus import Document, read_corpus
from edgecap.text.tokenizer import read_token_bytes, read_tokenizer
from edgecap.text.vocabulary import parse_token_bytes

AB = (None, b"a", b"b", b"ab", b"ba", b"abb")  # token 0 ends a text
SAME = (b"a", b"b", b"a", b"ab")  # two tokens of the same bytes, and none that ends a text


class Fake:
    """A model of tokens whose next token depends on all before it, the same on every call."""

    def __init__(self, vocabulary, sharp=2.0):
        self.vocabulary, self.sharp, self.rows = vocabulary, sharp, []

    def next_log_probabilities(self, rows):
        self.rows += map(tuple, rows.tolist())
        return np.stack([self.after(tuple(row)) for row in rows.tolist()])

    def after(self, ids):
        seed = [len(ids), *ids]
        logits = self.sharp * np.random.default_rng(seed).standard_normal(self.vocabulary)
        return (logits - np.logaddexp.reduce(logits)) / math.log(2)

    def p(self, start, ids):
        """The probability of a sequence, token by token."""
        behind = [
            [start, *ids[:n]] if start is not None else list(ids[:n]) for n in range(len(ids))
        ]
        return math.prod(
            2 ** self.after(tuple(b))[i] if b else 1 / self.vocabulary
            for b, i in zip(behind, ids, strict=True)
        )


def covers(text, spelled):
    """Every cover by its definition: the bytes begin with the text,
    without the last token they do not.
    """
    usable = [i for i, piece in enumerate(spelled) if piece]
    for n in range(1, len(text) + 1):
        for ids in itertools.product(usable, repeat=n):
            whole, before = (b"".join(spelled[i] for i in part) for part in (ids, ids[:-1]))
            if whole.startswith(text) and not before.startswith(text):
                yield ids


def found_in(text, spelled, own, engine=None, start=0):
    engine = engine or Fake(len(spelled))
    return search(text, own, Vocabulary(spelled, engine.vocabulary), engine, start), engine


def greedy(text, spelled):
    """An encoder: the longest piece, again and again."""
    ids = []
    while text:
        i = max(
            (i for i, p in enumerate(spelled) if p and text.startswith(p)),
            key=lambda i: len(spelled[i]),
        )
        ids, text = [*ids, i], text[len(spelled[i]) :]
    return ids


@pytest.mark.parametrize("start", [0, None])
@pytest.mark.parametrize("spelled", [AB, SAME])
@pytest.mark.parametrize("text", [b"a", b"ab", b"abba", b"babab", b"abbab"])
def test_the_sum_is_that_of_all_covers_by_their_definition(text, spelled, start):
    own = greedy(text, spelled)
    found, engine = found_in(text, spelled, own, start=start)
    known = {ids: engine.p(start, ids) for ids in covers(text, spelled)}
    left = 2**found.left
    assert sum(known.values()) - left - 1e-12 <= 2**found.covers <= sum(known.values()) + 1e-12
    assert left <= TOLERANCE * 2**found.covers
    spelling = [p for ids, p in known.items() if b"".join(spelled[i] for i in ids) == text]
    assert 2**found.tokenizations == pytest.approx(sum(spelling), rel=TOLERANCE)
    assert 2**found.single == pytest.approx(engine.p(start, own))
    assert found.number <= len(known)


@given(st.binary(min_size=1, max_size=6).map(lambda raw: bytes(97 + b % 2 for b in raw)))
def test_no_tokenization_is_more_probable_than_all(text):
    found, engine = found_in(text, AB, greedy(text, AB))
    assert found.single <= found.tokenizations <= found.covers <= 0
    assert len(set(engine.rows)) == len(engine.rows) == found.read  # each beginning is read once


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_texts_of_a_length_share_all_probability_but_that_of_ending(length):
    texts = [bytes(t) for t in itertools.product(b"ab", repeat=length)]
    assert sum(2 ** found_in(t, SAME, greedy(t, SAME))[0].covers for t in texts) == pytest.approx(
        1, rel=TOLERANCE
    )
    some = sum(2 ** found_in(t, AB, greedy(t, AB))[0].covers for t in texts)
    engine = Fake(len(AB))
    ended = [engine.p(0, (*ids, 0)) for ids in beginnings(length)]
    assert some == pytest.approx(1 - sum(ended), rel=2 * TOLERANCE)


def beginnings(length):
    """Sequences of tokens with less than `length` bytes, behind which token 0 can end the text."""
    usable = [i for i, piece in enumerate(AB) if piece]
    for n in range(length):
        for ids in itertools.product(usable, repeat=n):
            if sum(len(AB[i]) for i in ids) < length:
                yield ids


def test_what_is_not_searched_is_bounded():
    text = b"abababababab"
    whole, _ = found_in(text, AB, greedy(text, AB))
    engine = Fake(len(AB))
    cut = search(text, greedy(text, AB), Vocabulary(AB, len(AB)), engine, 0, most_read=20)
    assert cut.read == len(engine.rows) == 20 < whole.read
    assert cut.covers < whole.covers <= np.logaddexp2(cut.covers, cut.left)
    assert max(map(len, engine.rows)) <= len(text) and ROWS > 1


def test_ids_beyond_the_model_are_left_out_and_a_padded_model_is_no_mistake():
    short = Vocabulary(AB, 3)
    assert short.covering(b"a").tolist() == [1]
    found = search(b"ab", [1, 2], Vocabulary(AB, 40), Fake(40), 0)
    assert found.covers < 0


def test_vocabulary_finds_what_begins_and_what_is_begun():
    vocabulary = Vocabulary((b"\xff", b"\xff\xff", b"a", None, b"", b"\xff\x00", b"a"), 7)
    assert sorted(vocabulary.covering(b"\xff").tolist()) == [0, 1, 5]
    assert sorted(vocabulary.equal(b"a").tolist()) == [2, 6]
    assert sorted(vocabulary.inside(b"a\xff")) == [(2, 1), (6, 1)]
    assert vocabulary.inside(b"a") == []


# --- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("short", 24, "short"),
        ("one two three", 9, "one two"),
        ("one two three", 7, "one two"),
        ("unbreakable", 5, "unbre"),
        ("äöü", 5, "äö"),
        (" a", 1, " "),
        ("ä", 1, ""),
    ],
)
def test_a_beginning_is_cut_between_words_or_characters(text, most, expected):
    assert text_prefix(text, most) == expected


def test_a_text_that_tokens_do_not_spell_is_refused():
    pieces = parse_token_bytes(WORDPIECE)

    class Lower:
        start = 0

        def encode(self, text):
            return [1]

    with pytest.raises(UsageError, match="document 'x' do not spell"):
        text_bits(
            Document("x", "d", "Hello"), 24, Lower(), pieces, Vocabulary(pieces.by_id, 5), Fake(5)
        )


def test_sums_over_texts():
    made = [
        TextBits(id=str(n), domain="d", bytes=10, tokens=3, single_bits=20.0 + n,
                 tokenizations_bits=19.0 + n, covers_bits=18.0 + n, least_bits=17.0 + n, covers=5,
                 read=9)
        for n in range(3)
    ]  # fmt: skip
    found = sum_texts(tuple(made), "m", "fp32", "cpu", "c", 10, 5)
    assert (found.single, found.saved_by_tokenizations.value, found.saved_by_covers.value) == (
        2.1,
        0.1,
        0.2,
    )
    assert found.undecided == 0.1 and found.saved_by_covers.low == pytest.approx(0.2)
    assert (
        "left out: 2 documents without text, or with a first character of more than 10 bytes"
        in exact_text(found, 200)
    )
    one = sum_texts(tuple(made[:1]), "m", "fp32", "cpu", "c", 1, 1)
    assert one.saved_by_covers.low is None
    assert "the first 1 byte or fewer of 1 document of c, 10 bytes" in exact_text(one, 200)
    assert "left out" not in exact_text(one, 200)


@pytest.mark.parametrize(
    "asked", ["exact", "exact-", "exact-0", "exact-65", "exact-x", "single-4", "", "exact-²"]
)
def test_bytes_are_asked_for_as_exact_n(asked):
    assert parse_bytes("exact-24") == 24
    with pytest.raises(UsageError, match="write exact-N"):
        parse_bytes(asked)


# --- the real model ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_reference_model_from_the_command_line(tmp_path):
    file = tmp_path / "three.jsonl"
    rows = [
        {"id": "a", "text": "The cat sat"},
        {"id": "b", "text": "Ein Süß"},
        {"id": "c", "text": ""},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = edgecap("tokenizer", "edgecap-ref-xs", "--bytes", "exact-8", "--corpus", file, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (
        found["documents"] == 2
        and found["left_out"] == 1
        and found["bytes"] == len("The cat") + len("Ein")
    )
    tokenizer, pieces = read_tokenizer(REFERENCE), read_token_bytes(REFERENCE)
    for text, one in zip(("The cat", "Ein"), found["texts"], strict=True):
        assert (
            one["tokens"] == len(tokenizer.encode(text))
            and pieces.bytes_of(tokenizer.encode(text)) == text.encode()
        )
        assert (
            one["least_bits"]
            <= one["covers_bits"]
            <= one["tokenizations_bits"]
            <= one["single_bits"]
        )
        assert one["covers_bits"] - one["least_bits"] < 0.0015
    assert "edgecap: exact bytes" in run.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("edgecap-ref-xs", "--bytes", "exact-0"), "write exact-N with N bytes from 1 to 64"),
        (("edgecap-ref-xs", "x", "--bytes", "exact-8"), "--bytes runs one model, not 2"),
        (("edgecap-ref-xs", "--bytes", "exact-8", "--languages", "x"), "give one"),
        (("edgecap-ref-xs", "--threads", "2"), "--threads belongs to --bytes"),
        (("edgecap-ref-xs", "--bytes", "exact-8", "--precision", "int9"),
         "unknown precision 'int9'"),
        (("edgecap-ref-xs", "--bytes", "exact-8", "--provider", "cpu,cuda"),
         "one precision and one provider"),
        (("edgecap-ref-xs", "--bytes", "exact-8", "-o", "x.html"), "has no page"),
    ],
)  # fmt: skip
def test_wrong_requests_are_told_in_a_line(words, message):
    assert message in refused("tokenizer", *words)


def test_a_model_that_gives_nothing_is_told(tmp_path):
    """A child that scores no text, or dies: the command ends in a line."""
    home, spec = Paths(tmp_path / "cache", tmp_path), Spec(corpus=str(corpus_of_one(tmp_path)))
    for answer, error, message in (
        (ExactBytesResult(texts=()), UsageError, "no document begins with a whole character"),
        (
            Failure(stage="marginalise", error="Exit", message="gone"),
            EdgecapError,
            "could not be scored: gone",
        ),
    ):
        made = scripted(read_corpus(spec.corpus))
        with pytest.raises(error, match=message):
            exact_bytes(
                spec,
                1,
                home,
                run=lambda step, *rest, a=answer, m=made: (
                    a if isinstance(step, ExactBytes) else m(step, *rest)
                ),
            )


def corpus_of_one(folder):
    path = folder / "one.jsonl"
    path.write_text(json.dumps({"text": "ä"}) + "\n")
    return path


def test_byte_level_tokens_spell_their_text(tmp_path):
    folder = saved(tmp_path / "bytes", BYTE_LEVEL)
    tokenizer, pieces = read_tokenizer(folder), read_token_bytes(folder)
    assert pieces.bytes_of(tokenizer.encode("aba\nä")) == "aba\nä".encode()
