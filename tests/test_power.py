"""power and the energy meter: driven trees, vendors' libraries as fakes,
and any sequence of what counters do.
"""

import errno
import math
import os
import re
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import fake_devices as devices
import msgspec
import pytest
from fake_devices import driven, hwmon, supply, zone
from fakes import FakeClock, FakeCounter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecap.analysis import score
from edgecap.analysis.warnings.energy import check_energy
from edgecap.errors import UsageError
from edgecap.machine.energy import find_counters, meter, permission, resolve
from edgecap.machine.energy.amd import open_amd
from edgecap.machine.energy.apple import open_apple
from edgecap.machine.energy.assumed import AssumedCounter
from edgecap.machine.energy.battery import open_battery
from edgecap.machine.energy.emi import open_emi
from edgecap.machine.energy.joined import JoinedCounter
from edgecap.machine.energy.nvml import open_nvml
from edgecap.machine.energy.rails import open_pmic, open_rails, pmic_watts
from edgecap.machine.energy.rapl import open_rapl
from edgecap.machine.energy.sampled import PowerIntegral, SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter, DomainTotal
from edgecap.meters import energy, energy_windows
from edgecap.meters.counter_readings import CounterStalled, find_ticks
from edgecap.pipeline import prepare
from edgecap.protocols import CounterHealth
from edgecap.record import Absent, Energy, LeftOut, Window


def find_counter(provider, root):
    return resolve(provider, find_counters(root)).counter


def quiet(done, total):
    pass


def work(clock, seconds=0.05, tokens=10):
    def do():
        clock.sleep(seconds)
        return tokens

    return do


def measure(counter, clock, **more):
    return energy.measure_energy(counter, clock, work(clock), work(clock, 0.02, 1), quiet, **more)


def counters(found):
    return [f for f in found if not isinstance(f, LeftOut)]


def refused(found):
    return {f.name: f for f in found if isinstance(f, LeftOut)}


def every_window(found):
    return (*found.prefill, *found.decode, *found.nll)


# --- windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tick_s", [0.001, 0.01, 0.1, 1.0])
def test_energy_is_power_times_time(tick_s):
    clock = FakeClock()
    counter = FakeCounter(clock, 12.0, tick_s)
    found = measure(counter, clock, nll=work(clock, 0.5, 256))
    assert found.tick_s == pytest.approx(tick_s, rel=0.25)
    for window in every_window(found):
        assert window.seconds >= max(2.0, 80 * tick_s)
        assert window.joules == pytest.approx(12.0 * window.seconds, rel=0.02)
        assert window.by_domain["dram"] == pytest.approx(0.25 * window.joules)
        assert sum(window.by_domain.values()) == window.joules
    assert len(found.prefill) == len(found.decode) == len(found.nll) == 3
    assert found.decode[0].joules / found.decode[0].tokens == pytest.approx(12.0 * 0.02, rel=0.02)
    assert found.idle_w == pytest.approx((12.0, 12.0), rel=0.06)
    assert found.idle_by_domain_w["package-0"] == pytest.approx((9.0, 9.0), rel=0.06)
    assert 0 < found.quantisation <= 0.0102
    assert counter.closed


def test_windows_are_interleaved_and_carry_their_time():
    clock = FakeClock()
    clock.time = 50.0
    found = measure(FakeCounter(clock), clock, epoch=lambda: 1e9 + clock.now())
    starts = [w.began_s for pair in zip(found.prefill, found.decode, strict=True) for w in pair]
    assert starts == sorted(starts)
    assert starts[0] > 1e9 + 50


def test_a_slow_counter_gets_long_windows_but_not_endless_ones():
    clock = FakeClock()
    found = measure(FakeCounter(clock, 10.0, 7.0), clock)
    assert all(120 <= w.seconds < 121 for w in every_window(found))
    assert found.quantisation == pytest.approx(
        10 / 120, rel=0.1
    )  # it moved once while it was watched
    assert "energy-window-short" in codes(found)


def test_idle_is_measured_and_net_is_gross_less_idle():
    clock = FakeClock()

    class Load(FakeCounter):
        """3 W at rest, 10 W while something works."""

        joules, then = 0.0, 0.0
        busy = False

        def read(self):
            self.joules += (10.0 if self.busy else 3.0) * (self.clock.now() - self.then)
            self.then = self.clock.now()
            return self.joules, 0.0

    counter = Load(clock)

    def busy(seconds, tokens):
        def do():
            counter.read()
            counter.busy = True
            clock.sleep(seconds)
            counter.read()
            counter.busy = False
            return tokens

        return do

    found = energy.measure_energy(counter, clock, busy(0.1, 10), busy(0.05, 1), quiet)
    assert found.idle_w == pytest.approx((3.0, 3.0), rel=0.01)
    assert score.decode_joules(found, None)[0] == pytest.approx(0.5, rel=0.01)
    assert score.decode_joules(found, None, net=True)[0] == pytest.approx(0.35, rel=0.01)
    assert score.prefill_joules(found, None, net=True)[0] == pytest.approx(0.07, rel=0.01)
    assert "energy-incomplete" in codes(found)  # dram never moved
    assert [x.name for x in found.left_out] == ["dram"]


def test_a_counter_that_stands_still_or_dies_is_absent():
    clock = FakeClock()
    still = measure(FakeCounter(clock, tick_s=1e9), clock)
    assert "did not move within 60 s" in still.reason
    for seconds, where in (
        (0.01, "its tick"),
        (1, "first idle"),
        (3.2, "first prefill"),
        (14, "third"),
        (17, "last idle"),
    ):
        clock = FakeClock()
        counter = FakeCounter(clock, dies_at=seconds)
        dead = measure(counter, clock)
        assert "the counter's file vanished" in dead.reason
        assert where in dead.reason
        assert counter.closed


def test_a_counter_that_freezes_is_absent_and_one_that_pauses_is_told():
    clock = FakeClock()
    counter = FakeCounter(clock)
    counter.read = lambda: (min(clock.now(), 8.0) * 10, 0.0)
    assert "stood still during a window" in measure(counter, clock).reason
    clock = FakeClock()
    pausing = FakeCounter(clock)
    pausing.read = lambda: (10 * (clock.now() if not 4.9 < clock.now() < 6.6 else 49.0 / 10),)
    pausing.domains = ("package-0",)
    found = measure(pausing, clock)
    assert found.stalls > 0
    assert "energy-counter-unsteady" in codes(found)


def test_work_that_fails_is_not_the_counters_fault():
    clock = FakeClock()

    def fails():
        raise OSError("no room left on the disk")

    counter = FakeCounter(clock)
    with pytest.raises(OSError, match="no room"):
        energy.measure_energy(counter, clock, fails, fails, quiet)
    assert counter.closed


def test_a_counter_that_falls_is_absent():
    clock = FakeClock()
    counter = FakeCounter(clock)
    counter.read = lambda: (100.0 - clock.now(), 0.0)
    assert "the counter fell" in measure(counter, clock).reason


def test_what_is_beside_the_total_is_shown_and_may_fail():
    clock = FakeClock()
    psys, dying = FakeCounter(clock, 50.0), FakeCounter(clock, 50.0, dies_at=5)
    psys.name, psys.domains, psys.read = "rapl-psys", ("psys",), lambda: (50 * clock.now(),)
    dying.name, dying.domains = "battery", ("BAT0", "BAT1")
    found = measure(
        FakeCounter(clock, 20.0),
        clock,
        beside=(psys, dying),
        left_out=(LeftOut(name="x", reason="y"),),
    )
    for window in every_window(found):
        assert window.beside["psys"] == pytest.approx(50 * window.seconds, rel=0.01)
        assert window.joules == pytest.approx(20 * window.seconds, rel=0.02)
    assert [x.name for x in found.left_out] == ["x", "battery"]
    assert "vanished" in found.left_out[1].reason


def test_ticks_are_those_of_each_domain():
    clock = FakeClock()
    fast, slow = FakeCounter(clock, tick_s=0.001), FakeCounter(clock, tick_s=0.1)
    slow.domains = ("gpu-0", "gpu-1")
    ticks = find_ticks(JoinedCounter([fast, slow]), clock)
    assert ticks["package-0"] == pytest.approx(0.001, rel=0.3)
    assert ticks["gpu-1"] == pytest.approx(0.1, rel=0.05)
    with pytest.raises(CounterStalled):
        find_ticks(FakeCounter(clock, tick_s=1e9), clock)
    once = FakeCounter(clock)
    start = clock.now()
    once.read = lambda: (float(clock.now() > start + 1), float(clock.now() > start + 2))
    assert find_ticks(once, clock)["dram"] == pytest.approx(10, rel=0.01)


def test_assumed_watts_are_marked_and_kept_out():
    clock = FakeClock()
    found = measure(AssumedCounter(15.0, clock.now), clock)
    assert (found.counter, found.provenance, found.quantisation) == ("assumed", "assumed", 0.0)
    assert all(w.joules == pytest.approx(15 * w.seconds) for w in every_window(found))
    assert codes(found) == {"energy-assumed"}
    assert "assumed" in score.scored_energy(found).reason
    counted = measure(FakeCounter(clock), clock)
    assert score.scored_energy(counted) is counted
    absent = Absent(reason="none")
    assert score.scored_energy(absent) is absent


# --- what readers make of it ------------------------------------------------------------------


def energy_of(*joules, **more):
    windows = tuple(Window(joules=j, seconds=2.0, tokens=100) for j in joules)
    fields = {
        "tick_s": 0.001,
        "resolution_j": 6e-5,
        "idle_w": (5.0, 5.0),
        "prefill": windows,
        "decode": windows,
    }
    return Energy(counter="rapl", domains=("package-0",), provenance="counter", **(fields | more))


def codes(found):
    return {c.code for c in check_energy(found)}


def test_the_interval_holds_spread_and_quantisation():
    value, draws = score.decode_joules(energy_of(20.0, 20.0, 20.0), 1)
    assert (value, set(draws)) == (0.2, {0.2})
    value, draws = score.decode_joules(energy_of(20.0, 20.0, 20.0, quantisation=0.1), 1)
    assert value == 0.2
    assert 0.18 <= min(draws) < 0.185
    assert 0.215 < max(draws) <= 0.22
    assert list(score.decode_joules(energy_of(20.0, 20.0, 20.0, quantisation=0.1), 1)[1]) == list(
        draws
    )
    assert isinstance(score.nll_joules(energy_of(20.0), 1), Absent)
    assert (
        score.nll_joules(energy_of(20.0, nll=(Window(joules=4.0, seconds=1.0, tokens=2),)), 1)[0]
        == 2.0
    )


