"""A text scored in parts adds up to the same last bit, whoever scores what, in whatever order."""

import random

import msgspec
import pytest
from fakes import ByteTokenizer, FakeClock, FakeEngine
from hypothesis import given
from hypothesis import strategies as some

from edgecap.meters import compression, text_windows
from edgecap.meters.sharding import DocumentShare, Unequal, join_parts, score_part
from edgecap.text.corpus import Document


class Uneven(FakeEngine):
    """Bits that differ in every place, so that a sum shows its order."""

    def nll(self, inputs, targets):
        chance = random.Random(str(inputs.tolist()))
        return super().nll(inputs, targets) * [chance.uniform(1e-9, 1e9) for _ in targets]


def documents(texts):
    return [Document(f"d{n}", "ab"[n % 2], text) for n, text in enumerate(texts)]


def cutter(context=8, stride=None):
    return text_windows.exact_cutter(ByteTokenizer(), context, 256, stride)


def engine():
    return Uneven(FakeClock(), vocabulary=256, skill=64)


def parts_of(texts, parts, **how):
    return [
        score_part(engine(), cutter(**how), documents(texts), n, parts, FakeClock())
        for n in range(parts)
    ]


def at_once(texts, **how):
    return compression.measure_compression(
        engine(), cutter(**how), documents(texts), compression.WindowPlan("exact", 8), FakeClock()
    )


@given(
    some.lists(some.text(max_size=60), min_size=1, max_size=6),
    some.integers(1, 9),
    some.sampled_from([None, 3, 8]),
    some.randoms(),
)
def test_parts_are_the_whole_to_the_last_bit(texts, parts, stride, chance):
    if not any(text for text in texts):
        texts = [*texts, "something"]
    shares = parts_of(texts, parts, stride=stride)
    chance.shuffle(shares)
    joined = [scored.bits for scored in join_parts(shares)]
    assert tuple(joined) == at_once(texts, stride=stride).per_document


def test_one_long_document_is_shared_evenly():
    shares = parts_of(["words and words " * 500], 5)
    windows_of = [len(share[0].window_bits) for share in shares]
    assert max(windows_of) - min(windows_of) <= 1 and min(windows_of) > 100


@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"domain": "x"}, {"bytes": 1}, {"tokens": 1}, {"lossless": False}]
)
def test_parts_of_two_texts_do_not_join(change):
    one, two = parts_of(["some text of many words"], 2)
    with pytest.raises(Unequal, match="do not agree"):
        join_parts([one, [msgspec.structs.replace(two[0], **change)]])


def test_parts_that_lack_a_document_do_not_join():
    one, two = parts_of(["some", "text"], 2)
    with pytest.raises(Unequal, match="different numbers"):
        join_parts([one, two[:1]])


def test_a_share_survives_the_journey():
    (one,) = parts_of(["some text"], 1)
    assert msgspec.json.decode(msgspec.json.encode(one), type=list[DocumentShare]) == one
