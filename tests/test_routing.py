"""routing: hard documents to the large model; every number by hand."""

import json

import click
import msgspec
import pytest
from choosing import (
    BOARD,
    cell,
    documents,
    encoder,
    failed,
    joules,
    rebuilt,
    record,
    renamed,
    with_outcome,
)
from commands import edgecap
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import RECORD

from edgecap.analysis.routing import route
from edgecap.errors import UsageError
from edgecap.report.terminal.routing import routed

DATA = ROOT / "tests" / "data"
SMALL = (("a", 100, 50, 400.0), ("b", 100, 50, 100.0), ("a", 100, 50, 300.0), ("b", 100, 50, 200.0))
LARGE = (("a", 100, 40, 200.0), ("b", 100, 40, 100.0), ("a", 100, 40, 180.0), ("b", 100, 40, 150.0))


def pair(slower=10.0, small=SMALL, large=LARGE, **changes):
    """A small model of 1 ms a token, and a large one that takes `slower` times as long."""
    low = documents(cell("fp32", decode=0.001), *small)
    high = documents(cell("fp32", decode=0.001 * slower), *large)
    return [renamed(record(low), model="small"), renamed(record(high, **changes), model="large")]


def text_of(found, width=80):
    return click.unstyle(routed(found, width)) + "\n"


def test_each_alone_by_hand():
    found = route(pair())
    assert (found.small.name, found.large.name) == ("fp32 (small)", "fp32 (large)")
    assert found.small.cost_per_kb == pytest.approx(200 * 0.001 / 0.4)
    assert found.large.cost_per_kb == pytest.approx(160 * 0.010 / 0.4)
    assert found.small.bits_per_byte == pytest.approx(1000 / 400)
    assert found.large.bits_per_byte == pytest.approx(630 / 400)


def test_splits_by_hand():
    found = route(pair())
    assert [s.share for s in found.splits] == [0, 0.25, 0.5, 0.75, 1]
    assert [s.documents for s in found.splits] == [0, 1, 2, 3, 4]
    assert [s.threshold for s in found.splits] == [4.0, 3.5, 2.5, 1.5, 0.0]
    assert [s.bits_per_byte for s in found.splits] == pytest.approx([2.5, 2.0, 1.7, 1.575, 1.575])
    assert [s.cost_per_kb for s in found.splits] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    quarter = found.splits[1]
    assert quarter.random_bits_per_byte == pytest.approx(0.75 * 2.5 + 0.25 * 1.575)
    assert quarter.random_cost_per_kb == pytest.approx(0.75 * 0.5 + 0.25 * 4.0)


def test_the_knee_lies_furthest_below_chance():
    found = route(pair())
    assert (found.verdict, found.best.documents) == ("split", 2)
    assert found.saved.value == pytest.approx(0.8)
    assert found.saved.low < 0.8 < found.saved.high
    assert found.domains == {"a": 1.0, "b": 0.0}
    assert "fp32 (small) needs more than 2.500 bits/byte" in " ".join(text_of(found).split())


@pytest.mark.parametrize(
    ("at_most", "verdict", "sent"),
    [
        (2.6, "small alone", None),
        (2.1, "split", 1),
        (1.58, "split", 3),
        (1.0, "out of reach", None),
    ],
)
def test_the_cheapest_within_a_limit(at_most, verdict, sent):
    found = route(pair(), at_most=at_most)
    assert found.verdict == verdict
    assert (found.best and found.best.documents) == sent


def test_a_large_model_that_is_hardly_slower_does_it_alone():
    assert route(pair(1.5), at_most=2.1).verdict == "large alone"
    found = route(pair(1.5))
    assert (found.verdict, found.best) == ("no gain", None)
    assert "costs 1.2 times as much" in " ".join(text_of(found).split())


def test_one_that_is_cheaper_and_better_leaves_nothing_to_route():
    found = route(pair(0.5))
    assert found.verdict == "small alone" and found.small == found.large and not found.splits
    assert "routing gains nothing" in " ".join(text_of(found).split())
    assert route(pair(0.5), at_most=1.0).verdict == "out of reach"