def test_cautions_of_energy():
    assert codes(energy_of(20.0, 20.0, 20.0)) == set()
    assert codes(energy_of(20.0, 30.0, 40.0)) == {"energy-noisy"}
    assert codes(energy_of(20.0, 20.0, idle_w=(1.0, 9.0))) == {"idle-drift"}
    for field in ("gaps", "falls", "stalls"):
        assert codes(energy_of(20.0, 20.0, **{field: 2})) == {"energy-counter-unsteady"}
    assert codes(energy_of(20.0, 20.0, sampler_cpu_share=0.05)) == {"energy-sampler"}
    dram = LeftOut(name="rapl dram", reason="not readable", scope="processor", missing=True)
    (caution,) = check_energy(energy_of(20.0, 20.0, left_out=(dram,)))
    assert (caution.code, "rapl dram" in caution.message) == ("energy-incomplete", True)


def test_an_energy_of_an_older_record_is_read():
    old = {
        "kind": "energy", "counter": "rapl", "domains": ["package-0"], "provenance": "counter",
        "tick_s": 0.001, "resolution_j": 6.1e-05, "idle_w": [5.0, 5.0],
        "prefill": [{"joules": 20.0, "seconds": 2.0, "tokens": 9}],
        "decode": [{"joules": 20.0, "seconds": 2.0, "tokens": 9}],
    }  # fmt: skip
    found = msgspec.convert(old, Energy)
    assert (found.quantisation, found.left_out, found.decode[0].by_domain) == (None, (), {})
    assert codes(found) == set()
    new = measure(FakeCounter(clock := FakeClock()), clock)
    assert msgspec.json.decode(msgspec.json.encode(new), type=Energy) == new


# --- counters that wrap, jitter, stall and reset ----------------------------------------------

RANGE = 262_143.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["count", "count", "count", "stall", "jitter", "reset"]),
            st.floats(0, 300),
            st.floats(0.001, 60),
        ),
        max_size=40,
    ),
    st.floats(0, RANGE),
)
def test_any_sequence_gives_the_right_sum_or_a_note(events, start):
    """Watts for seconds, with what goes wrong between: never less than before,
    and wrong only where noted.
    """
    truth, now, raw = 0.0, 0.0, start
    tally, last = DomainTotal(start, 0.0, RANGE), 0.0
    for kind, watts, seconds in events:
        now += seconds
        if kind in ("count", "jitter", "reset"):
            truth, raw = truth + watts * seconds, (raw + watts * seconds) % RANGE
        if kind == "reset":
            raw = 0.0
        shown = max(0.0, raw - 0.5) if kind == "jitter" else raw
        total = tally.add(shown, now)
        assert total >= last
        last = total
    total = tally.add(raw, now + 1)
    goes_wrong = {k for k, _, _ in events} & {"reset", "jitter"}
    if (
        not tally.falls and "reset" not in goes_wrong
    ):  # a reset near the top of the range passes for a wrap
        assert total == pytest.approx(truth, abs=1e-3 + 0.5 * len(events))
    if not goes_wrong:
        assert tally.falls == 0
        assert total == pytest.approx(truth, abs=1e-3)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["freeze", "pause", "jitter", "reset", "die"]),
            st.floats(0.01, 25),
            st.floats(0, 4),
        ),
        max_size=3,
    ),
    st.floats(0, 300),
)
def test_a_measurement_is_right_or_absent_or_cautioned(faults, below_the_top):
    """20 W counted in steps of 1 ms, near the top of its range; a frozen counter loses,
    a pausing one catches up.
    """
    for kind, at, _ in faults:  # a reset just below the top passes for a wrap
        assume(kind != "reset" or not 0 <= below_the_top - 20 * at < 100)
    clock = FakeClock()

    def counted(now):
        raw = 20 * math.floor(now * 1000) / 1000 + RANGE - below_the_top
        for kind, at, length in sorted(faults, key=lambda f: f[1]):
            inside = at <= now < at + length
            if kind == "die" and now >= at:
                raise OSError("gone")
            if kind == "reset" and now >= at:
                raw = 20 * (now - at)
            if kind == "freeze" and now >= at:
                raw -= 20 * min(now - at, length)
            if kind == "pause" and inside:
                raw -= 20 * (now - at)
            if kind == "jitter" and inside:
                raw -= 0.4
        return [raw % RANGE]

    counter = CumulativeCounter(
        "x", "processor", ["package-0"], lambda: counted(clock.now()), 6e-5, [RANGE], now=clock.now
    )
    found = measure(counter, clock)
    if isinstance(found, Absent):
        assert faults and found.reason
        return
    assert all(w.joules > 0 for w in every_window(found))
    right = all(w.joules == pytest.approx(20 * w.seconds, rel=0.1) for w in every_window(found))
    assert right or "energy-counter-unsteady" in codes(found)
    assert right or faults


@given(st.floats(2000, RANGE - 2001))
def test_a_reset_is_noted_and_counting_goes_on(level):
    tally = DomainTotal(0.0, 0.0, RANGE)
    tally.add(level, 3600)
    before = tally.total
    assert tally.add(0.0, 3601) == before
    assert tally.falls == 1
    assert tally.add(7.0, 3602) == pytest.approx(before + 7)


def test_a_jitter_is_noted_and_not_counted_twice():
    tally = DomainTotal(100.0, 0.0)
    assert [tally.add(v, t) for t, v in enumerate((101.0, 100.5, 102.0), 1)] == [1.0, 1.0, 2.0]
    assert tally.falls == 1


def test_a_leap_is_noted_and_not_counted():
    tally = DomainTotal(0.0, 0.0)
    assert tally.add(1e7, 1.0) == 0.0
    assert tally.falls == 1
    with pytest.raises(OSError, match="nan"):
        tally.add(math.nan, 2.0)


def test_foreign_errors_become_oserror():
    answers = iter([[1.0], [1.0, 2.0], ZeroDivisionError("gone")])

    def raw():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    counter = CumulativeCounter("x", "nvidia", ["a"], raw, 1.0)
    with pytest.raises(OSError, match="2 of 1 domains"):
        counter.read()
    with pytest.raises(OSError, match="ZeroDivisionError: gone"):
        counter.read()


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0, 500)), min_size=1, max_size=50))
def test_power_is_integrated_by_trapezoid(steps):
    area, total, now, before = PowerIntegral(1, 0.1), 0.0, 0.0, 7.0
    area.add(now, [before])
    for seconds, watts in steps:
        now += seconds
        area.add(now, [watts])
        total, before = total + (before + watts) / 2 * seconds, watts
    assert area.joules[0] == pytest.approx(total)
    assert area.gaps == pytest.approx(
        sum(s > 0.3 for s, _ in steps), abs=sum(abs(s - 0.3) < 1e-6 for s, _ in steps)
    )


def test_sampled_power_is_a_counter():
    sampled = SampledCounter("x", "board", ["a", "b"], lambda: [20.0, -1.0], period_s=0.005)
    begun, first = time.monotonic(), sampled.read()
    time.sleep(0.5)
    now, last = time.monotonic(), sampled.read()
    assert last[0] - first[0] == pytest.approx(20 * (now - begun), rel=0.05)
    assert last[1] == 0.0
    assert 0 < sampled.health().cpu_s < 0.25
    sampled.close()
    assert not sampled._thread.is_alive()


def test_a_sensor_that_fails_or_falls_silent_is_an_oserror():
    answers = iter([[1.0], [1.0]])
    dying = SampledCounter("x", "board", ["a"], lambda: next(answers), period_s=0.001)
    dying.read()
    dying._thread.join(2)
    with pytest.raises(OSError, match="StopIteration"):
        dying.read()
    silent = SampledCounter("x", "board", ["a"], lambda: [1.0], period_s=10.0)
    silent.read()
    silent._sum.at -= 1000
    with pytest.raises(OSError, match="no sample for"):
        silent.read()
    silent.close()
    with pytest.raises(OSError, match="answered"):
        SampledCounter("x", "board", ["a"], lambda: [math.nan], 1.0).read()


# --- RAPL -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_joules_of_a_driven_tree(tmp_path):
    """Two packages of 30 and 20 W, memories of 5 and 4 W, of which one wraps; psys, cores,
    a mirror, a dead zone.
    """
    wrap = 262_143_328_850
    p0 = zone(tmp_path, "intel-rapl:0", "package-0")
    p1 = zone(tmp_path, "intel-rapl:1", "package-1", wrap - 60_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core")
    d0 = zone(tmp_path, "intel-rapl:0:1", "dram", wrap=60_000_000)
    d1 = zone(tmp_path, "intel-rapl:1:0", "dram")
    psys = zone(tmp_path, "intel-rapl:2", "psys")
    mirror = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    (zone(tmp_path, "intel-rapl:3", "package-2") / "energy_uj").unlink()
    zones = [
        (p0, 30, 0, wrap), (p1, 20, wrap - 60_000_000, wrap), (d0, 5, 0, 60_000_000),
        (d1, 4, 0, wrap), (core, 10, 0, wrap), (psys, 90, 0, wrap), (mirror, 30, 0, wrap),
    ]  # fmt: skip
    with driven(*zones):
        found = resolve("cpu", find_counters(tmp_path, environ={}))
        clock = SimpleNamespace(now=time.perf_counter, sleep=time.sleep)
        measured = energy.measure_energy(
            found.counter,
            clock,
            work(clock),
            work(clock),
            quiet,
            beside=found.beside,
            left_out=found.left_out,
        )
    watts = {"package-0": 30, "package-1": 20, "dram-0": 5, "dram-1": 4}
    assert dict.fromkeys(measured.domains) == dict.fromkeys(
        sorted(measured.domains, key=list(measured.domains).index)
    )
    assert set(measured.domains) == set(watts)
    assert (measured.counter, measured.provenance) == ("rapl", "counter")
    for window in every_window(measured):
        assert window.joules == pytest.approx(59 * window.seconds, rel=0.02)
        assert window.beside["psys"] == pytest.approx(90 * window.seconds, rel=0.02)
        for domain, power in watts.items():
            assert window.by_domain[domain] == pytest.approx(power * window.seconds, rel=0.02)
    assert measured.idle_w == pytest.approx((59, 59), rel=0.02)
    assert (measured.falls, measured.gaps) == (0, 0)
    reasons = {x.name: x.reason for x in measured.left_out}
    assert "part of its package" in reasons["rapl core (intel-rapl:0:0)"]
    assert "memory-mapped" in reasons["rapl package-0 (intel-rapl-mmio:0)"]
    assert "cannot be read" in reasons["rapl package-2"]
    assert "energy-incomplete" in codes(measured)


def test_rapl_counts_packages_and_dram_once(tmp_path):
    packages = [
        zone(tmp_path, "intel-rapl:0", "package-0"),
        zone(tmp_path, "intel-rapl:1", "package-1"),
    ]
    zone(tmp_path, "intel-rapl:0:0", "core", 999)
    dram = zone(tmp_path, "intel-rapl:0:1", "dram")
    psys = zone(tmp_path, "intel-rapl:2", "psys")
    mirror = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    total, platform = counters(open_rapl(tmp_path))
    assert total.domains == ("package-0", "dram", "package-1")
    values = ((packages[0], 3), (packages[1], 2), (dram, 0.5), (psys, 9), (mirror, 3))
    for path, joules in values:
        (path / "energy_uj").write_text(str(int(joules * 1e6)))
    assert total.read() == pytest.approx((3, 0.5, 2))
    assert (platform.scope, platform.read()) == ("platform", (9.0,))


def test_a_package_that_only_the_mirror_shows_is_counted(tmp_path):
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    (total,) = counters(open_rapl(tmp_path))
    assert total.domains == ("package-0",)


def test_zones_inside_their_parents_are_found(tmp_path):
    control = tmp_path / "class/powercap/intel-rapl"
    for name, kind in (("intel-rapl:0", "package-0"), ("intel-rapl:0/intel-rapl:0:0", "dram")):
        devices.write(control / name, name=kind, energy_uj=5, max_energy_range_uj=1000)
    assert counters(open_rapl(tmp_path))[0].domains == ("package-0", "dram")


def test_dies_that_show_one_counter_are_counted_once(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0-die-0", 777)
    zone(tmp_path, "intel-rapl:1", "package-0-die-1", 777)
    zone(tmp_path, "intel-rapl:2", "package-1-die-0", 777)
    zone(tmp_path, "intel-rapl:3", "package-1-die-1", 12345)
    found = open_rapl(tmp_path)
    assert counters(found)[0].domains == ("package-0-die-0", "package-1-die-0", "package-1-die-1")
    assert "seen from each die" in refused(found)["rapl package-0-die-1 (intel-rapl:1)"].reason


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=50), st.integers(0, 9_999))
def test_a_zone_that_wraps_gives_the_right_sum(steps, start):
    with tempfile.TemporaryDirectory() as folder:
        path = zone(Path(folder), "intel-rapl:0", "package-0", start, wrap=10_000)
        (counter,), total = counters(open_rapl(Path(folder))), start
        for step in steps:
            total += step
            (path / "energy_uj").write_text(str(total % 10_000))
            (found,) = counter.read()
        assert found == pytest.approx(sum(steps) / 1e6)


