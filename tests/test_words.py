"""errors, units, stats, spec."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from edgecap import stats, units
from edgecap.errors import EdgecapError, Interrupted, RecordError, UsageError, did_you_mean
from edgecap.parsing import parse_names
from edgecap.record import Estimate
from edgecap.spec import Spec, cells

samples = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (1.0, "s", "1 s"), (25_800_000, "B", "25.8 MB"), (0, "J", "0 J"),
     (4.6e6, "FLOP", "4.6 MFLOP"), (0.0009996, "s", "1 ms"), (123456.0, "", "123 k"),
     (-0.002, "s", "-2 ms")],
)  # fmt: skip
def test_prefixes(value, unit, text):
    assert units.si(value, unit) == text


def test_significant_digits_have_no_exponent():
    assert units.significant(0.000012345) == "0.0000123"
    assert units.significant(12345.6) == "12,346"


def test_exit_codes():
    assert [e.exit_code for e in (EdgecapError, UsageError, RecordError, Interrupted)] == [
        1,
        2,
        3,
        130,
    ]
    assert did_you_mean("int9", ("int8", "fp32")) == "; did you mean 'int8'?"


@given(samples)
def test_median_interval_holds_the_median(values):
    found = stats.median_interval(values, list(range(len(values))))
    assert found.value == pytest.approx(np.median(values))
    assert found.low is None or found.low <= found.value <= found.high


def test_rounds_are_resampled_not_samples():
    """A hundred equal samples in two far-apart rounds: the interval must span both."""
    found = stats.median_interval([1.0] * 50 + [2.0] * 50, [0] * 50 + [1] * 50)
    assert (found.value, found.low, found.high) == (1.5, 1.0, 2.0)


def test_one_round_has_no_interval():
    assert stats.median_interval([1.0, 2.0, 3.0], [0, 0, 0]) == Estimate(
        value=2.0, low=None, high=None
    )


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(5)
    values = rng.lognormal(size=30)
    ours = stats.interval(float(np.median(values)), stats.bootstrap_medians(values))
    theirs = bootstrap(
        (values,), np.median, method="percentile", n_resamples=9999, rng=rng
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.05)
    assert ours.high == pytest.approx(theirs.high, rel=0.05)


def test_same_seed_pairs_documents():
    a = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    ratio = stats.bootstrap_sums(a)[:, 1] / stats.bootstrap_sums(2 * a)[:, 0]
    assert np.allclose(ratio, 5.0)


@given(st.integers(1, 50))
def test_sums_are_of_the_right_number_of_documents(n):
    assert np.all(stats.bootstrap_sums(np.ones((n, 1))) == n)


def test_sums_of_many_documents_are_drawn_in_blocks(monkeypatch):
    whole = stats.bootstrap_sums(np.arange(40.0).reshape(20, 2))
    monkeypatch.setattr(stats, "_BLOCK", 100)
    assert stats.bootstrap_sums(np.arange(40.0).reshape(20, 2)).shape == whole.shape


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precisions": ("int9",)}, "did you mean 'int8'"),
        ({"providers": ("cudda",)}, "did you mean 'cuda'"),
        ({"context": 1}, "`context` 1"),
        ({"threads": 0}, "`threads` 0"),
        ({"limit_s": float("nan")}, "`limit_s` nan"),
        ({"bias_bits": float("inf")}, "`bias_bits` inf"),
        ({"protocol": "papr"}, "unknown protocol"),
        ({"energy": "maybe"}, "unknown `energy`"),
        ({"energy": "off", "assume_watts": 5.0}, "`energy` off measures no energy"),
        ({"assume_watts": 5.0, "energy": "require"}, "`assume_watts` is for machines without"),
        ({"meter_offset_s": 3.0}, "`meter_offset_s` needs a `meter` file"),
        ({"precision_target": 2.0}, "`precision_target` 2.0"),
        ({"precision_target": 0.0}, "`precision_target` 0.0 must be a share above 0 and below 1"),
        ({"precision_target": float("nan")}, "`precision_target` nan"),
        ({"context_sweep": (0,)}, "`context_sweep` 0"),
        ({"limit_s": 0.0}, "`limit_s` 0"),
        ({"quick": True, "stride": 8}, "`stride` gives .* `quick` scores short pieces"),
        ({"quick": True, "protocol": "paper"}, "`protocol` paper .* `quick` scores pieces"),
    ],
)
def test_wrong_requests_are_refused(fields, words):
    with pytest.raises(UsageError, match=words):
        Spec(**fields)


def test_cells_are_precision_by_provider_each_once():
    found = cells(("fp32", "int8", "fp32"), ("cpu", "cuda"))
    assert [str(c) for c in found] == ["fp32 on cpu", "int8 on cpu", "fp32 on cuda", "int8 on cuda"]
    assert parse_names(" FP32, int8 ,") == ("fp32", "int8")
