"""NVIDIA boards: which one CUDA means by a number, what it tells, and what that says of a run."""

import os
import sys

import fake_devices as devices
import msgspec
import pytest
from fakes import scripted
from samples import ENERGY, RECORD, latency_with, with_outcome

from edgecap.analysis.cell_labels import gpus_of, hardware_of
from edgecap.analysis.warnings import cautions
from edgecap.machine import nvidia
from edgecap.machine.board_noise import monitor_board
from edgecap.machine.energy.nvml import open_nvml
from edgecap.machine.noise import NoiseMonitor
from edgecap.machine.nvidia import (
    cuda_uuids,
    free_memory,
    list_boards,
    missing_device,
    process_gpu_memory,
    read_gpus,
    visible_boards,
)
from edgecap.meters.latency import Decider
from edgecap.pipeline import peaks
from edgecap.pipeline.profile import profile
from edgecap.pipeline.worker import Inspect, MeasureCell, MeasureLatency, MeasureMemory, Session
from edgecap.pipeline.worker.handlers import diagnose, latency, memory
from edgecap.record import (
    Absent,
    BoardConditions,
    Conditions,
    Failure,
    Gpu,
    LeftOut,
    Measurement,
)
from edgecap.runtime.providers import provider_problem
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import load
from edgecap.text.corpus import read_corpus

GIB = 2**30
OWN = os.getpid()


def uuid_of(number, kind="GPU"):
    return f"{kind}-{str(number) * 8}-1111-2222-3333-444444444444"


def board(number, **more):
    """A board with two gigabytes taken; NVML's numbers follow the slots here."""
    told = {"bus": f"00000000:{number + 1}5:00.0", "memory": (80 * GIB, 2 * GIB), "users": {}}
    return {"uuid": uuid_of(number), "watts": 100.0, "name": "NVIDIA H100", **told, **more}


def split(number, *profiles):
    """A board split by MIG: `profiles` are compute slices, slices, and gigabytes of memory."""
    instances = [
        {
            "uuid": uuid_of(number + i + 5, "MIG"),
            "name": "NVIDIA H100",
            "slices": (compute, whole),
            "memory": (int(held * GIB), GIB),
            "users": {OWN: 3_000 + i},
        }
        for i, (compute, whole, held) in enumerate(profiles)
    ]
    return board(number, mig=1, instances=instances)


@pytest.fixture
def install(monkeypatch):
    """Put boards into this machine; `cuda` are the UUIDs that CUDA's driver lists, in order."""

    def put(*boards, cuda=None, environ=None):
        nvml = devices.FakeNvml(lambda: 0.0, *boards)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        if cuda is not None:
            monkeypatch.setattr(nvidia, "_load_cuda", lambda: devices.FakeCuda(*cuda))
        for name, value in (environ or {}).items():
            monkeypatch.setenv(name, value)
        return nvml

    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    return put


# --- which board CUDA means -------------------------------------------------------------------


def test_cuda_tells_its_devices_by_uuid():
    found = cuda_uuids(lambda: devices.FakeCuda(uuid_of(1), uuid_of(0)))
    assert [f"GPU-{x}" for x in found] == [uuid_of(1), uuid_of(0)]
    assert cuda_uuids(lambda: devices.FakeCuda(status=100)) == []  # no device is visible
    assert cuda_uuids(lambda: devices.FakeCuda(uuid_of(1), status=3)) is None

    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert cuda_uuids(missing) is None


def names(boards, environ=None, uuids=None):
    nvml = devices.FakeNvml(lambda: 0.0, *boards)
    visible = visible_boards(list_boards(nvml), environ or {}, uuids)
    return [b.uuid for b in visible.boards], visible.unclear


def test_what_cuda_says_goes_before_the_order_of_nvml():
    """The fastest board first: with other models CUDA's 0 is not NVML's."""
    slow, fast = board(0, name="NVIDIA T4"), board(1, name="NVIDIA H100")
    order = [uuid_of(1).removeprefix("GPU-"), uuid_of(0).removeprefix("GPU-")]
    assert names([slow, fast], uuids=order) == ([uuid_of(1), uuid_of(0)], "")
    assert names([slow, fast])[0] == []
    assert "different models" in names([slow, fast])[1]