def test_rapl_that_cannot_be_had_says_why(tmp_path):
    assert "no intel-rapl zone" in find_counter("cpu", tmp_path).reason
    path = zone(tmp_path, "intel-rapl:0", "package-0")
    counter = find_counter("cpu", tmp_path)
    (path / "energy_uj").write_text("nonsense")
    with pytest.raises(OSError, match="holds no number"):
        counter.read()
    assert "cannot be read" in find_counter("cpu", tmp_path).reason
    (path / "energy_uj").unlink()
    with pytest.raises(OSError, match="energy_uj"):
        counter.read()
    assert isinstance(find_counter("cpu", tmp_path), Absent)
    zone(tmp_path, "intel-rapl:0", "uncore")
    assert "no package zone" in find_counter("cpu", tmp_path).reason


def test_rapl_without_permission_tells_the_remedy(tmp_path, monkeypatch):
    path = zone(tmp_path, "intel-rapl:0", "package-0")
    real = Path.read_text

    def read_text(self, *args, **kwargs):
        if self == path / "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    reason = find_counter("cpu", tmp_path).reason
    assert "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj" in reason
    assert "intel-rapl:0/energy_uj is not readable" in reason


@pytest.mark.parametrize(
    ("os_release", "part"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "udevadm trigger"),
        ("ID=fedora\n", "/usr/bin/chmod"),
        ('ID="opensuse-tumbleweed"\n', "/usr/bin/chmod"),
        ("ID=nixos\n", "services.udev.extraRules"),
        ("ID=alpine\n", "rc-update"),
        ("", "udev"),
    ],
)
def test_the_remedy_is_that_of_the_distribution(os_release, part):
    now, kept = permission.powercap_commands(os_release)
    assert now.startswith("sudo chmod a+r")
    assert "usermod -aG render,video me" in permission.video_group_command("me")
    assert part in kept


def test_zeus_agrees_on_the_same_tree(tmp_path, monkeypatch):
    """An independent reader of the same files: the plain case of one package and its memory."""
    rapl = pytest.importorskip("zeus.device.cpu.rapl", reason="zeus is not installed")
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    (tmp_path / "class/powercap/intel-rapl").symlink_to(tmp_path / "class/powercap")
    memory = devices.write(
        package / "intel-rapl:0:0", name="dram", energy_uj=5, max_energy_range_uj=10**12
    )
    monkeypatch.setattr(
        rapl, "RaplWraparoundTracker", lambda *a: SimpleNamespace(get_num_wraparounds=lambda: 0)
    )
    theirs = rapl.RAPLCPU(0, str(tmp_path / "class/powercap"))
    (ours,) = counters(open_rapl(tmp_path))
    before, zero = theirs.get_total_energy_consumption(), ours.read()
    (package / "energy_uj").write_text("8500000")
    (memory / "energy_uj").write_text("2000005")
    after, now = theirs.get_total_energy_consumption(), ours.read()
    assert ours.domains == ("package-0", "dram")
    assert now[0] - zero[0] == pytest.approx((after.cpu_mj - before.cpu_mj) / 1e3)
    assert now[1] - zero[1] == pytest.approx((after.dram_mj - before.dram_mj) / 1e3)


# --- vendors' libraries -----------------------------------------------------------------------


class Seconds:
    """A clock that is called."""

    now = 10.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def boards(*more):
    return [{"uuid": f"GPU-{i}{i}{i}", "watts": 100.0 * (i + 1), **m} for i, m in enumerate(more)]


def nvml(*more, environ=None, devices_used=(0,), **kwargs):
    clock = Seconds()
    fake = devices.FakeNvml(clock, *boards(*more), **kwargs)
    return open_nvml(environ or {}, devices_used, lambda: fake), clock


def test_nvml_counts_the_board_that_the_run_uses():
    found, clock = nvml({}, {})
    (counter,) = counters(found)
    before = counter.read()
    clock.now += 5
    assert counter.read()[0] - before[0] == pytest.approx(500)
    assert (counter.domains, counter.scope, counter.provenance) == (("gpu-0",), "nvidia", "counter")
    assert "does not use" in refused(found)["nvml gpu-1"].reason


@pytest.mark.parametrize(
    ("listed", "used", "domains"),
    [
        (None, (0, 1), ["gpu-0", "gpu-1"]),
        ("1", (0,), ["gpu-1"]),
        ("2,0", (0,), ["gpu-2"]),
        ("GPU-11", (0,), ["gpu-1"]),
        ("0,7,1", (0,), ["gpu-0"]),
    ],
)
def test_cuda_visible_devices_says_which(listed, used, domains):
    environ = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    found, _ = nvml({}, {}, {}, environ=environ, devices_used=used)
    assert [c.domains[0] for c in counters(found)] == domains


def test_boards_that_cannot_be_told_say_why():
    assert "split by MIG" in refused(nvml({"mig": 1})[0])["nvml gpu-0"].reason
    assert counters(nvml({"mig": 0})[0])
    hidden = nvml({}, environ={"CUDA_VISIBLE_DEVICES": ""})[0]
    assert "CUDA device 0 is not there" in refused(hidden)["nvml"].reason
    mig = nvml({}, environ={"CUDA_VISIBLE_DEVICES": "MIG-1234"})[0]
    assert "split by MIG" in refused(mig)["nvml"].reason
    unlike = nvml({"name": "A"}, {"name": "B"})[0]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in refused(unlike)["nvml"].reason
    assert counters(
        nvml({"name": "A"}, {"name": "B"}, environ={"CUDA_VISIBLE_DEVICES": "GPU-11"})[0]
    )
    assert "Library Not Found" in refused(nvml({}, driver=False)[0])["nvml"].reason

    def absent():
        raise ImportError

    assert "pip install nvidia-ml-py" in refused(open_nvml({}, load=absent))["nvml"].reason
    fake = devices.FakeNvml(Seconds(), {"uuid": "GPU-0", "counts": False})
    assert "neither" in refused(open_nvml({}, load=lambda: fake))["nvml gpu-0"].reason


@pytest.mark.parametrize(
    ("period_us", "period_s"), [(None, 0.1), (100_000, 0.1), (25_000, 0.025), (10, 0.02)]
)
def test_a_board_that_does_not_count_is_sampled_at_its_own_period(period_us, period_s):
    more = {"counts": False} | ({"period_us": period_us} if period_us else {})
    (counter,) = counters(nvml(more)[0])
    assert (counter.provenance, counter.period_s) == ("sampled", pytest.approx(period_s))
    assert counter.read() == (0.0,)
    counter.close()


def test_a_board_that_is_lost_is_an_oserror():
    found, clock = nvml({})
    (counter,) = counters(found)
    clock.now = math.nan
    with pytest.raises(OSError, match="ValueError"):
        counter.read()


def amd(*more, environ=None):
    clock = Seconds()
    found = [{"watts": 200.0, "hip_id": i, **m} for i, m in enumerate(more)]
    fake = devices.FakeAmdsmi(clock, *found)
    return open_amd(environ or {}, (0,), lambda: fake, (clock, clock.sleep)), clock


@pytest.mark.parametrize("old", [False, True])
def test_amd_counts_in_units_of_its_resolution(old):
    (counter,), clock = amd({"old": old})
    before = counter.read()
    clock.now += 2
    assert counter.read()[0] - before[0] == pytest.approx(400, rel=1e-3)
    assert (counter.provenance, counter.resolution_j) == ("counter", pytest.approx(15.3e-6))


def test_amd_boards_follow_hip_and_wrong_counts_are_sampled():
    found, _ = amd({"hip_id": 1}, {"hip_id": 0, "factor": 3})
    (counter,) = counters(found)
    assert (counter.domains, counter.provenance) == (("gpu-0",), "sampled")
    assert list(refused(found)) == ["amdsmi gpu-1"]
    assert counters(amd({}, {}, environ={"HIP_VISIBLE_DEVICES": "1"})[0])[0].domains == ("gpu-1",)
    assert (
        "not visible" in refused(amd({}, environ={"HIP_VISIBLE_DEVICES": "9"})[0])["amdsmi"].reason
    )

    def absent():
        raise ImportError("no module")

    assert "ImportError" in refused(open_amd({}, load=absent))["amdsmi"].reason


