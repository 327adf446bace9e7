"""doctor: what a machine can measure, from faked findings and on this machine."""

import json
import os

import click
import msgspec
import pytest
from commands import edgecap
from conftest import ROOT
from fakes import LEVELS, FakeClock, FakeCounter

from edgecap.machine.diagnosis import CounterCheck, EnergyTotal
from edgecap.meters.counter_check import measure_watts
from edgecap.pipeline import doctor
from edgecap.pipeline.worker import Calibrated, Diagnose, Diagnosed
from edgecap.record import Failure, Gpu, LeftOut
from edgecap.report.terminal.doctor import diagnosis
from edgecap.runtime import providers
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import load

RECORD = load(ROOT / "tests" / "data" / "record-3.json")

SEEN = CounterCheck(
    name="rapl",
    scope="processor",
    provenance="counter",
    idle_w={"package-0": 5.0},
    load_w={"package-0": 25.0},
)
LOCKED = LeftOut(
    name="rapl",
    reason="/sys/x/energy_uj is not readable by this user; let your user read it: sudo chmod",
)


def found(tmp_path, examined, **machine):
    def run(step, watch, timeout_s):
        return (
            examined
            if isinstance(step, Diagnose)
            else Calibrated(gemm_flops_per_s={"fp32": 1e11}, bandwidth=LEVELS)
        )

    doctor.read_machine, before = (
        lambda names, on_cuda: msgspec.structs.replace(RECORD.machine, **machine),
        doctor.read_machine,
    )
    try:
        return doctor.examine(resolve_paths(tmp_path / "cache", tmp_path), run=run)
    finally:
        doctor.read_machine = before


def examined(providers=None, counters=(), refused=()):
    totals = {"cpu": EnergyTotal(counter="rapl", domains=("package-0",), reason="", left_out=())}
    return Diagnosed(
        providers=providers or {"cpu": ""}, counters=counters, refused=refused, totals=totals
    )


def test_a_machine_where_all_is_well(tmp_path):
    well = found(tmp_path, examined(counters=(SEEN,)))
    assert well.can_run and not well.remedies
    text = click.unstyle(diagnosis(well))
    assert "package-0 5 W idle, 25 W loaded" in text
    assert "fp32 100 GFLOP/s" in text
    assert text.endswith("edgecap profile can run here")


def test_a_locked_counter_comes_with_the_command(tmp_path):
    locked = found(tmp_path, examined(refused=(LOCKED,)))
    assert locked.can_run
    assert any("sudo chmod a+r" in r.advice for r in locked.remedies)
    assert any(
        "udev" in r.advice or "local.d" in r.advice or "nixos" in r.advice for r in locked.remedies
    )
    assert any(
        line.startswith("  ") and "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj" in line
        for line in diagnosis(locked).splitlines()
    )


def test_what_disturbs_is_said(tmp_path):
    gpu = Gpu(name="Board", driver="600", memory_bytes=8_000_000_000, users=2)
    busy = found(
        tmp_path,
        examined(),
        load_average=3.0,
        power_source="battery",
        governor="powersave",
        gpus=(gpu,),
    )
    said = " ".join(r.problem for r in busy.remedies)
    assert all(
        words in said
        for words in ("load average 3.00", "battery", "powersave", "2 other processes use Board")
    )
    assert busy.can_run


def test_a_machine_where_nothing_runs(tmp_path):
    for answer in (
        Failure(stage="examine", error="SIGILL", message="ended by SIGILL"),
        examined({"cpu": "no such thing"}),
    ):
        broken = found(tmp_path, answer)
        assert not broken.can_run
        assert "cannot run here" in diagnosis(broken)


def test_an_unwritable_cache_is_fatal(tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    assert not found(tmp_path, Failure(stage="examine", error="x", message="y")).cache.writable


def test_watts_are_joules_over_seconds():
    clock = FakeClock()
    assert measure_watts(FakeCounter(clock, watts=12.0), clock) == pytest.approx(
        {"package-0": 9.0, "dram": 3.0}
    )
    work = lambda: clock.sleep(0.1)  # noqa: E731
    assert measure_watts(FakeCounter(clock, watts=4.0), clock, work)["dram"] == pytest.approx(
        1.0, rel=0.02
    )


def test_on_this_machine(cache):
    done = edgecap(
        "doctor", "--json", "--cache", cache, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["can_run"] and values["providers"]["cpu"] == ""
    assert values["peaks"]["cpu"]["gemm_flops_per_s"]["fp32"] > 1e8
    assert edgecap("doctor", "--cache", cache).stdout.count("\n") > 10


def test_what_the_runtime_says_is_boiled_down():
    said = (
        "[E:onnxruntime] [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
        "/x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: "
        "cannot open shared object file: No such file\n"
        "[W] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. "
        "Please install all dependencies"
    )
    assert (
        providers._reason(said, "")
        == "libcublasLt.so.13 is missing; it needs cuDNN 9.* and CUDA 13.*"
    )
    assert providers._reason("noise", "put elsewhere") == "put elsewhere"
    assert providers._reason("[ONNXRuntimeError] : 1 : FAIL : no device\n", "x") == "no device"