def test_a_hair_fewer_bits_are_no_reason_to_pay():
    low, high = pair()
    hair = documents(
        cell("fp16", decode=0.017), *[(*row[:3], row[3] * (1 - 1e-6)) for row in LARGE]
    )
    found = route([low, renamed(record(*high.cells, hair), model="large")])
    assert found.large.name == "fp32 (large)"


def test_equally_hard_documents_stay_together():
    same = [("a", 100, 50, 300.0)] * 4
    found = route(pair(small=same))
    assert [s.documents for s in found.splits] == [0, 4]


def test_joules_in_place_of_seconds():
    low = documents(cell("int8", energy=joules(0.001)), *SMALL)
    high = documents(cell("fp32", energy=joules(0.010)), *LARGE)
    found = route([record(high, low)], "energy")
    assert (found.small.name, found.unit) == ("int8", "J")
    assert found.splits[1].cost_per_kb == pytest.approx(1.5)
    assumed = documents(cell("fp32", energy=joules(0.010, "assumed")), *LARGE)
    with pytest.raises(UsageError, match="assumed"):
        route([record(assumed, low)], "energy")


def test_joules_that_are_missing_are_named_as_what_is_missing():
    low, high = pair()
    with pytest.raises(
        UsageError,
        match=r"needs measured joules of two cells .*are none; fp32 \(small\): no counter here",
    ):
        route([low, high], "energy")
    counted = documents(cell("int8", energy=joules(0.001)), *SMALL)
    with pytest.raises(UsageError, match="needs measured joules .* there is one; "):
        route([record(counted), high], "energy")


def test_who_does_it_alone_is_told_with_its_own_bits():
    found = " ".join(text_of(route(pair(), at_most=2.6)).split())
    assert (
        "fp32 (small) does it alone (2.5000 bits/byte), it is the cheapest, "
        "and within the limit of 2.6" in found
    )
    found = " ".join(text_of(route(pair(1.5), at_most=2.1)).split())
    assert "fp32 (large) does it alone (1.5750 bits/byte), it is within the limit of 2.1" in found


def test_who_cannot_take_part_is_told():
    low, high = pair()
    found = route([record(*low.cells, failed("int4"), *high.cells)])
    assert found.left_out == {"int4": "failed: signal 9"}
    assert "left out: int4: failed: signal 9" in text_of(found)


@pytest.mark.parametrize(
    "cells", [(), (failed(),), (cell(),), (cell(), failed()), (encoder(), encoder())]
)
def test_fewer_than_two_cells_are_refused(cells):
    with pytest.raises(UsageError, match="needs two measured cells"):
        route([record(*cells)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "paper"}, "protocol"),
        ({"context": 17}, "window of the text"),
        ({"stride": 8}, "stride"),
        (
            {"per_document": RECORD.cells[0].outcome.compression.per_document[:3]},
            "set of documents",
        ),
    ],
)
def test_other_texts_are_refused_by_name(change, said):
    low, high = pair()
    text = msgspec.structs.replace(high.cells[0].outcome.compression, **change)
    other = msgspec.structs.replace(high, cells=(with_outcome(high.cells[0], compression=text),))
    with pytest.raises(UsageError, match=f"the {said}"):
        route([low, other])


def test_another_corpus_is_refused():
    other = msgspec.structs.replace(RECORD.corpus, sha256="other")
    with pytest.raises(UsageError, match="the corpus of fp32"):
        route(pair(corpus=other))


def test_few_documents_and_other_machines_are_cautions():
    low, high = pair()
    found = route([low, renamed(high, machine="server")])
    assert any("4 documents are few" in c for c in found.cautions)
    assert any("two machines (Example (laptop), Example (server))" in c for c in found.cautions)
    places = [
        rebuilt(low, cpu="EPYC", physical_cores=2),
        rebuilt(high, cpu="Xeon", physical_cores=16, gpus=(BOARD,)),
    ]
    alike = route(places)
    assert any("(EPYC, Xeon + NVIDIA H100)" in c for c in alike.cautions)
    many = route(pair(small=SMALL * 3, large=LARGE * 3))
    assert not many.cautions