def test_apple_counts_what_lies_side_by_side():
    clock = Seconds()
    found = open_apple(lambda: devices.FakeApple(clock))
    (counter,) = counters(found)
    before = counter.read()
    clock.now += 10
    steps = dict(
        zip(
            counter.domains,
            (b - a for a, b in zip(before, counter.read(), strict=True)),
            strict=True,
        )
    )
    assert steps == pytest.approx({"cpu": 30, "gpu": 50, "dram": 10})
    assert list(refused(found)) == ["apple gpu_sram"]

    def absent():
        raise ImportError

    assert "pip install zeus-apple-silicon" in refused(open_apple(absent))["apple"].reason


def test_emi_counts_packages_once():
    clock = Seconds()
    packages = {
        "RAPL_Package0_PKG": 60,
        "RAPL_Package0_DRAM": 5,
        "RAPL_Package0_PP0": 40,
        "RAPL_Package0_PSYS": 90,
    }
    found = open_emi([
        devices.FakeEmi(clock, packages),
        devices.FakeEmi(clock, {"RAPL_Package0_Core1_CORE": 20}, version=1),
        devices.FakeEmi(clock, {"RAPL_Package0_Die1_PKG": 60}),
        devices.FakeEmi(clock, {"RAPL_Package1_PKG": 30, "DISPLAY": 4}),
    ])  # fmt: skip
    counter, psys = counters(found)
    before = counter.read()
    clock.now += 10
    steps = dict(
        zip(
            counter.domains,
            (b - a for a, b in zip(before, counter.read(), strict=True)),
            strict=True,
        )
    )
    assert steps == pytest.approx({"package-0": 600, "dram-0": 50, "package-1": 300})
    assert (psys.domains, psys.scope) == (("psys",), "platform")
    reasons = {name: x.reason for name, x in refused(found).items()}
    assert "part of its package" in reasons["emi RAPL_Package0_PP0"]
    assert "part of its package" in reasons["emi RAPL_Package0_Core1_CORE"]
    assert "seen from each die" in reasons["emi RAPL_Package0_Die1_PKG"]
    assert "neither" in reasons["emi DISPLAY"]


def test_emi_that_cannot_be_had_says_why():
    clock = Seconds()
    assert "no channel" in refused(open_emi([devices.FakeEmi(clock, {"DISPLAY": 4})]))["emi"].reason
    assert "no channel" in refused(open_emi([]))["emi"].reason
    assert "cannot be read" in refused(open_emi([lambda code, size: b""]))["emi"].reason
    two = {"RAPL_Package0_PKG": 60, "RAPL_Package0_Die1_PKG": 10}
    assert counters(open_emi([devices.FakeEmi(clock, two)]))[0].domains == (
        "package-0",
        "package-0-die-1",
    )


# --- rails, battery ---------------------------------------------------------------------------


def ina3221(root, number, **rails):
    """A monitor of up to three rails: (mV, mA)."""
    files = {}
    for place, (label, (volts, amperes)) in enumerate(rails.items(), 1):
        files |= {
            f"in{place}_label": label,
            f"in{place}_input": volts,
            f"curr{place}_input": amperes,
        }
    return hwmon(root, number, "ina3221", **files)


def test_a_jetson_counts_its_input_and_not_the_rails_behind_it(tmp_path):
    ina3221(tmp_path, 1, VDD_IN=(5000, 2000), VDD_CPU_GPU_CV=(5000, 800), VDD_SOC=(5000, 300))
    hwmon(tmp_path, 0, "cpu_thermal", temp1_input=45000)
    found = open_rails(tmp_path)
    (counter,) = counters(found)
    assert (counter.domains, counter.scope, counter.provenance) == (("VDD_IN",), "board", "sampled")
    assert counter._watts() == pytest.approx([10.0])
    assert "VDD_IN" in refused(found)["rails VDD_SOC"].reason


def test_a_jetson_without_an_input_rail_adds_those_beside_each_other(tmp_path):
    ina3221(
        tmp_path, 1, VDD_GPU_SOC=(20000, 500), VDD_CPU_CV=(20000, 250), VIN_SYS_5V0=(5000, 1000)
    )
    ina3221(tmp_path, 2, NC=(0, 0), VDDQ_VDD2_1V8AO=(5000, 200))
    found = open_rails(tmp_path)
    assert counters(found)[0].domains == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert counters(found)[0]._watts() == pytest.approx([10, 5, 5])
    assert list(refused(found)) == ["rails VDDQ_VDD2_1V8AO"]


def test_a_thor_counts_its_carrier_boards_monitor(tmp_path):
    devices.write(
        tmp_path / "firmware/devicetree/base", model="NVIDIA Jetson AGX Thor Developer Kit\0"
    )
    hwmon(
        tmp_path,
        3,
        "ina238",
        in1_input=20000,
        curr1_input=2500,
        power1_input=50_000_000,
        update_interval=100,
    )
    ina3221(
        tmp_path, 1, VDD_GPU=(20000, 500), VDD_CPU_SOC_MSS=(20000, 500), VIN_SYS_5V0=(20000, 500)
    )
    found = open_rails(tmp_path)
    (counter,) = counters(found)
    assert (counter.domains, counter.period_s, counter._watts()) == (("VIN",), 0.1, [50.0])
    assert len(refused(found)) == 3


def test_rails_of_which_nothing_is_known_are_not_counted(tmp_path):
    assert open_rails(tmp_path) == []
    hwmon(tmp_path, 0, "ina226", power1_input=1_000_000)
    assert "is not known" in refused(open_rails(tmp_path))["rails ina226-0-1"].reason


def test_a_monitor_that_counts_energy_is_a_counter(tmp_path):
    chip = hwmon(
        tmp_path, 0, "ina228", label="VIN", power1_input=5_000_000, energy1_input=1_000_000
    )
    (counter,) = counters(open_rails(tmp_path))
    (chip / "energy1_input").write_text("6500000")
    assert (counter.provenance, counter.read()) == ("counter", (5.5,))
    (chip / "energy1_input").write_text("?")
    with pytest.raises(OSError, match="holds no number"):
        counter.read()


def test_older_jetson_linux_is_read(tmp_path):
    folder = tmp_path / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    devices.write(
        folder,
        rail_name_0="POM_5V_IN",
        in_power0_input=2500,
        rail_name_1="POM_5V_GPU",
        in_power1_input=900,
    )
    (counter,) = counters(open_rails(tmp_path))
    assert (counter.domains, counter._watts()) == (("POM_5V_IN",), [2.5])


def test_the_pis_pmic_is_summed_over_rails_with_a_current():
    watts = {"3V7_WL_SW": 0.37, "3V3_SYS": 0.66, "VDD_CORE": 1.6}
    assert pmic_watts(devices.PMIC) == pytest.approx(watts)
    (counter,) = open_pmic(lambda: devices.PMIC)
    assert (counter.domains, counter.scope, counter._watts()) == (
        ("pmic",),
        "board",
        [pytest.approx(2.63)],
    )
    assert "no currents" in refused(open_pmic(lambda: "error=1"))["pmic"].reason

    def fails(error):
        def ask():
            raise error

        return ask

    assert open_pmic(fails(FileNotFoundError())) == []
    assert (
        "failed"
        in refused(open_pmic(fails(subprocess.CalledProcessError(1, "vcgencmd"))))["pmic"].reason
    )


def battery(root, **files):
    supply(root, "AC", "Mains", online=0)
    supply(root, "hidpp_battery_0", "Battery", scope="Device", status="Discharging", energy_now=1)
    return supply(root, "BAT0", "Battery", status="Discharging", **files)


def test_a_battery_counts_what_it_gives(tmp_path):
    pack = battery(tmp_path, energy_now=50_000_000)
    (counter,) = open_battery(tmp_path)
    (pack / "energy_now").write_text("49990000")
    assert counter.read() == pytest.approx((36.0,))
    (pack / "energy_now").write_text("49995000")  # the gauge steps back
    assert counter.read() == pytest.approx((36.0,))
    (pack / "energy_now").write_text("49980000")
    assert counter.read() == pytest.approx((72.0,))
    assert (counter.domains, counter.scope, counter.health()) == (
        ("BAT0",),
        "machine",
        CounterHealth(falls=1),
    )


def test_a_battery_of_charge_uses_the_voltage_of_the_moment(tmp_path):
    pack = battery(tmp_path, charge_now=3_000_000, voltage_now=12_000_000)
    (counter,) = open_battery(tmp_path)
    (pack / "charge_now").write_text("2999000")
    assert counter.read() == pytest.approx((43.2,))
    (pack / "voltage_now").write_text("11000000")
    (pack / "charge_now").write_text("2998000")
    assert counter.read() == pytest.approx((43.2 + 39.6,))


def test_a_battery_of_power_is_sampled(tmp_path):
    battery(tmp_path, power_now=-15_000_000)
    assert (open_battery(tmp_path)[0].provenance, open_battery(tmp_path)[0]._watts()) == (
        "sampled",
        [15.0],
    )
    other = tmp_path / "other"
    battery(other, current_now=1_000_000, voltage_now=12_000_000)
    assert open_battery(other)[0]._watts() == [12.0]
    nothing = tmp_path / "nothing"
    battery(nothing, capacity=80)
    assert "neither" in refused(open_battery(nothing))["battery"].reason


def test_on_mains_a_battery_is_refused_also_in_mid_run(tmp_path):
    assert open_battery(tmp_path) == []
    pack = battery(tmp_path, energy_now=50_000_000)
    (counter,) = open_battery(tmp_path)
    (tmp_path / "class/power_supply/AC/online").write_text("1")
    with pytest.raises(OSError, match="on mains"):
        counter.read()
    assert "unplug it" in refused(open_battery(tmp_path))["battery"].reason
    (tmp_path / "class/power_supply/AC/online").write_text("0")
    (pack / "status").write_text("Full")
    assert "on mains" in refused(open_battery(tmp_path))["battery"].reason


