"""Formats of groups under limits, against all assignments of small cases."""

import itertools
import math

import numpy as np
import pytest

from edgecap.analysis.assignment import (
    Assignment,
    FormatCost,
    GroupChoices,
    Limits,
    assign,
    assign_quality,
    sum_of,
)


def group(number, *costs):
    formats = tuple(FormatCost(f"f{n}", *cost) for n, cost in enumerate(costs))
    return GroupChoices(f"g{number}", (f"m{number}",), formats)


def random_groups(seed, count=6, formats=4):
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(count):
        sizes = np.sort(rng.integers(100, 10_000, formats))[::-1]
        losses = np.sort(rng.exponential(0.01, formats))
        groups.append(
            group(number, *((x, int(s), s * 1e-9) for x, s in zip(losses, sizes, strict=True)))
        )
    return groups


def every(groups):
    return [Assignment(choice) for choice in itertools.product(*(g.formats for g in groups))]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_no_assignment_within_the_bytes_is_closer(seed, share):
    groups = random_groups(seed)
    low, high = (f(a.bytes for a in every(groups)) for f in (min, max))
    limits = Limits(bytes=low + share * (high - low))
    best = min((a for a in every(groups) if a.within(limits)), key=lambda a: a.divergence_bits)
    found = assign(groups, limits)
    assert found.within(limits)
    assert found.divergence_bits <= 1.002 * best.divergence_bits


def test_one_large_group_may_take_what_many_small_ones_would():
    """A hull of prices would give the small groups their large format and stop."""
    small = [group(n, (0.0001, 20, 0), (0.002, 10, 0)) for n in range(10)]
    table = group(10, (0.0, 200, 0), (0.03, 100, 0))
    found = assign([*small, table], Limits(bytes=310))
    assert [c.format for c in found.choices] == ["f0", *["f1"] * 9, "f0"]


def test_seconds_are_a_limit_of_their_own():
    """The closest format of each group is slow here, and its bytes are few."""
    groups = [group(n, (0.0, 10, 5.0), (0.1 * (n + 1), 20, 1.0)) for n in range(3)]
    assert assign(groups, Limits(seconds=15)).seconds == 15
    found = assign(groups, Limits(bytes=60, seconds=7.5))
    assert [c.format for c in found.choices] == ["f1", "f1", "f0"]
    assert assign(groups, Limits(seconds=2.9)) is None


def test_limits_that_nothing_meets():
    groups = random_groups(0)
    least = min(a.bytes for a in every(groups))
    assert assign(groups, Limits(bytes=least - 1)) is None
    assert assign(groups, Limits(bytes=least)).bytes == least
    assert assign_quality(groups, 0.0) is None


@pytest.mark.parametrize("seed", range(4))
def test_quality_takes_the_fewest_bytes(seed):
    groups = random_groups(seed)
    limit = sorted(a.divergence_bits for a in every(groups))[len(every(groups)) // 4]
    best = min(a.bytes for a in every(groups) if a.divergence_bits <= limit)
    found = assign_quality(groups, limit)
    assert found.divergence_bits <= limit
    assert found.bytes <= 1.02 * best


def test_no_limit_takes_the_closest_formats():
    groups = random_groups(1)
    assert {c.format for c in assign(groups, Limits()).choices} == {"f0"}


def test_sum_of_needs_each_format():
    groups = random_groups(2)
    everywhere = {g.name: "f3" for g in groups}
    losses = sum(g.formats[3].divergence_bits for g in groups)
    assert math.isclose(sum_of(groups, everywhere).divergence_bits, losses)
    assert sum_of(groups, everywhere | {"g0": "f9"}) is None