DOCUMENTS = st.lists(
    st.tuples(
        st.integers(1, 500),
        st.integers(1, 200),
        st.floats(1, 2000),
        st.integers(1, 200),
        st.floats(1, 2000),
    ),
    min_size=1,
    max_size=12,
)


@given(DOCUMENTS, st.floats(1.0, 50.0))
@settings(deadline=None, max_examples=60)
def test_nothing_sent_is_the_small_one_and_everything_is_the_large_one_with_both_costs(
    rows, slower
):
    small = [("d", size, tokens, bits) for size, tokens, bits, _, _ in rows]
    large = [("d", size, tokens, bits) for size, _, _, tokens, bits in rows]
    found = route(pair(slower, small, large))
    if not found.splits:
        return
    none, everything = found.splits[0], found.splits[-1]
    assert (none.share, none.documents, everything.share, everything.documents) == (
        0,
        0,
        1,
        len(rows),
    )
    assert none.bits_per_byte == pytest.approx(found.small.bits_per_byte)
    assert none.cost_per_kb == pytest.approx(found.small.cost_per_kb)
    assert everything.bits_per_byte == pytest.approx(found.large.bits_per_byte)
    assert everything.cost_per_kb == pytest.approx(
        found.small.cost_per_kb + found.large.cost_per_kb
    )
    assert everything.random_cost_per_kb == pytest.approx(found.large.cost_per_kb)
    rows_of_small = small if found.small.name.endswith("(small)") else large
    hard = [bits / size for _, size, _, bits in rows_of_small]
    for split in found.splits[1:]:
        assert sum(h > split.threshold for h in hard) == split.documents


@given(DOCUMENTS, st.floats(1.0, 50.0), st.floats(0.01, 20.0))
@settings(deadline=None, max_examples=60)
def test_a_split_within_a_limit_is_within_it_and_no_cheaper_one_is_shown(rows, slower, at_most):
    small = [("d", size, tokens, bits) for size, tokens, bits, _, _ in rows]
    large = [("d", size, tokens, bits) for size, _, _, tokens, bits in rows]
    found = route(pair(slower, small, large), at_most=at_most)
    if found.best:
        assert found.best.bits_per_byte <= at_most
        within = [s.cost_per_kb for s in found.splits if s.bits_per_byte <= at_most]
        assert found.best.cost_per_kb <= min(within, default=found.best.cost_per_kb)
    elif found.verdict == "out of reach":
        assert all(s.bits_per_byte > at_most for s in found.splits)


def golden():
    """What tests/data/route-1.txt holds."""
    low, high = pair(small=SMALL * 4, large=LARGE * 4)
    return {"route-1.txt": text_of(route([record(*low.cells, failed("int4")), high], at_most=1.9))}


def test_the_text_has_not_changed():
    """A golden: look at the difference; python tests/make_data.py writes it anew."""
    assert golden()["route-1.txt"] == (DATA / "route-1.txt").read_text()


def test_any_name_fits_eighty_columns():
    low, high = pair(
        small=[(f"\x1b[2J{'z' * 500}{n}", *row[1:]) for n, row in enumerate(SMALL * 5)],
        large=LARGE * 5,
    )
    text = text_of(
        route([renamed(low, model="x" * 10_000), renamed(high, model="\u202e" + "y" * 10_000)])
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "\u202e" not in text


def test_the_command():
    path = DATA / "record-1.json"
    found = edgecap("recommend", path, "--route", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["verdict"] in ("split", "no gain", "large alone", "small alone")
    assert edgecap("recommend", path, "--route", "--max-bits-per-byte", "0.1").returncode == 1
    assert "small: int8" in edgecap("recommend", path, "--route").stdout
    assert edgecap("recommend", path, "--route", "--route-by", "colour").returncode == 2
