"""roofline and calibration: bounds by hand, peaks kept and asked again,
shares of time by operator.
"""

import json

import msgspec
import pytest
from conftest import ROOT
from fakes import LEVELS

from edgecap.analysis.roofline import bandwidth_of, compute_roofline
from edgecap.analysis.warnings.timing import above_peak
from edgecap.meters import peaks
from edgecap.pipeline import peaks as calibration
from edgecap.pipeline.worker import Calibrated, child
from edgecap.pipeline.worker.handlers import diagnose
from edgecap.record import Absent, Bandwidth, Failure, GraphWork, Peaks, Roofline, StepWork
from edgecap.report.terminal.details import details
from edgecap.runtime import operator_profile
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import load

RECORD = load(ROOT / "tests" / "data" / "record-3.json")
PEAKS = Peaks(
    provider="cpu",
    threads=2,
    gemm_flops_per_s={"fp32": 1e12, "int8": 4e12},
    bandwidth=LEVELS,
    measured_utc="2026-11-24T12:00:00Z",
)


def step(flops, weights, cache=0):
    return StepWork(
        matrix_flops=flops,
        other_flops=7,
        weight_bytes=weights,
        cache_bytes=cache,
        activation_bytes=123_456_789,
    )


def measured(prefill, decode):
    work = GraphWork(prefill=prefill, decode=decode, unknown={})
    return msgspec.structs.replace(RECORD.cells[0].outcome, work=work)


def test_bounds_by_hand():
    """Prefill: 1e12 FLOP at 1 TFLOP/s; decode: 300 MB of weights and 20 MB of cache at 10 GB/s."""
    outcome = measured(step(10**12, 300_000_000), step(10**8, 300_000_000, 20_000_000))
    found = compute_roofline(outcome, Absent(reason="no config"), PEAKS, "fp32")
    assert (found.prefill.limit, found.prefill.attainable_s) == ("compute", pytest.approx(1.0))
    assert (found.decode.limit, found.decode.attainable_s) == ("memory", pytest.approx(0.032))
    assert found.decode.intensity == pytest.approx(10**8 / 320_000_000)
    seconds = found.decode.attainable_s / found.decode.ratio.value
    assert found.decode.bandwidth_utilisation == pytest.approx(0.032 / seconds)
    assert found.decode.compute_utilisation == pytest.approx(1e-4 / seconds)
    assert found.decode.ratio.low <= found.decode.ratio.value <= found.decode.ratio.high


def test_stored_bounds_can_be_recomputed():
    bounds = [c for c in RECORD.cells if isinstance(c.roofline, Roofline)]
    assert len(bounds) == 3
    for cell in bounds:
        assert (
            compute_roofline(cell.outcome, RECORD.flops, RECORD.peaks["cpu"], cell.precision)
            == cell.roofline
        )
        assert cell.score.roofline_ratio == cell.roofline.decode.ratio


def test_int8_is_held_against_the_faster_of_its_kernels():
    outcome = measured(step(10**12, 1), step(10**8, 1))
    for precision, rate in (("int8", 4e12), ("int4", 4e12), ("fp16", 1e12)):
        assert (
            compute_roofline(outcome, Absent(reason=""), PEAKS, precision).prefill.peak_flops_per_s
            == rate
        )


def test_a_step_above_the_peak_is_a_caution():
    slow = compute_roofline(measured(step(1, 1), step(1, 1)), Absent(reason=""), PEAKS, "fp32")
    assert not list(above_peak(slow))
    fast = compute_roofline(measured(step(10**15, 1), step(1, 1)), Absent(reason=""), PEAKS, "fp32")
    (found,) = above_peak(fast)
    assert (
        found.code == "above-peak" and "prefill" in found.message and "--calibrate" in found.advice
    )


def test_counted_flops_rule_over_the_graphs():
    found = compute_roofline(measured(step(1, 1), step(1, 1)), RECORD.flops, PEAKS, "fp32")
    assert (found.prefill.flops, found.decode.flops) == (
        RECORD.flops.prefill,
        RECORD.flops.per_token,
    )


def test_a_model_in_a_cache_is_not_held_against_the_main_memory():
    assert bandwidth_of(LEVELS, 7_000_000) == 100e9
    assert bandwidth_of(LEVELS, 64_000_000) == 10e9
    assert bandwidth_of(LEVELS, 10) == 100e9
    noisy = (
        *LEVELS,
        Bandwidth(working_set_bytes=128_000_000, read_bytes_per_s=12e9, copy_bytes_per_s=9e9),
    )
    assert bandwidth_of(noisy, 64_000_000) == 12e9