# --- counters that cannot be read ---------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch):
    """Let files answer with an error number, as drivers do."""
    numbers, real = {}, Path.read_text

    def read_text(self, *args, **kwargs):
        if self in numbers:
            raise OSError(numbers[self], os.strerror(numbers[self]), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    return numbers


@pytest.mark.parametrize(
    ("name", "target", "mounted"),
    [
        (
            "class/powercap/intel-rapl:0",
            "../../devices/virtual/powercap/intel-rapl/intel-rapl:0",
            "-v /sys/devices/virtual/powercap:{root}/devices/virtual/powercap:ro",
        ),
        ("class/powercap", "/elsewhere/powercap", "the whole tree: -v /sys:/host/sys:ro"),
        ("class/hwmon/hwmon3", "../../devices/i2c/hwmon3", "-v /sys/devices:{root}/devices:ro"),
        ("class/power_supply/BAT0", "../../devices/acpi/BAT0", "-v /sys/devices:"),
        ("bus/i2c/drivers/ina3221x/6-0040", "../../../../devices/6-0040", "-v /sys/devices:"),
        ("class/powercap/intel-rapl:0", "intel-rapl:0", "the whole tree"),
    ],
)
def test_a_link_that_leads_out_of_the_container_says_what_to_mount(tmp_path, name, target, mounted):
    link = devices.dangling(tmp_path, name, target)
    reason = find_counter("cpu", tmp_path).reason
    reasons = [reason, *(x.reason for x in refused(find_counters(tmp_path, {})).values())]
    (told, *_) = [r for r in reasons if "which is not here" in r]
    assert f"{link} leads to " in told
    assert mounted.format(root=tmp_path) in told
    assert not any("Errno" in r or "\n" in r for r in reasons)


def test_a_dangling_zone_leaves_the_others(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    devices.dangling(tmp_path, "class/powercap/intel-rapl:1", "../../devices/intel-rapl:1")
    devices.dangling(tmp_path, "class/hwmon/hwmon0", "../../devices/hwmon0")
    found = resolve("cpu", find_counters(tmp_path, {}))
    assert found.counter.domains == ("package-0",)
    assert [x.name for x in found.left_out if x.missing] == ["rapl intel-rapl:1"]


@pytest.mark.parametrize("where", ["", "file", "class", "nowhere"])
def test_a_root_without_anything_is_a_reason(tmp_path, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "class").write_text("")
    for name, sysfs in (("rapl", tmp_path / where), ("rapl", tmp_path / "class/..")):
        found = find_counters(sysfs, {})
        assert counters(found) == []
        assert "no RAPL counter" in refused(found)[name].reason


@pytest.mark.parametrize("raised", [ValueError("a\nb"), OSError(5, "Input/output error"), "panic"])
def test_an_opener_that_raises_takes_no_other_along(tmp_path, monkeypatch, raised):
    class Panic(BaseException):
        """Stand for the panic of an extension written in Rust."""

    def fails(*arguments):
        raise Panic("called None") if raised == "panic" else raised

    zone(tmp_path, "intel-rapl:0", "package-0")
    battery(tmp_path, energy_now=50_000_000)
    for name in ("open_nvml", "open_rails", "open_pmic"):
        monkeypatch.setattr(f"edgecap.machine.energy.{name}", fails)
    found = find_counters(tmp_path, {})
    assert [c.name for c in counters(found)] == ["rapl", "battery"]
    assert set(refused(found)) == {"nvml", "rails", "pmic"}
    assert all(x.reason.startswith("it cannot be read: ") for x in refused(found).values())
    assert not any("\n" in x.reason for x in refused(found).values())
    assert [x.name for x in resolve("cpu", found).left_out if x.missing] == []


def test_an_interrupt_is_no_reason(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgecap.machine.energy.open_rapl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_counters(tmp_path, {})


def spoil(file, how, answers):
    if isinstance(how, int):
        answers[file] = how
        return
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes(how)


@pytest.mark.parametrize(
    "how", [errno.EIO, errno.ENODATA, errno.EACCES, "folder", "gone", b"", b"\xff\xfe", b"-3\n"]
)
def test_a_zone_that_cannot_be_read_leaves_the_others(tmp_path, answers, how):
    zone(tmp_path, "intel-rapl:0", "package-0")
    bad = zone(tmp_path, "intel-rapl:1", "package-1")
    spoil(bad / "energy_uj", how, answers)
    ina3221(tmp_path, 0, VDD_IN=(5000, 1000))
    found = find_counters(tmp_path, {})
    made = resolve("cpu", found)
    assert made.counter.domains == ("package-0",)
    assert [x.name for x in made.left_out if x.missing] == ["rapl package-1"]
    assert "intel-rapl:1/energy_uj" in refused(found)["rapl package-1"].reason
    assert [c.name for c in made.beside] == ["rails"]


@pytest.mark.parametrize("wrap", [0, -1, "", "garbage", "4\n4"])
def test_a_range_that_says_nothing_is_no_range(tmp_path, wrap):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, wrap)
    (counter,) = counters(open_rapl(tmp_path))
    (path / "energy_uj").write_text("7000000")
    assert counter.read() == (2.0,)
    (path / "energy_uj").write_text("1000000")
    assert counter.read() == (2.0,)
    assert counter.health().falls == 1


def test_a_zone_without_a_name_may_be_part_of_the_total(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    (zone(tmp_path, "intel-rapl:0:0", "dram") / "name").unlink()
    made = resolve("cpu", find_counters(tmp_path, {}))
    assert [x.name for x in made.left_out if x.missing] == ["rapl intel-rapl:0:0"]


@pytest.mark.parametrize("name", ["core", "uncore", "psys"])
def test_what_is_no_part_of_the_total_does_not_make_it_incomplete(tmp_path, answers, name):
    zone(tmp_path, "intel-rapl:0", "package-0")
    part = zone(tmp_path, "intel-rapl:1" if name == "psys" else "intel-rapl:0:0", name)
    answers[part / "energy_uj"] = errno.EIO
    made = resolve("cpu", find_counters(tmp_path, {}))
    assert made.counter.domains == ("package-0",)
    assert [x.missing for x in made.left_out if x.name == f"rapl {name}"] == [False]


def test_a_package_that_the_mirror_shows_is_not_missing(tmp_path, answers):
    answers[zone(tmp_path, "intel-rapl:0", "package-0") / "energy_uj"] = errno.EIO
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    made = resolve("cpu", find_counters(tmp_path, {}))
    assert made.counter.domains == ("package-0",)
    assert not any(x.missing for x in made.left_out)


def test_a_mirror_alone_that_cannot_be_read_says_why(tmp_path, answers):
    answers[zone(tmp_path, "intel-rapl-mmio:0", "package-0") / "energy_uj"] = errno.EIO
    assert "Input/output error" in find_counter("cpu", tmp_path).reason


def test_two_zones_of_one_name_are_both_counted(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:1", "package-0")
    (counter,) = counters(open_rapl(tmp_path))
    assert counter.domains == ("package-0 (intel-rapl:0)", "package-0 (intel-rapl:1)")


def test_a_zone_that_dies_during_a_run_makes_no_smaller_total(tmp_path, answers):
    zone(tmp_path, "intel-rapl:0", "package-0")
    other = zone(tmp_path, "intel-rapl:1", "package-1")
    (counter,) = counters(open_rapl(tmp_path))
    answers[other / "energy_uj"] = errno.ENODATA
    with pytest.raises(OSError, match="intel-rapl:1"):
        counter.read()


def test_a_lost_board_leaves_those_before_it():
    found, _ = nvml({}, {"lost": True})
    assert [c.domains for c in counters(found)] == [("gpu-0",)]
    left = refused(found)["nvml gpu-1"]
    assert ("GPU is lost" in left.reason, left.missing) == (True, False)
    found, _ = nvml({"lost": True}, {})
    assert counters(found) == []
    assert "CUDA_VISIBLE_DEVICES" in refused(found)["nvml"].reason
    found, _ = nvml({"lost": True}, {}, environ={"CUDA_VISIBLE_DEVICES": "GPU-11"})
    assert [c.domains for c in counters(found)] == [("gpu-1",)]


def test_an_amd_board_without_a_number_takes_no_others_place():
    found, clock = amd({"hip_id": None, "watts": 50.0}, {"hip_id": 0})
    (counter,) = counters(found)
    before = counter.read()
    clock.now += 2
    assert counter.read()[0] - before[0] == pytest.approx(400, rel=1e-3)
    assert "HIP number" in refused(found)["amdsmi board 0"].reason
    assert counters(amd({"hip_id": None}, {"hip_id": None})[0])[0].domains == ("gpu-0",)


def test_an_emi_device_that_fails_leaves_the_others():
    clock = Seconds()

    class Mute(devices.FakeEmi):
        """Names its channels and measures nothing."""

        def __call__(self, code, size):
            if code == 0x22400C:
                raise OSError("no reply")
            return super().__call__(code, size)

    found = open_emi([
        lambda code, size: b"",
        devices.FakeEmi(clock, {"RAPL_Package0_PKG": 60}),
        Mute(clock, {"RAPL_Package1_PKG": 60}),
        Mute(clock, {"RAPL_Package0_PP0": 60}),
        Mute(clock, {"RAPL_Package0_PSYS": 60}),
    ])  # fmt: skip
    assert [c.domains for c in counters(found)] == [("package-0",)]
    assert {name: x.missing for name, x in refused(found).items()} == {
        "emi device 0": True,
        "emi RAPL_Package1_PKG": True,
        "emi RAPL_Package0_PP0": False,
        "emi RAPL_Package0_PSYS": False,
    }


@pytest.mark.parametrize("how", [errno.EIO, errno.EACCES, "folder", "gone", b"", b"\xff", b"?"])
def test_a_rail_that_cannot_be_read_leaves_the_next_total(tmp_path, answers, how):
    chip = ina3221(tmp_path, 0, VDD_IN=(5000, 1000), VDD_SOC=(5000, 100))
    spoil(chip / "in1_input", how, answers)
    battery(tmp_path, energy_now=50_000_000)
    found = find_counters(tmp_path, {})
    assert resolve("qnn", found).counter.name == "battery"
    assert [c.name for c in counters(found)] == ["battery"]
    spoil(chip / "in1_label", b"\xff\xfe", answers)  # a name is not worth a traceback
    assert counters(open_rails(tmp_path)) == []


def test_a_rail_outside_the_total_may_fail(tmp_path, answers):
    chip = ina3221(tmp_path, 0, VDD_IN=(5000, 1000), VDD_SOC=(5000, 100))
    answers[chip / "curr2_input"] = errno.EIO
    made = resolve("qnn", find_counters(tmp_path, {}))
    assert made.counter.domains == ("VDD_IN",)
    assert "Input/output error" in {x.name: x.reason for x in made.left_out}["rails VDD_SOC"]
    assert not any(x.missing for x in made.left_out)


def test_a_monitor_that_does_not_count_now_is_sampled(tmp_path, answers):
    chip = hwmon(tmp_path, 0, "ina228", label="VIN", power1_input=5_000_000, energy1_input=1)
    answers[chip / "energy1_input"] = errno.ENODATA
    (counter,) = counters(open_rails(tmp_path))
    assert (counter.provenance, counter._watts()) == ("sampled", [5.0])


def test_a_battery_that_cannot_be_read_is_a_reason(tmp_path, answers):
    pack = battery(tmp_path, energy_now=50_000_000, power_now=15_000_000)
    answers[pack / "energy_now"] = errno.ENODATA
    (counter,) = open_battery(tmp_path)
    assert (counter.provenance, counter._watts()) == ("sampled", [15.0])
    (pack / "power_now").write_text("garbage")
    assert "power_now holds no number" in refused(open_battery(tmp_path))["battery"].reason
    answers[pack / "status"] = errno.EIO
    assert "Input/output error" in refused(open_battery(tmp_path))["battery"].reason


def test_half_of_the_batteries_are_no_total(tmp_path, answers):
    battery(tmp_path, energy_now=50_000_000)
    second = supply(tmp_path, "BAT1", "Battery", status="Discharging", energy_now=1, present=1)
    answers[second / "energy_now"] = errno.EIO
    assert "BAT1" in refused(open_battery(tmp_path))["battery"].reason
    (second / "present").write_text("0")  # the bay is empty
    assert open_battery(tmp_path)[0].domains == ("BAT0",)


# --- the wall meter ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "time,watts\n1700000000,10\n1700000001,20\n1700000002,20\n",
        "timestamp;Power (mW)\n1700000000000;10000\n1700000001000;20000\n1700000002000;20000\n",
        "Time\tPower_W\tV\n2023-11-14T22:13:20Z\t10\t230\n"
        "2023-11-14T22:13:21+00:00\t20\t1\n2023-11-14T22:13:22Z\t20\t1\n",
        "epoch,joules\n1700000000,100\n1700000001,115\n1700000002,135\n",
        "time,energy_wh\n1700000000,0\n1700000001,0.004166666667\n1700000002,0.009722222222\n",
        "time,watts\n1700000000,10\n1700000001,20\n1700000002,20\n17000",
    ],
)
def test_a_meters_file_is_read_by_the_names_of_its_columns(text):
    rows = meter.parse_meter_rows(text)
    assert rows.times == (1.7e9, 1.7e9 + 1, 1.7e9 + 2)
    assert rows.joules[-1] - rows.joules[0] == pytest.approx(35)
    assert meter.joules_between(rows, 1.7e9 + 1, 1.7e9 + 1.5) == pytest.approx(10)
    with pytest.raises(OSError, match="covers"):
        meter.joules_between(rows, 1.7e9 - 1, 1.7e9 + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no complete line"),
        ("a,watts\n1,2\n", "no column of times"),
        ("time,volts\n1,2\n", "no column of watts or joules"),
        ("time,watts\n2,1\n1,1\n", "do not rise"),
        ("time,joules\n1,5\n2,1\n", "reset during the record"),
        ("time,watts\n1\n", "line 2"),
        ("time,watts\nyesterday,1\n", "yesterday"),
        ("time,watts\n1,nan\n", "not all numbers"),
    ],
)
def test_a_file_that_is_no_meters_says_where(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        meter.parse_meter_rows(text)
    (tmp_path / "m.csv").write_text(text)
    assert message in refused(find_counters(tmp_path, {}, tmp_path / "m.csv"))["meter"].reason


def table(header, *rows):
    return "".join(f"{line}\n" for line in (header, *rows))


def each_second(form, *values, count=60, start=1764000000):
    """Rows of a second each from 2025-11-24T16:00Z: a form of time, then values in turn."""
    times = [datetime.fromtimestamp(start + i, UTC) for i in range(count)]
    return [
        f"{t.strftime(form) if '%' in form else start + i}{values[i % len(values)]}"
        for i, t in enumerate(times)
    ]


ISO, EPOCH = "%Y-%m-%dT%H:%M:%SZ", "epoch"


@pytest.mark.parametrize(
    "text",
    [
        table("time;power", *each_second(ISO, ";41,2")),
        table("time,watts", *each_second(EPOCH, ',"41,2"')),
        table("Time (UTC)\tP [W]\tU [V]", *each_second("%d.%m.%Y %H:%M:%S", "\t41,2\t230,1")),
        table("Datum;Uhrzeit;Leistung [kW]", *each_second("%d.%m.%Y;%H:%M:%S UTC", ";0,0412")),
        table('"Time","Power, W"', *each_second("%d.%m.%Y %H:%M:%S UTC", ',"41.2"')),
        table("Date,Time,Power (W)", *each_second("%m/%d/%Y,%I:%M:%S %p UTC", ",41.2")),
        table("Time Bucket (UTC),Mains (kWatts)", *each_second("%m/%d/%Y %H:%M:%S", ",0.0412")),
        table("time,Active Power[kW]", *each_second("%Y-%m-%d %H:%M:%S+0000", ",0.0412")),
        table("time,W", *each_second("%d-%b-%Y %H:%M:%S.000Z", ",41.2")),
        table("time,W", *each_second("%a %b %d %Y %H:%M:%S UTC", ",41.2")),
        table("utc_time,powerkW", *each_second("%Y%m%d%H%M%S", ",0.0412")),
        table("time,power", *each_second(ISO, ",41.2 W", ",0.0412 kW", ",41200 mW")),
        table("time;W;V", *each_second(EPOCH, ";41,2;1.230,5")),
        table("ts,apower,aenergy", *each_second(EPOCH, ",41.2,7")),
        table("time,Power consumption", *each_second(EPOCH, ",41.2")),
        table("sep=;", "Plug S;fw 1.0", "", "# exported", "time;W", *each_second(EPOCH, ";41,2")),
        table("Time UTC,Power", "[dd.MM.yyyy],[kW]", *each_second("%d.%m.%Y %H:%M", ",0.0412")[:1])
        + table(*each_second("%d.%m.%Y %H:%M:%S", ",0.0412")[1:]),
        table("time,L1 (W),L2 (W),L3 (W)", *each_second(EPOCH, ",10,20,11.2")),
        table("time,a_act_power,b_act_power,total_act_power", *each_second(EPOCH, ",9,8,41.2")),
        table("time,Power plug,watts", *each_second(EPOCH, ",10,41.2")),
        table(
            "Time,ENERGY.Total,ENERGY.Power,ENERGY.ApparentPower,ENERGY.Factor",
            *each_second(ISO, ",12.3,41.2,50,0.9"),
        ),
        table("time,W", *each_second(EPOCH, ",41.2", count=30), "time,W")
        + table(*each_second(EPOCH, ",41.2", count=30, start=1764000030)),
        table("time,W", "1764000000,41.2", *each_second(EPOCH, ",41.2")),
        table("time;W", *each_second(EPOCH, ";41,2")).replace("\n", "\r\n"),
        "\ufeff" + table("time;W", *each_second(EPOCH, ";41,2")).replace("\n", "\r"),
        table("time;power", *each_second(ISO, *[";41,2"] * 20, ";unavailable")),
        table("time;watts", *each_second(EPOCH, ";41,199", ";41,201")),
        table("time;watts", *each_second(EPOCH, ";41.199", ";41.201", ";-")),
        table("time,watts", *each_second(EPOCH, ",41.199", ",41.201")),
        table("time\twatts", *each_second(EPOCH, "\t41.199", "\t41.201")),
        table("# time,watts", *each_second(EPOCH, ",41.2")),
        table("# Meter 3", "#time,current,voltage,power", *each_second(EPOCH, ",0.17,230,41.2")),
        table("", "// Zeit;Leistung (W)", *each_second(EPOCH, ";41,2"), "# time,watts"),
        table("# power over time", "time,watts", *each_second(EPOCH, ",41.2")),
        table("time,W", *each_second(EPOCH, *[",41.2"] * 10, ",", ",-", ",41.2", ",N/A", ",nan")),
    ],
)
def test_a_meters_file_is_read_as_people_write_it(text):
    rows = meter.parse_meter_rows(text)
    assert rows.times[0] == 1764000000
    assert meter.joules_between(rows, 1764000005, 1764000035) == pytest.approx(30 * 41.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table("time,W", *each_second(EPOCH, ",41,2")), "line 2 .* 3 columns, its header 2"),
        (table("time,W", *each_second(EPOCH, ',"1,234"')), "column 'W': '1,234' can be 1.234 or"),
        (table("Zeit;Leistung (W)", *each_second(EPOCH, ";1.000", ";1.001")), "1.000 or 1000: wr"),
        (table("Zeit;Leistung (W)", *each_second(EPOCH, ";980", ";1.001")), "1.001 or 1001: wr"),
        (table("time;Wh", *each_second(EPOCH, ";12.340")), "12.340 or 12340: write"),
        (table("time;kW", *each_second(EPOCH, ";980", ";1.001")), "line 3.* 1.001 or 1001"),
        (table("time,W", *each_second(EPOCH, ",980", ",1.001")), "line 3.* 1.001 or 1001"),
        (table("time\tW", *each_second(EPOCH, "\t980", "\t1.001")), "line 3.* 1.001 or 1001"),
        (table("time;W", *each_second(EPOCH, ";1.001 W")), "1.001 or 1001: write"),
        (table("time;W", *each_second(EPOCH, ";41,200", ";41")), "41.200 or 41200"),
        (table("time;W", *each_second(EPOCH, ";41,200", ";4,900")), "41.200 or 41200"),
        (table("time;mW", *each_second(EPOCH, ";41,200")), "41.200 or 41200"),
        (table("time;W", *each_second(EPOCH, ";41,200 mW")), "41.200 or 41200"),
        (table("# time watts", *each_second(EPOCH, " 41.2")), "line 1 .*: separate columns by"),
        (table("time watts", *each_second(EPOCH, " 41.2")), "line 1 .*: separate columns by"),
        (table("# my desk", *each_second(EPOCH, ",41.2")), "line 2 has no names .* 'time,watts'"),
        (table("time;W", *each_second(EPOCH, ";41.2", ";41,2")), "line 3, column 'W': '41,2' has"),
        (table("time,W", *each_second(EPOCH, ",41.2", ",ON")), "line 3, column 'W': 'ON' is not"),
        (table("time,W", *each_second(EPOCH, ",1_000")), "'1_000' is not a number"),
        (table("time,W", *each_second(EPOCH, ",41.2", ",3 kWh")), "line 3.*not a number of watts"),
        (table("time,W", *each_second(EPOCH, ",41.2", ",-120")), "line 3, .* is negative"),
        (table("*", *each_second(EPOCH, ",41.2"))[2:], "line 1 has no names .* 'time,watts'"),
        (table("time,Power A1,Power B", *each_second(EPOCH, ",4,2")), "name the machine's 'watts'"),
        (table("TIME,POWER_MW", *each_second(EPOCH, ",41200")), "write mW, W or kW"),
        (table("time,power", *each_second(EPOCH, ",0.0412")), "names no unit"),
        (
            table("time,power", *each_second(EPOCH, ",0.84")),
            r"header: 'power \(W\)' or 'power \(kW",
        ),
        (table("time,Leistung", *each_second(EPOCH, ",1.9")), "median of 1.9 and names no unit"),
        (table("time,Apparent Power (VA)", *each_second(EPOCH, ",41")), "no column of watts"),
        (table("time,price (EUR/kWh)", *each_second(EPOCH, ",41")), "no column of watts"),
        (table("time,energy", *each_second(EPOCH, ",41")), "write Wh, kWh or J"),
        (table("time,power_meter_energy", *each_second(EPOCH, ",41")), "write Wh, kWh or J"),
        (table("time,power (dBm)", *each_second(EPOCH, ",41")), "write mW, W or kW"),
        (table("time,power (%)", *each_second(EPOCH, ",41")), "no column of watts"),
        (
            table("time,W", *each_second("%m/%d/%Y %H:%M:%S", ",4", start=1764000000 - 19 * 86400)),
            "line 2, column 'time': '11/05/2025 16:00:00' can be two dates: write 2025-05-11 or",
        ),
        (table("time,W", *each_second("%Y-%m-%d %H:%M:%S IST", ",4")), r"'IST': write .* \+01:00"),
        (table("time,W", *each_second("%H:%M:%S", ",41.2")), "line 2, column 'time': .* no date"),
        (table("date,W", *each_second("%Y-%m-%d", ",41.2")), "has no time of day"),
        (
            table("time,W", *each_second("%Y-%m-%d %H:%M", ",1", ",2", ",3")),
            "third row of the same",
        ),
        (table("time,W", *each_second(EPOCH, ",4"), "1764000010,4"), "line 62.* do not rise"),
        (table("time,W", *each_second(EPOCH, ",4"), "Total,240"), "line 62.*'Total' is not a time"),
        (table("time,kWh", *each_second(EPOCH, ",1", ",2", ",1")), "line 4, column 'kWh'.* falls"),
    ],
)
def test_what_cannot_be_read_names_line_and_column(text, message):
    with pytest.raises(ValueError, match=message) as told:
        meter.parse_meter_rows(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        table("time,power (W)", *each_second(EPOCH, ",1.5")),
        table("time,power", *each_second(EPOCH, ",1.5 W", ",-")),
        table("time;power (kW)", *each_second(EPOCH, ";0,0015")),
    ],
)
def test_a_small_board_names_its_unit(text):
    rows = meter.parse_meter_rows(text)
    assert meter.joules_between(rows, 1764000005, 1764000015) == pytest.approx(15)