def test_an_answer_of_cuda_that_nvml_does_not_know_is_not_used():
    assert names([board(0)], uuids=["no-such-uuid"]) == ([uuid_of(0)], "")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        ({"CUDA_VISIBLE_DEVICES": f"{uuid_of(1)},0"}, [1, 0]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-2222,GPU-1"}, [2, 1]),
        ({"CUDA_VISIBLE_DEVICES": "1,9,0"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1,1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_rules_of_the_environment_where_cuda_cannot_be_asked(environ, expected):
    assert names([board(0), board(1), board(2)], environ)[0] == [uuid_of(i) for i in expected]


def test_the_order_of_the_slots_is_not_that_of_nvml():
    boards = [board(0, bus="00000000:C1:00.0"), board(1, bus="00000000:17:00.0", name="NVIDIA T4")]
    environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert names(boards, environ) == ([uuid_of(1), uuid_of(0)], "")
    assert names(boards, {**environ, "CUDA_VISIBLE_DEVICES": "1"})[0] == [uuid_of(0)]


def test_an_instance_is_named_by_its_uuid():
    boards = [board(0), split(1, (1, 1, 9.6), (3, 3, 39.5))]
    listed = {"CUDA_VISIBLE_DEVICES": uuid_of(7, "MIG")}
    assert names(boards, listed)[0] == [uuid_of(7, "MIG")]
    asked = [uuid_of(6, "MIG").removeprefix("MIG-")]
    assert names(boards, listed, asked)[0] == [uuid_of(6, "MIG")]


def test_joules_are_those_of_the_board_that_cuda_means():
    boards = [board(0, name="NVIDIA T4", watts=50.0), board(1, watts=700.0)]
    nvml = devices.FakeNvml(lambda: 3.0, *boards)
    uuids = [uuid_of(1).removeprefix("GPU-"), uuid_of(0).removeprefix("GPU-")]
    (counter,) = [c for c in open_nvml({}, (0,), lambda: nvml, uuids) if not isinstance(c, LeftOut)]
    assert counter.domains == ("gpu-1",)


def test_the_energy_of_an_instance_is_refused():
    nvml = devices.FakeNvml(lambda: 3.0, split(0, (1, 1, 9.6)))
    environ = {"CUDA_VISIBLE_DEVICES": uuid_of(5, "MIG")}
    (left,) = open_nvml(environ, (0,), lambda: nvml)
    assert "split by MIG" in left.reason
    assert "1g.10gb" in left.reason
    assert left.missing


def test_energy_that_is_required_is_refused_on_an_instance(install, monkeypatch, tmp_path):
    install(split(0, (1, 1, 9.6)), cuda=[uuid_of(5, "MIG")])
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path))
    step = Inspect(providers=("cuda",), energy=True)
    assert "split by MIG" in diagnose._no_energy(step)["cuda"]


def test_a_device_beyond_the_visible_ones_is_refused_by_name(install):
    install(
        board(0, name="NVIDIA T4"),
        board(1),
        cuda=[uuid_of(1)],
        environ={"CUDA_VISIBLE_DEVICES": uuid_of(1)},
    )
    problem = provider_problem("cuda:device_id=3")
    assert problem == (
        f"CUDA has no device 3 here, only 0 (NVIDIA H100, {uuid_of(1)}), "
        f"CUDA_VISIBLE_DEVICES={uuid_of(1)}"
    )
    assert missing_device(0) == ""


def test_a_device_is_refused_without_nvml_too(install, monkeypatch):
    install(cuda=[uuid_of(1)])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert missing_device(1) == f"CUDA has no device 1 here, only 0 ({uuid_of(1)[4:]})"


# --- what a board tells -----------------------------------------------------------------------


def test_boards_of_the_record_carry_the_numbers_of_cuda(install):
    install(
        board(0, name="NVIDIA T4", users={1: 5, 2: 5}, busy=97, limit_w=70.0),
        board(1),
        cuda=[uuid_of(1), uuid_of(0)],
    )
    slow, fast = read_gpus(on_cuda=True)
    assert (slow.device, fast.device) == (1, 0)
    assert (slow.users, slow.utilisation, slow.power_limit_w) == (2, 0.97, 70.0)
    assert (fast.used_bytes, fast.utilisation, fast.power_limit_w) == (2 * GIB, None, None)
    machine = msgspec.structs.replace(RECORD.machine, gpus=(slow, fast))
    assert gpus_of(machine, "cuda:device_id=1") == (slow,)
    assert gpus_of(machine, "cuda") == (fast,)
    assert gpus_of(machine, "cpu") == ()


def test_a_run_on_the_cpu_asks_cuda_nothing(install, monkeypatch):
    install(board(0))
    monkeypatch.setattr(nvidia, "_load_cuda", lambda: pytest.fail("it was asked"))
    assert [g.device for g in read_gpus()] == [None]


def test_boards_that_the_run_may_not_use_are_not_in_the_name_of_the_machine(install):
    install(board(0, name="NVIDIA T4"), board(1), cuda=[uuid_of(1)])
    machine = msgspec.structs.replace(RECORD.machine, gpus=read_gpus(on_cuda=True))
    assert hardware_of(machine).gpus == ("NVIDIA H100",)
    assert len(machine.gpus) == 2


@pytest.mark.parametrize(
    ("profile_of", "name"),
    [
        ((1, 1, 9.6), "NVIDIA H100 MIG 1g.10gb"),
        ((2, 2, 19.5), "NVIDIA H100 MIG 2g.20gb"),
        ((1, 3, 39.5), "NVIDIA H100 MIG 1c.3g.40gb"),
    ],
)
def test_an_instance_has_its_profile_as_name_and_its_own_memory(install, profile_of, name):
    install(split(0, profile_of), cuda=[uuid_of(5, "MIG")])
    (gpu,) = read_gpus(on_cuda=True)
    assert (gpu.name, gpu.memory_bytes) == (name, int(profile_of[2] * GIB))
    assert (gpu.device, gpu.power_limit_w) == (0, None)


def test_memory_of_this_process_is_counted_on_its_own_device(install):
    install(split(0, (1, 1, 9.6), (1, 1, 9.6)), cuda=[uuid_of(6, "MIG")])
    assert process_gpu_memory(0) == 3_001
    install(board(0, users={1: 50_000}), board(1, users={OWN: 7}), cuda=[uuid_of(1)])
    assert process_gpu_memory(0) == 7


@pytest.mark.parametrize("users", [{1: 50_000}, {OWN: None}])
def test_a_board_that_does_not_show_this_process(install, users):
    install(board(0, users=users))
    assert "does not report the memory of this process" in process_gpu_memory(0).reason


def test_no_board(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "NVML does not report it" in process_gpu_memory(0).reason
    assert (read_gpus(), free_memory(0), monitor_board(0)) == ((), None, None)


def test_a_board_that_tells_nothing_fails_nothing(install):
    install({"uuid": uuid_of(0)}, cuda=[uuid_of(0)])
    assert (read_gpus(on_cuda=True), free_memory(0)) == ((), None)
    assert isinstance(process_gpu_memory(0), Absent)
    watch = NoiseMonitor(monitor_board(0))
    watch.sample()
    assert watch.conditions().board == BoardConditions(rounds=1)


def test_peaks_are_those_of_the_board_in_use(install, tmp_path):
    install(board(0, memory=(4 * GIB, 0), name="NVIDIA T4"), board(1), cuda=[uuid_of(1)])
    machine = msgspec.structs.replace(
        RECORD.machine, gpus=read_gpus(on_cuda=True), memory_bytes=500 * GIB
    )
    assert peaks._memory(machine, "cuda") == 80 * GIB
    home, other = resolve_paths(tmp_path, tmp_path), msgspec.structs.replace(machine, gpus=())
    assert peaks._cache_path(home, machine, "cuda", 2, ()) != peaks._cache_path(
        home, other, "cuda", 2, ()
    )
    assert peaks._cache_path(home, machine, "cpu", 2, ()) == peaks._cache_path(
        home, other, "cpu", 2, ()
    )


# --- during the rounds ------------------------------------------------------------------------


def test_the_clock_and_the_others_are_sampled_each_round(install):
    one = board(0, mhz=1980, most_mhz=1980, slowed=0, users={OWN: 5}, loads={OWN: 90})
    install(board(1, mhz=300), one, cuda=[uuid_of(0)])
    watch = NoiseMonitor(monitor_board(0))
    for mhz, bits in ((1980, 0), (1410, 0x4), (1200, 0x4 | 0x40), (210, 0x1)):
        one.update(mhz=mhz, slowed=bits)
        watch.sample()
    one.update(users={OWN: 5, 7: 9, 8: 9}, loads={OWN: 50, 7: 30, 8: 10})
    watch.sample()
    assert watch.conditions().board == BoardConditions(
        rounds=5,
        clocks_hz=(1.98e9, 1.41e9, 1.2e9),
        most_hz=1.98e9,
        slowed={"power limit": 2, "heat": 1},
        others=2,
        other_load=pytest.approx(0.4),
    )


def test_processes_of_another_numbering_are_not_others(install):
    """In a container NVML lists this process by a number that it does not know."""
    install(board(0, users={4711: 5}, loads={4711: 90}), cuda=[uuid_of(0)])
    watch = NoiseMonitor(monitor_board(0))
    watch.sample()
    assert (watch.conditions().board.others, watch.conditions().board.other_load) == (None, None)


def test_the_board_that_is_watched_is_that_of_the_session(install, monkeypatch):
    install(board(0, mhz=300), board(1, mhz=1980), cuda=[uuid_of(0), uuid_of(1)])
    watched = []
    monkeypatch.setattr(latency, "NoiseMonitor", lambda b: watched.append(b) or NoiseMonitor(b))
    for provider in ("cuda:device_id=1", "cpu"):
        session = Session(graph="g", provider=provider, threads=1, vocabulary=9, head_dim=None)
        step = MeasureLatency(
            entrants=(session,),
            prefill_tokens=8,
            decode_context=0,
            limit_s=1.0,
            target=0.0,
            sweep=(),
            batches=(1,),
            streams=(1,),
            layers=1,
        )
        latency._take_turns(step, [], Decider([], False, 0.05), lambda *_: None)
    on_board, on_cpu = watched
    on_board.sample()
    assert on_board.conditions().clocks_hz == (1.98e9,)
    assert on_cpu is None


def test_the_memory_that_is_read_is_that_of_the_session(install, monkeypatch):
    install(board(0, users={OWN: 5}), board(1, users={OWN: 7}), cuda=[uuid_of(0), uuid_of(1)])
    monkeypatch.setattr(memory, "measure_memory", lambda *arguments: arguments[-1]())
    for provider, expected in (("cuda", 5), ("cuda:device_id=1", 7), ("cpu", memory.ON_HOST)):
        session = Session(graph="g", provider=provider, threads=1, vocabulary=9, head_dim=None)
        step = MeasureMemory(session=session, files=(), prefill_tokens=8, steps=1)
        assert memory.measure(step, lambda *_: None) == expected


# --- cautions ---------------------------------------------------------------------------------

QUIET = Gpu(
    name="NVIDIA H100", driver="580", memory_bytes=80 * GIB, users=0, device=0, utilisation=0.0
)
COUNTED = msgspec.structs.replace(ENERGY, domains=("nvml gpu-0", "package-0"))


def found(provider="cuda", energy=COUNTED, during=None, gpu=QUIET, **board):
    cell = with_outcome(latency_with(conditions=Conditions(board=during)), energy=energy)
    machine = msgspec.structs.replace(RECORD.machine, gpus=(msgspec.structs.replace(gpu, **board),))
    every = cautions(machine, RECORD.source, cell.graph, provider, cell.outcome, 1)
    return {c.code: c.message for c in every if "board" in c.code}


def test_a_quiet_board_is_no_caution():
    calm = BoardConditions(
        rounds=8, clocks_hz=(1.98e9, 1.96e9), most_hz=1.98e9, others=1, other_load=0.0
    )
    assert found(during=calm, used_bytes=600_000_000, users=1) == {}
    assert found(during=None) == {}


def test_a_busy_board_is_told_and_its_joules_are_not_ours():
    told = found(utilisation=0.97, users=2)
    assert told["board-busy"] == (
        "NVIDIA H100 was busy 97% of the time before the run, with 2 other processes"
    )
    assert "energy-shared-board" in told
    assert "energy-shared-board" not in found(utilisation=0.97, energy=Absent(reason="none"))
    on_cpu = msgspec.structs.replace(ENERGY, domains=("package-0",))
    assert "energy-shared-board" not in found(utilisation=0.97, energy=on_cpu)
    assert found(provider="cpu", utilisation=0.97) == {}
    assert found(provider="cuda:device_id=1", utilisation=0.97) == {}
    assert "processes that NVML does not list" in found(utilisation=0.5)["board-busy"]


@pytest.mark.parametrize(
    ("others", "load", "words"),
    [(1, 0.4, "40% of the time"), (2, None, "how much is not known"), (2, 0.02, ""), (0, 0.9, "")],
)
def test_others_during_the_benchmark(others, load, words):
    told = found(during=BoardConditions(rounds=8, others=others, other_load=load))
    assert words in told.get("board-busy-meanwhile", "")
    assert ("board-busy-meanwhile" in told, "energy-shared-board" in told) == (bool(words),) * 2


def test_memory_of_others_is_told_with_how_much():
    told = found(used_bytes=30_000_000_000, users=1)
    assert told == {
        "board-memory-taken": "30 GB of the 85.9 GB of NVIDIA H100 were taken before the run, "
        "by 1 other process"
    }


def test_a_clock_that_falls_is_told_with_its_cause():
    during = BoardConditions(
        rounds=8,
        clocks_hz=(1.98e9, 1.41e9, 1.2e9),
        most_hz=1.98e9,
        slowed={"power limit": 5, "heat": 2},
    )
    told = found(during=during, power_limit_w=350.0)
    assert told == {
        "board-clock": "the clock of NVIDIA H100 was 1.20 to 1.98 GHz from round to round, "
        "1.98 GHz at most",
        "board-throttled": "the clock of NVIDIA H100 was held down by power limit (350 W) in 5 "
        "and heat in 2 of 8 rounds: 1.20 to 1.98 GHz, 1.98 GHz at most",
    }


# --- memory that is too small -----------------------------------------------------------------


def profiled(tmp_path, file):
    """Profile fp32 on a CUDA that is only told of, and return the record and its steps."""
    scripts = scripted(read_corpus(str(file)))

    def run(step, watch, timeout_s):
        answer = scripts(step, watch, timeout_s)
        if isinstance(step, Inspect):
            return msgspec.structs.replace(answer, providers=("cpu", "cuda"))
        return answer

    asked = Spec(corpus=str(file), precisions=("fp32",), providers=("cuda",))
    record = profile(asked, resolve_paths(tmp_path / "c", tmp_path / "p"), run=run)
    (path,) = (tmp_path / "p").glob("*.json")
    assert load(path) == record
    return record, scripts.asked


@pytest.mark.parametrize(("free", "fits"), [(1_000, False), (GIB, True)])
def test_a_graph_that_does_not_fit_fails_before_it_is_loaded(
    install, tmp_path, corpus_file, free, fits
):
    taken = board(0, name="NVIDIA L4", memory=(24 * GIB, 24 * GIB - free), users={7: 5})
    install(taken, cuda=[uuid_of(0)])
    record, steps = profiled(tmp_path, corpus_file)
    (cell,) = record.cells
    assert record.machine.gpu(0).name == "NVIDIA L4"
    assert any(isinstance(step, MeasureCell) for step in steps) is fits
    if fits:
        assert isinstance(cell.outcome, Measurement)
        assert "board-memory-taken" in {c.code for c in cell.cautions}
    else:
        assert isinstance(cell.outcome, Failure)
        assert (cell.outcome.stage, cell.outcome.error) == ("measure", "DeviceMemory")
        assert "1 kB are free on NVIDIA L4 (25.8 GB)" in cell.outcome.message