@pytest.mark.parametrize(
    ("peaks", "words"),
    [
        (None, "not measured"),
        (Absent(reason="it crashed"), "it crashed"),
        (msgspec.structs.replace(PEAKS, bandwidth=()), "no peak"),
    ],
)
def test_what_is_missing_is_said(peaks, words):
    found = compute_roofline(measured(step(1, 1), step(1, 1)), RECORD.flops, peaks, "fp32")
    assert isinstance(found, Absent) and words in found.reason


def test_show_says_what_binds():
    bound = compute_roofline(
        measured(step(10**12, 1), step(1, 300_000_000)), Absent(reason=""), PEAKS, "fp32"
    )
    assert isinstance(bound, Roofline)
    cell = msgspec.structs.replace(RECORD.cells[0], roofline=bound)
    text = details(msgspec.structs.replace(RECORD, cells=(cell,), peaks={"cpu": PEAKS}), 200)
    assert "Roofline" in text
    assert "fp32 1 TFLOP/s, int8 4 TFLOP/s" in text
    assert "compute-bound" in text and "memory-bound" in text


# --- calibration ------------------------------------------------------------------------------


def test_peaks_are_measured_once_and_again_when_asked(tmp_path):
    home, asked = resolve_paths(tmp_path / "cache", tmp_path), []

    def run(step, watch, timeout_s):
        asked.append(step)
        return Calibrated(gemm_flops_per_s={"fp32": 1e12 * len(asked)}, bandwidth=LEVELS)

    quiet = lambda event: None  # noqa: E731
    first = calibration.peaks_of(home, "cpu", 2, quiet, run)
    assert calibration.peaks_of(home, "cpu", 2, quiet, run) == first
    assert calibration.peaks_of(home, "cpu", 1, quiet, run) != first
    again = calibration.peaks_of(home, "cpu", 2, quiet, run, again=True)
    assert again.gemm_flops_per_s == {"fp32": 3e12}
    assert calibration.peaks_of(home, "cpu", 2, quiet, run) == again
    slower = lambda *a: Calibrated(gemm_flops_per_s={"fp32": 1.0}, bandwidth=LEVELS)  # noqa: E731
    assert (
        calibration.peaks_of(home, "cpu", 2, quiet, slower, again=True).gemm_flops_per_s
        == again.gemm_flops_per_s
    )
    for file in (tmp_path / "cache/peaks").iterdir():
        file.write_bytes(b"{")
    assert calibration.peaks_of(home, "cpu", 2, quiet, run).gemm_flops_per_s == {"fp32": 4e12}
    assert len(asked) == 4


def test_peaks_are_those_of_the_processors_that_it_is_kept_to(tmp_path, monkeypatch):
    home, asked = resolve_paths(tmp_path / "cache", tmp_path), []

    def run(step, watch, timeout_s):
        asked.append(step)
        return Calibrated(gemm_flops_per_s={"fp32": 1e12}, bandwidth=LEVELS)

    for affinity in ((), (0,), (0, 1), (0,)):
        calibration.peaks_of(home, "cpu", 1, lambda event: None, run, affinity=affinity)
    assert [step.affinity for step in asked] == [(), (0,), (0, 1)]

    kept_to = []
    monkeypatch.setattr(diagnose, "pin_process", kept_to.append)
    monkeypatch.setattr(
        diagnose,
        "measure_peaks",
        lambda *told: kept_to.append("measured") or peaks.MeasuredPeaks({}, LEVELS),
    )
    child.answer(asked[1], lambda *progress: None)
    assert kept_to == [(0,), "measured"]


def test_peaks_that_cannot_be_measured_are_absent(tmp_path):

    def broken(*asked):
        return Failure(stage="calibrate", error="SIGKILL", message="ended by SIGKILL")

    found = calibration.peaks_of(
        resolve_paths(tmp_path, tmp_path), "cpu", 2, lambda event: None, broken
    )
    assert "ended by SIGKILL" in found.reason


# --- operators --------------------------------------------------------------------------------


def event(name, ts, dur, **args):
    return {"cat": "Node" if args else "Session", "name": name, "ts": ts, "dur": dur, "args": args}


def test_time_is_shared_out_by_run():
    node = {"provider": "CPUExecutionProvider"}
    events = [
        event("model_run", 0, 100),
        event("a_kernel_time", 1, 30, op_name="MatMul", **node),
        event("model_run", 200, 50),
        event("a_kernel_time", 201, 10, op_name="MatMul", **node),
        event("b_kernel_time", 220, 30, op_name="Softmax", **node),
    ]
    found = operator_profile.parse_operator_profile(events)
    assert found.runs == ({"MatMul": 30}, {"MatMul": 10, "Softmax": 30})
    assert found.shares(slice(1, None)) == {"Softmax": 0.75, "MatMul": 0.25}
    assert found.by_provider["cpu"].nodes == 2
    assert json.dumps(found.shares(slice(5, 9))) == "{}"