def test_thousands_of_kilowatts_are_decimals():
    rows = meter.parse_meter_rows(table("time;kW", *each_second(EPOCH, ";1,199", ";1,201")))
    assert meter.joules_between(rows, 1764000005, 1764000035) == pytest.approx(36_000)


def test_a_gap_is_no_power(tmp_path):
    text = table("time;power", *each_second(ISO, *[";41,2"] * 20, *[";unavailable"] * 8))
    rows = meter.parse_meter_rows(text)
    assert rows.gaps[0] == (1764000019, 1764000028)
    assert meter.joules_between(rows, 1764000001, 1764000019) == pytest.approx(18 * 41.2)
    with pytest.raises(OSError, match="no value of 'power' for 9.0 s"):
        meter.joules_between(rows, 1764000005, 1764000035)


def test_energy_goes_on_counting_through_a_gap():
    rows = each_second(EPOCH, "")
    text = table("time,Wh", *(f"{r},{i / 100:.3f}" for i, r in enumerate(rows) if i // 10 != 2))
    found = meter.parse_meter_rows(text)
    assert meter.joules_between(found, 1764000005, 1764000055) == pytest.approx(50 * 36)
    with pytest.raises(OSError, match="no value"):
        meter.joules_between(found, 1764000005, 1764000025)


def beside(watts, step_wh, digits):
    """Rows of constant watts beside energy that moves in steps, from a tenth of a step."""
    counts = [math.floor(watts * i / 3600 / step_wh + 0.1) * step_wh for i in range(1800)]
    rows = each_second(EPOCH, "", count=1800)
    return [f"{r},{watts},{c / 1000:.{digits}f}" for r, c in zip(rows, counts, strict=True)]


@pytest.mark.parametrize(("step_wh", "digits"), [(10, 2), (10, 6), (1, 3), (0.1, 4)])
def test_watts_stand_in_for_energy_of_coarse_steps(step_wh, digits):
    text = table("time,W,kWh", *beside(40.0, step_wh, digits))
    rows = meter.parse_meter_rows(text)
    assert rows.column == "W"
    for began in (1764000005, 1764000035, 1764000900):
        assert meter.joules_between(rows, began, began + 30) == pytest.approx(1200)
    alone = meter.parse_meter_rows(re.sub(",40.0,", ",", text).replace(",W,", ","))
    assert alone.step_j == pytest.approx(step_wh * 3600)
    assert f"steps of {step_wh * 3600:g} J" in meter.too_coarse(alone)
    with pytest.raises(OSError, match=f"steps of {step_wh * 3600:g} J"):
        meter.joules_between(alone, 1764000005, 1764000035)


def test_energy_that_does_not_move_has_the_step_of_its_last_digit():
    rows = meter.parse_meter_rows(table("time,kWh", *each_second(EPOCH, ",12.340")))
    assert rows.step_j == pytest.approx(36_000)
    assert "steps of 36000 J" in meter.too_coarse(rows)


def test_watts_and_energy_that_disagree_are_refused():
    text = table("time,W,kWh", *beside(40.0, 1, 3)).replace(",40.0,", ",80.0,")
    with pytest.raises(
        ValueError, match="'W' and 'kWh' disagree: 143920 J and 72000 J over 1799 s"
    ):
        meter.parse_meter_rows(text)
    falls = table("time,W,kWh", *each_second(EPOCH, *[",41.2,1.0"] * 30, *[",41.2,0.0"] * 30))
    assert meter.parse_meter_rows(falls).column == "W"


def test_fine_energy_is_used_with_its_step(tmp_path):
    rows = each_second(EPOCH, "")
    text = table("time,W,Wh", *(f"{r},36,{i / 100:.2f}" for i, r in enumerate(rows)))
    (tmp_path / "m.csv").write_text(text)
    trace = meter.WallMeter(tmp_path / "m.csv", 0.0)
    assert trace.resolution_j == pytest.approx(36)
    assert trace.between(1764000005, 1764000035) == (pytest.approx(30 * 36),)


def test_the_hour_that_a_clock_shows_twice(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        turn = 1761440400  # 2025-10-26T01:00Z: 03:00 becomes 02:00
        lines = [f"{datetime.fromtimestamp(turn - 30 + i):%d.%m.%Y %H:%M:%S};5" for i in range(60)]
        assert meter.parse_meter_rows(table("Zeit;W", *lines)).times == tuple(
            range(turn - 30, turn + 30)
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_history_of_home_assistant_holds_its_values():
    states = [(0, "10"), (5, "100"), (5.5, "unavailable"), (6, "100"), (40, "20"), (41, "21")]
    lines = [
        line
        for after, state in states
        for line in (
            f"sensor.plug_voltage,230.1,{datetime.fromtimestamp(1764000000 + after, UTC):{ISO}}",
            f"sensor.plug_power,{state},{datetime.fromtimestamp(1764000000 + after, UTC):{ISO}}",
        )
    ]
    rows = meter.parse_meter_rows(table("entity_id,state,last_changed", *lines))
    assert rows.column == "sensor.plug_power"
    assert meter.joules_between(rows, 1764000000, 1764000005) == pytest.approx(50)
    assert meter.joules_between(rows, 1764000010, 1764000040) == pytest.approx(3000)
    two = table("entity_id,state,last_changed", f"sensor.a_power,1,{lines[0][-20:]}")
    with pytest.raises(ValueError, match=r"rows of 2 .* watts: 'sensor.a_power', 'sensor.b_power"):
        meter.parse_meter_rows(two + f"sensor.b_power,1,{lines[0][-20:]}\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda text: text.encode(), None),
        (lambda text: text.encode("utf-8-sig"), None),
        (lambda text: text.encode("utf-16"), None),
        (lambda text: text.encode("utf-16")[:-5], None),
        (lambda text: text.replace("W", "W °").encode("latin-1"), None),
        (lambda text: text.encode() + "1764000060,4\N{BLACK STAR}".encode()[:-1], None),
        (lambda text: text.encode("utf-16-le"), "not a text file"),
        (lambda text: b"\x89PNG\r\n\x1a\n\0\0", "not a text file"),
        (lambda text: None, "not a regular file"),
        (lambda text: b"time,W", "no complete line"),
    ],
)
def test_the_run_is_refused_before_it_begins(tmp_path, data, message):
    now = math.floor(time.time())
    text = table("time;W", *each_second(EPOCH, ";41,2", start=now - 59))
    path = tmp_path / "m.csv"
    written = data(text)
    if written is None:
        os.mkfifo(path)
    else:
        path.write_bytes(written)
    if message is None:
        assert "'W" in prepare._check_meter(path, 0.0)
        return
    with pytest.raises(UsageError, match="pipe" if written is None else message):
        prepare._check_meter(path, 0.0)
    assert message in refused(find_counters(tmp_path, {}, path))["meter"].reason


@pytest.mark.parametrize(
    ("age", "header", "message"),
    [
        (5000, "time,W", "its last row is 5000 s old; let"),
        (3600, "time,W", "3600 s old; if its times are of another time zone"),
        (math.inf, "time,W", "do not count from 1970"),
        (0, "time,kWh", "steps of 3600 J"),
    ],
)
def test_a_file_of_another_time_is_refused(tmp_path, age, header, message):
    start = max(0, math.floor(max(0.0, time.time() - age)) - 59)
    (tmp_path / "m.csv").write_text(table(header, *each_second(EPOCH, ",12.345", start=start)))
    with pytest.raises(UsageError, match=re.sub("[0-9]+ s", "[0-9]+ s", message)):
        prepare._check_meter(tmp_path / "m.csv", 0.0)


@given(
    st.lists(st.floats(0, 500), min_size=3, max_size=30),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_joules_of_parts_add_up(watts, a, b, c):
    rows = meter.parse_meter_rows(
        "time,watts\n" + "".join(f"{1e9 + i},{w}\n" for i, w in enumerate(watts))
    )
    first, middle, last = (1e9 + x * (len(watts) - 1) for x in sorted((a, b, c)))
    parts = meter.joules_between(rows, first, middle) + meter.joules_between(rows, middle, last)
    assert parts == pytest.approx(meter.joules_between(rows, first, last), abs=1e-6)
    assert parts >= -1e-9


@settings(max_examples=15)
@given(st.floats(-60, 60), st.integers(0, 1000))
def test_the_clocks_offset_is_found_from_steps_of_load(offset, seed):
    import random

    chance = random.Random(seed)
    steps = [(1e9 + 3, 1e9 + 6), (1e9 + 8, 1e9 + 13), (1e9 + 17, 1e9 + 20)]
    lines = ["time,watts"]
    for i in range(-100, 120):
        ours = 1e9 + i - offset + chance.random() * 0.01
        load = sum(
            max(0.0, min(b, ours + 0.5) - max(a, ours - 0.5)) for a, b in steps
        )  # a mean over its period
        lines.append(f"{ours + offset:.6f},{30 + 20 * load + chance.gauss(0, 1)}")
    found, fit = meter.find_offset(meter.parse_meter_rows("\n".join(lines) + "\n"), steps)
    assert found == pytest.approx(offset, abs=0.4)
    assert fit > 0.8


class Wall:
    """A meter that writes a row a second, half a second late, with a clock that is `ahead`."""

    def __init__(self, path, clock, watts, ahead=0.0):
        self.path, self.clock, self.watts, self.ahead = path, clock, watts, ahead
        self.written, self.lines = 0, ["time,watts"]
        self.write()

    def write(self):
        while self.written + 0.5 <= self.clock.now():
            self.lines.append(f"{1e9 + self.written + self.ahead},{self.watts(self.written)}")
            self.written += 1
        self.path.write_text("\n".join(self.lines) + "\n")

    def sleep(self, seconds):
        self.clock.sleep(seconds)
        self.write()

    def open(self, **more):
        return meter.WallMeter(
            self.path, now=lambda: 1e9 + self.clock.now(), sleep=self.sleep, **more
        )


def test_a_wall_meter_is_asked_when_all_is_over(tmp_path):
    clock = FakeClock()
    clock.time = 10.0
    wall = Wall(tmp_path / "m.csv", clock, lambda t: 40.0, ahead=7.0)
    found = measure(wall.open(offset_s=7.0), clock)
    assert (found.counter, found.domains, found.provenance, found.tick_s) == (
        "meter",
        ("wall",),
        "sampled",
        1.0,
    )
    assert all(
        w.seconds >= 100 and w.joules == pytest.approx(40 * w.seconds) for w in every_window(found)
    )


def test_a_wall_meter_finds_its_clock_and_stands_beside(tmp_path):
    clock = FakeClock()
    clock.time, busy = 200.0, []

    def watts(second):
        return 30 + 40 * any(a <= second < b for a, b in busy)

    def load():
        busy.append((clock.now(), clock.now() + 0.5))
        clock.sleep(0.5)
        return 10

    wall = Wall(tmp_path / "m.csv", clock, watts, ahead=-20.0)
    trace = wall.open(offset_s=None)
    counter = FakeCounter(clock)
    found = energy.measure_energy(
        counter, clock, load, load, quiet, beside=(trace,), epoch=lambda: 1e9 + clock.now()
    )
    assert trace.offset_s == pytest.approx(-20, abs=0.6)
    assert all(w.joules == pytest.approx(10 * w.seconds, rel=0.02) for w in every_window(found))
    assert all(
        w.beside["wall"] == pytest.approx(70 * w.seconds, rel=0.2) for w in every_window(found)
    )
    bare = msgspec.structs.replace(
        found, decode=tuple(msgspec.structs.replace(w, beside={}) for w in found.decode)
    )
    assert meter.add_trace_to_windows(bare, trace).decode == found.decode
    with pytest.raises(OSError, match="when its windows began"):
        meter.add_trace_to_windows(energy_of(20.0), trace)


def test_a_wall_meter_of_another_machine_is_refused(tmp_path):
    clock = FakeClock()
    clock.time = 200.0
    wall = Wall(tmp_path / "m.csv", clock, lambda t: 30.0)
    assert "do not show" in measure(wall.open(offset_s=None), clock).reason
    clock = FakeClock()
    clock.time = 200.0
    wall = Wall(tmp_path / "m.csv", clock, lambda t: 30.0)
    found = measure(FakeCounter(clock), clock, beside=(wall.open(offset_s=None),))
    assert "do not show" in found.left_out[0].reason


def test_a_wall_meter_that_stops_is_absent(tmp_path):
    (tmp_path / "m.csv").write_text("time,watts\n1000000000,5\n1000000001,5\n")
    clock = FakeClock()
    trace = meter.WallMeter(
        tmp_path / "m.csv", 0.0, now=lambda: 1e9 + clock.now(), sleep=clock.sleep
    )
    assert "covers 1000000000.0 to 1000000001.0" in measure(trace, clock).reason


# --- the resolver -----------------------------------------------------------------------------


def counter(name, scope, *domains):
    return CumulativeCounter(name, scope, domains, lambda: [0.0] * len(domains), 1.0)


RAPL, PSYS = (
    counter("rapl", "processor", "package-0", "dram"),
    counter("rapl-psys", "platform", "psys"),
)
GPU, GPU2, AMD = (
    counter("nvml", "nvidia", "gpu-0"),
    counter("nvml", "nvidia", "gpu-1"),
    counter("amdsmi", "amd", "gpu-0"),
)
RAILS, BATTERY = counter("rails", "board", "VDD_IN"), counter("battery", "machine", "BAT0")
NO_RAPL = LeftOut(name="rapl", reason="not readable", scope="processor", missing=True)
NO_GPU = LeftOut(name="nvml", reason="no driver", scope="nvidia", missing=True)


@pytest.mark.parametrize(
    ("provider", "found", "domains", "beside", "missing"),
    [
        ("cpu", [RAPL, PSYS, GPU], ("package-0", "dram"), ["rapl-psys"], []),
        ("cpu", [RAPL, NO_GPU, BATTERY], ("package-0", "dram"), ["battery"], []),
        ("cpu", [NO_RAPL, RAILS, BATTERY], ("VDD_IN",), ["battery"], []),
        ("cpu", [NO_RAPL, BATTERY], ("BAT0",), [], []),
        ("cpu", [NO_RAPL, PSYS, GPU], None, [], []),
        ("cuda", [RAPL, GPU, PSYS], ("gpu-0", "package-0", "dram"), ["rapl-psys"], []),
        ("tensorrt", [RAPL, GPU, GPU2], ("gpu-0", "gpu-1", "package-0", "dram"), [], []),
        ("cuda", [NO_RAPL, GPU, BATTERY], ("gpu-0",), ["battery"], ["rapl"]),
        ("cuda", [NO_RAPL, GPU, RAILS], ("VDD_IN",), [], []),
        ("cuda", [RAPL, NO_GPU], None, [], []),
        ("cuda", [RAPL, GPU, NO_GPU], None, [], []),
        ("cuda", [NO_RAPL, NO_GPU, RAILS], ("VDD_IN",), [], []),
        ("migraphx", [RAPL, AMD, NO_GPU], ("gpu-0", "package-0", "dram"), [], []),
        ("dml", [RAPL, AMD], ("gpu-0", "package-0", "dram"), [], []),
        ("coreml", [RAILS], ("VDD_IN",), [], []),
        ("qnn", [RAPL, BATTERY], ("BAT0",), [], []),
        ("qnn", [], None, [], []),
    ],
)
def test_what_makes_up_the_total(provider, found, domains, beside, missing):
    made = resolve(provider, found)
    assert (None if isinstance(made.counter, Absent) else made.counter.domains) == domains
    assert [c.name for c in made.beside] == beside
    assert [x.name for x in made.left_out if x.missing] == missing
    told = {c.name for c in (*made.beside, *made.left_out)} | set(
        getattr(made.counter, "name", "").split(" + ")
    )
    assert {
        f.name for f in found
    } <= told  # each is in the total, beside it, or left out with a reason


def test_nothing_says_why():
    assert "not readable" in resolve("cpu", [NO_RAPL, GPU]).counter.reason
    assert "no driver" in resolve("cuda", [NO_GPU, RAPL]).counter.reason
    assert "no energy counter for provider 'qnn'" in resolve("qnn", []).counter.reason


def test_joined_counters_keep_names_apart():
    both = JoinedCounter([GPU, AMD, RAPL])
    assert both.domains == ("nvml gpu-0", "amdsmi gpu-0", "package-0", "dram")
    assert (both.name, both.provenance, both.read()) == (
        "nvml + amdsmi + rapl",
        "counter",
        (0.0,) * 4,
    )
    sampled = SampledCounter("pmic", "board", ["pmic"], lambda: [1.0], 1.0)
    assert JoinedCounter([GPU, sampled]).provenance == "sampled"
    assert JoinedCounter([GPU, sampled]).health() == CounterHealth()
    JoinedCounter([GPU, sampled]).close()


def test_find_opens_what_is_there(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    ina3221(tmp_path, 0, VDD_IN=(5000, 1000))
    battery(tmp_path, energy_now=50_000_000)
    found = find_counters(tmp_path, {})
    assert [c.name for c in counters(found)] == ["rapl", "rails", "battery"]
    assert "nvml" in refused(found)


@pytest.mark.parametrize(
    ("library", "fake"), [("pynvml", devices.FakeNvml), ("amdsmi", devices.FakeAmdsmi)]
)
def test_fakes_have_no_names_that_the_vendor_lacks(library, fake):
    try:
        real = __import__(library)
    except Exception as error:  # amdsmi looks for its driver when it is imported
        pytest.skip(f"{library} is not installed: {error}")
    names = [n for n in vars(fake) if n.startswith(("nvml", "amdsmi", "NVML"))]
    assert len(names) >= 4
    assert not [n for n in names if not hasattr(real, n)]


@pytest.mark.slow  # in real time, and wrong where nobody lets the sampler run
def test_a_sampled_board_and_its_processor_make_one_total(monkeypatch):
    """In real time: a board that only tells 100 W, renewed every 20 ms,
    beside 30 W that are counted.
    """
    for name, value in (
        ("MIN_SECONDS", 0.4),
        ("MIN_TICKS", 20),
        ("IDLE_SECONDS", 0.4),
        ("SETTLE", 0.02),
    ):
        monkeypatch.setattr(energy_windows, name, value)
    fake = devices.FakeNvml(time.monotonic, *boards({"counts": False, "period_us": 20_000}))
    processor = CumulativeCounter(
        "rapl", "processor", ["package-0"], lambda: [30 * time.monotonic()], 6e-5
    )
    made = resolve("cuda", [*open_nvml({}, (0,), lambda: fake), processor])
    clock = SimpleNamespace(now=time.perf_counter, sleep=time.sleep)
    found = energy.measure_energy(made.counter, clock, work(clock, 0.01), work(clock, 0.005), quiet)
    assert (found.counter, found.provenance, found.domains) == (
        "nvml + rapl",
        "sampled",
        ("gpu-0", "package-0"),
    )
    assert found.tick_s == pytest.approx(0.02, rel=0.5)
    assert 0 < found.sampler_cpu_share < 0.5
    for window in every_window(found):
        assert window.by_domain["gpu-0"] == pytest.approx(
            100 * window.seconds, rel=0.15
        )  # a tick of twenty
        assert window.by_domain["package-0"] == pytest.approx(30 * window.seconds, rel=0.05)
    assert 0.01 < found.quantisation < 0.2
