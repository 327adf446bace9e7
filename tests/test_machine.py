"""The machine: names of processors and boards, limits of containers, systems that tell little."""

import os
import pwd

import msgspec
import psutil
import pytest
from click.testing import CliRunner
from conftest import ROOT
from huggingface_hub import constants  # looks for the home folder when it is imported

from edgecap.analysis.cell_labels import device_names, hardware_of, record_devices
from edgecap.analysis.compare import compare
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.machine import container, info
from edgecap.machine.cpuinfo import board_name, processor_flags, processor_name, read_cpuinfo
from edgecap.machine.noise import NoiseMonitor
from edgecap.pipeline import compress, peaks
from edgecap.record import Absent
from edgecap.report.machine_text import container_limits
from edgecap.report.page.report import describe
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.details import details
from edgecap.storage import hub
from edgecap.storage.files import check_cache, resolve_paths
from edgecap.storage.records import load
from edgecap.sweep.fleet import dask_worker

RECORD = load(ROOT / "tests" / "data" / "record-3.json")


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """An empty procfs."""
    monkeypatch.setenv("EDGECAP_PROCFS", str(tmp_path / "proc"))
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.fixture
def sys_root(tmp_path, monkeypatch):
    """An empty sysfs."""
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path / "sys"))
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path / "sys"


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


# --- processors and boards --------------------------------------------------------------------


def arm(*parts, implementer="0x41", features="fp asimd asimddp"):
    """Return a 64-bit Arm /proc/cpuinfo with these parts."""
    return "".join(
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU variant\t: 0x4\n"
        f"CPU part\t: {part}\nCPU revision\t: 1\n\n"
        for n, part in enumerate(parts)
    )


PI_5 = f"{arm(*['0xd0b'] * 4)}Revision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
OLD_ARM = """Processor\t: ARMv7 Processor rev 4 (v7l)
processor\t: 0
BogoMIPS\t: 38.40

processor\t: 1
BogoMIPS\t: 38.40

Features\t: swp half neon
CPU implementer\t: 0x41
CPU part\t: 0xc07

Hardware\t: Allwinner sun8i Family
"""
POWER = """processor\t: 0
cpu\t\t: POWER9, altivec supported
clock\t\t: 2166.000000MHz

processor\t: 1
cpu\t\t: POWER9, altivec supported

timebase\t: 512000000
platform\t: PowerNV
model\t\t: 9006-22P
machine\t\t: PowerNV 9006-22P
"""
LOONGARCH = """system type\t\t: generic-loongson-machine

processor\t\t: 0
package\t\t\t: 0
CPU Family\t\t: Loongson-64bit
Model Name\t\t: Loongson-3A5000
"""
S390 = """vendor_id       : IBM/S390
# processors    : 2
processor 0: version = 00,  identification = 0A1234,  machine = 8561

cpu number      : 0
cpu MHz dynamic : 5200
"""
VISIONFIVE = "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc_zba\nuarch\t\t: sifive,u74-mc\n"
NO_UARCH = "processor\t: 0\nisa\t: rv64imafdcv_zicsr_zifencei\nmvendorid\t: 0x5b7\nmarchid\t: 0x0\n"
X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 45
model name\t: Intel(R) Xeon(R) CPU    E5-2670 0 @ 2.60GHz
flags\t\t: fpu avx

processor\t: 1
model name\t: Intel(R) Xeon(R) CPU    E5-2670 0 @ 2.60GHz
flags\t\t: fpu avx
"""


@pytest.mark.parametrize(
    ("text", "processor", "board"),
    [
        (PI_5, "Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0"),
        (arm(*["0xd05"] * 4, *["0xd0b"] * 4), "Cortex-A76 x4 + Cortex-A55 x4", None),
        (arm("0xd4f"), "Neoverse-V2", None),
        (arm("0x023", "0x023", implementer="0x61"), "Firestorm-M1", None),
        (arm("0x000", implementer="0x61"), "Apple silicon", None),
        (arm("0x004", implementer="0x4e"), "Carmel", None),
        (arm("0xac4", implementer="0xc0"), "Ampere-1a", None),
        (arm("0x001", implementer="0x51"), "Oryon", None),
        (arm("0xfff"), "Arm implementer 0x41 part 0xfff", None),
        (arm("0x123", implementer="0xee"), "Arm implementer 0xee part 0x123", None),
        (arm("?"), "Arm implementer 0x41 part ?", None),
        (
            PI_5.replace("BogoMIPS\t", "model name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS\t"),
            "Cortex-A76",
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
        (
            arm("0x862", implementer="0x70").replace(
                "BogoMIPS\t", "model name\t: Phytium,S5000C\nB"
            ),
            "Phytium,S5000C",
            None,
        ),
        (OLD_ARM, "Cortex-A7", "Allwinner sun8i Family"),
        (POWER, "POWER9", "PowerNV 9006-22P"),
        (LOONGARCH, "Loongson-3A5000", None),
        (S390, "IBM Z type 8561", None),
        (VISIONFIVE, "sifive,u74-mc", None),
        (NO_UARCH, "RISC-V rv64imafdcv vendor 0x5b7", None),
        (X86, "Intel(R) Xeon(R) CPU    E5-2670 0 @ 2.60GHz", None),
    ],
)
def test_processors_and_boards_have_names(proc, text, processor, board):
    (proc / "cpuinfo").write_text(text)
    assert (processor_name(read_cpuinfo()), board_name(read_cpuinfo())) == (processor, board)
    assert info.read_machine(("cpu",)).cpu == processor


def test_the_device_tree_names_a_board_that_cpuinfo_does_not(proc):
    write(proc, {"cpuinfo": arm("0xd05", "0xd0b"), "device-tree/model": "Radxa ROCK 5B\0"})
    machine = info.read_machine(("cpu",))
    assert machine.processor == "Cortex-A76 x1 + Cortex-A55 x1, Radxa ROCK 5B"


def test_features_are_those_of_all_cores(proc):
    text = arm("0xd03", features="fp asimd") + arm("0xd0b")
    (proc / "cpuinfo").write_text(text)
    assert processor_flags(read_cpuinfo()) == {"fp", "asimd"}
    (proc / "cpuinfo").write_text(OLD_ARM)
    assert "neon" in info.read_machine(("cpu",)).flags


@pytest.mark.parametrize("text", [None, "", "\0\xff:\n::\n\n:"])
def test_without_a_readable_cpuinfo_the_system_names_the_processor(proc, text):
    if text is not None:
        (proc / "cpuinfo").write_text(text)
    assert processor_name(read_cpuinfo()) and board_name(read_cpuinfo()) is None


def on_board(board, **changes):
    machine = msgspec.structs.replace(RECORD.machine, cpu="Cortex-A76", board=board, **changes)
    return msgspec.structs.replace(RECORD, machine=machine)


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "Intel Core i7-8650U"),
        ("11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", "11th Gen Intel Core i5-1135G7"),
        ("Intel(R) Xeon(R) Processor", "Intel Xeon"),
        ("Intel Xeon Processor (Skylake, IBRS)", "Intel Xeon (Skylake, IBRS)"),
        ("AMD Ryzen 7 5700U with Radeon Graphics", "AMD Ryzen 7 5700U"),
        ("AMD EPYC 9R14 96-Core Processor", "AMD EPYC 9R14"),
        ("AMD EPYC", "AMD EPYC"),
        ("Cortex-A76 x4 + Cortex-A55 x4", "Cortex-A76 x4 + Cortex-A55 x4"),
        ("Processor", "Processor"),
    ],
)
def test_a_device_is_called_by_its_processor(cpu, name):
    machine = msgspec.structs.replace(RECORD.machine, name="vm", cpu=cpu)
    assert device_names([hardware_of(machine)]) == [name]


def test_devices_are_told_apart_by_parts_and_at_last_by_host():
    vm = hardware_of(RECORD.machine)._replace(
        host="vm", kind="Xeon CPU @ 2 GHz", processor="Xeon CPU @ 2 GHz", cores=2
    )
    fast = vm._replace(kind="Xeon CPU @ 3 GHz", processor="Xeon CPU @ 3 GHz")
    h100 = vm._replace(gpus=("NVIDIA H100",) * 2)
    assert device_names([vm, h100, vm]) == ["Xeon", "Xeon + 2 x NVIDIA H100", "Xeon"]
    assert device_names([vm, vm._replace(cores=1)]) == ["Xeon, 2 cores", "Xeon, 1 core"]
    assert device_names([vm, fast]) == ["Xeon CPU @ 2 GHz, 2 cores", "Xeon CPU @ 3 GHz, 2 cores"]
    twin = vm._replace(host="twin")
    assert device_names([vm, twin]) == ["Xeon (vm)", "Xeon (twin)"]
    several = [vm, twin, fast, h100, vm._replace(cores=4), h100._replace(host="twin")]
    assert len(set(device_names(several))) == len(several)


def test_boards_with_the_same_core_are_told_apart(tmp_path, monkeypatch):
    pi, rock = on_board("Raspberry Pi 5 Model B Rev 1.0"), on_board("Radxa ROCK 5B")
    differences = comparison(compare([pi, rock])[0], 200)
    assert "Cortex-A76, Raspberry Pi 5 Model B Rev 1.0 against Cortex-A76, Radxa" in differences
    assert record_devices([pi, rock]) == ["Raspberry Pi 5 Model B", "Radxa ROCK 5B"]
    hashes, names = set(), set()
    for record in (pi, rock):
        monkeypatch.setattr(compress, "read_machine", lambda p, m=record.machine: m)
        hashes.add(compress._runtime_hash("cpu"))
        names.add(peaks._cache_path(resolve_paths(), record.machine, "cpu", 4, ()))
    assert len(hashes) == len(names) == 2


# --- containers -------------------------------------------------------------------------------

V2 = {"cgroup.controllers": "cpu memory\n"}
V1_NONE = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("own", "files", "quota", "memory"),
    [
        ("0::/\n", {**V2, "cpu.max": "150000 100000\n", "memory.max": "2000000\n"}, 1.5, 2000000),
        ("0::/\n", {**V2, "cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        # The smallest of the own limits and those of the parents.
        (
            "0::/a/b\n",
            {
                **V2,
                "cpu.max": "max 100000",
                "a/cpu.max": "50000 100000",
                "a/b/cpu.max": "400000 100000",
                "a/b/memory.max": "max",
                "a/memory.max": "3000000",
                "a/memory.high": "1000000",
            },
            0.5,
            1000000,
        ),
        # A path above the container's root, as without or beyond a cgroup namespace.
        ("0::/../../x\n", {**V2, "cpu.max": "200000 100000\n"}, 2.0, None),
        ("0::/docker/abc\n", {**V2, "cpu.max": "200000 100000\n"}, 2.0, None),
        # v1, with both names of the folder.
        (
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/docker/abc/memory.limit_in_bytes": V1_NONE,
                "memory/docker/memory.limit_in_bytes": "5000000\n",
            },
            2.5,
            5000000,
        ),
        # v1 without a namespace: the path does not exist below the mount; a parent is not visible.
        (
            "4:memory:/kubepods/x\n3:cpu:/kubepods/x\n",
            {
                "cpu/cpu.cfs_quota_us": "100000",
                "cpu/cpu.cfs_period_us": "200000",
                "memory/memory.limit_in_bytes": V1_NONE,
                "memory/memory.stat": "cache 0\nhierarchical_memory_limit 7000000\n",
            },
            0.5,
            7000000,
        ),
        # Hybrid: v2 beside v1, which has the controllers.
        (
            "3:cpu:/\n0::/x\n",
            {"unified/x/cpu.stat": "usage_usec 1\n", "unified/x/memory.max": "4000000\n"},
            None,
            4000000,
        ),
        # A cgroup of v2 may be called as a controller of v1.
        ("0::/\n", {**V2, "memory/memory.max": "1\n", "cpu/cpu.max": "1 100000\n"}, None, None),
        ("", {"cpu.max": "nonsense\n", "memory.max": "-\n"}, None, None),
        ("no cgroup\n", {}, None, None),
    ],
)
def test_limits_of_a_container(proc, sys_root, own, files, quota, memory):
    (proc / "self/cgroup").write_text(own)
    write(sys_root / "fs/cgroup", files)
    assert (container.cpu_quota(), container.memory_limit()) == (quota, memory)
    machine = info.read_machine(("cpu",))
    assert (machine.cpu_quota, machine.memory_limit_bytes) == (quota, memory)
    assert machine.memory_bytes == psutil.virtual_memory().total


def test_a_limit_above_the_memory_is_none(sys_root):
    write(sys_root / "fs/cgroup", {**V2, "memory.max": f"{1 << 59}\n"})
    assert info.read_machine(("cpu",)).memory_limit_bytes is None
    assert info.usable_memory() == psutil.virtual_memory().total


def test_free_memory_is_what_the_limits_leave(proc, sys_root):
    (proc / "self/cgroup").write_text("0::/pod/own\n")
    files = {
        "pod/memory.max": "90000000",
        "pod/memory.current": "80000000",
        "pod/memory.stat": "anon 1\ninactive_file 30000000\n",
        "pod/own/memory.max": "50000000",
        "pod/own/memory.current": "1000000",
    }
    write(sys_root / "fs/cgroup", {**V2, **files})
    assert info.available_memory() == 90_000_000 - 50_000_000
    write(sys_root / "fs/cgroup", {"pod/memory.current": "200000000"})
    assert info.available_memory() == 0
    assert info.usable_memory() == 50_000_000


def test_free_memory_below_a_limit_of_v1(proc, sys_root):
    (proc / "self/cgroup").write_text("4:memory:/own\n")
    files = {
        "memory/own/memory.limit_in_bytes": "9000000",
        "memory/own/memory.usage_in_bytes": "5000000",
        "memory/own/memory.stat": "inactive_file 7\ntotal_inactive_file 2000000\n",
    }
    write(sys_root / "fs/cgroup", files)
    assert info.available_memory() == 6_000_000


@pytest.mark.parametrize(
    ("quota", "threads"), [("50000", 1), ("199999", 1), ("250000", 2), ("9900000", 4), ("max", 4)]
)
def test_threads_by_default_fit_into_the_quota(sys_root, monkeypatch, quota, threads):
    monkeypatch.setattr(info, "usable_processors", lambda: 8)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    write(sys_root / "fs/cgroup", {**V2, "cpu.max": f"{quota} 100000\n"})
    assert info.default_threads() == threads
    info.check_threads(8)  # more than the quota is a caution, no refusal


def test_waits_for_the_quota_are_counted(proc, sys_root):
    (proc / "self/cgroup").write_text("0::/pod/own\n")
    root = sys_root / "fs/cgroup"
    write(root, {**V2, "cpu.stat": "usage_usec 5\n"})
    assert NoiseMonitor().conditions().quota_waits is None
    stat = "usage_usec 9\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\n"
    write(root, {"pod/cpu.stat": stat.format(9, 5, 1_000_000)})
    write(root, {"pod/own/cpu.stat": stat.format(9, 2, 500_000)})
    watch = NoiseMonitor()
    assert watch.conditions().quota_waits == 0
    write(root, {"pod/cpu.stat": stat.format(20, 11, 2_500_000)})
    found = watch.conditions()
    assert (found.quota_waits, found.quota_wait_s) == (6, 1.5)


def test_waits_are_counted_once_where_a_link_names_the_folder_again(proc, sys_root):
    (proc / "self/cgroup").write_text("3:cpu,cpuacct:/\n")
    root = sys_root / "fs/cgroup"
    write(root, {"cpu,cpuacct/cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 4000000\n"})
    (root / "cpu").symlink_to("cpu,cpuacct")
    assert container.quota_waits() == (3, 0.004)


def limited(quota, memory=2_000_000_000):
    return on_board(None, cpu_quota=quota, memory_limit_bytes=memory)


def test_limits_are_shown_and_compared():
    record = limited(1.5)
    assert container_limits(record.machine) == "CPU quota 1.5 processors, memory limit 2 GB"
    assert "in a container: CPU quota 1.5 processors, memory limit 2 GB" in details(record)
    assert ("Container", container_limits(record.machine)) in describe(record)
    assert "in a container" not in details(RECORD)
    text = comparison(compare([limited(1.5), limited(None)])[0], 200)
    assert "the CPU quota differs: 1.5 processors against none" in text
    assert "CPU quota" not in comparison(compare([limited(2.0), limited(2.0)])[0], 200)


def test_peaks_under_another_limit_are_other_peaks():
    paths = {
        peaks._cache_path(resolve_paths(), limited(q, m).machine, "cpu", 1, ())
        for q, m in ((None, None), (1.5, None), (0.5, None), (0.5, 2_000_000_000))
    }
    assert len(paths) == 4
    assert peaks._memory(limited(1.5).machine, "cpu") == 2_000_000_000


def test_a_worker_offers_the_memory_that_its_container_may_use(sys_root):
    from edgecap.pipeline.worker import Diagnosed

    write(sys_root / "fs/cgroup", {**V2, "memory.max": "300000000\n"})
    answer = Diagnosed(providers={"cpu": ""}, counters=(), refused=(), totals={})
    offered = dask_worker.read_device_info("board", lambda *a: answer)
    assert offered.memory_bytes == 300_000_000


# --- systems that tell little -----------------------------------------------------------------


def raising(*args, **kwargs):
    raise FileNotFoundError(2, "No such file or directory", "/sys/class/power_supply")


def test_a_system_that_answers_with_errors(monkeypatch, proc, sys_root):
    names = ("sensors_battery", "sensors_temperatures", "cpu_count", "virtual_memory", "cpu_times")
    for name in names:
        monkeypatch.setattr(psutil, name, raising, raising=False)
    monkeypatch.setattr(os, "getloadavg", raising)
    machine = info.read_machine(("cpu",))
    assert "power_supply" in machine.power_source.reason
    assert all(isinstance(x, Absent) for x in (machine.temperature_c, machine.load_average))
    assert machine.physical_cores is None and machine.logical_cores >= 1
    assert machine.memory_bytes > 0 and 0 < info.available_memory() <= machine.memory_bytes
    assert info.default_threads() >= 1
    assert NoiseMonitor().conditions().other_load is None


def test_a_process_that_psutil_does_not_find(monkeypatch):
    def gone(*args):
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "Process", gone)
    assert info.usable_processors() >= 1
    info.check_processors(())
    with pytest.raises(UsageError, match="--affinity 0"):
        info.pin_process((0,))


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and passwd entry, as under `docker run --user 12345`."""

    def unknown(uid):
        raise KeyError(f"uid not found: {uid}")

    for name in ("HOME", "EDGECAP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["profile"],
        ["cache"],
        ["export", "-o", "x"],
        ["worker", "127.0.0.1:1"],
        ["sweep", "--model", "edgecap-ref-xs"],
    ],
)
def test_without_a_home_folder_a_command_says_what_to_set(homeless, command, tmp_path):
    result = CliRunner().invoke(cli, command)
    assert isinstance(result.exception, UsageError), result.output
    assert "set EDGECAP_CACHE" in str(result.exception) and "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_folder_a_given_cache_is_taken(homeless, tmp_path, monkeypatch):
    for name in ("EDGECAP_CACHE", "XDG_CACHE_HOME"):
        with monkeypatch.context() as own:
            own.setenv(name, str(tmp_path))
            assert resolve_paths().cache.is_relative_to(tmp_path)
    done = CliRunner().invoke(cli, ["cache", "--cache", str(tmp_path)])
    assert done.exit_code == 0 and "is empty" in done.output
    record = ROOT / "tests" / "data" / "record-3.json"
    assert CliRunner().invoke(cli, ["show", str(record)]).exit_code == 0


@pytest.mark.parametrize("command", [["tokenizer", "~/x"], ["flops", "--config", "~nobody-here/x"]])
def test_a_path_below_an_unknown_home_is_refused(homeless, command):
    result = CliRunner().invoke(cli, command)
    assert isinstance(result.exception, UsageError)
    assert "give the whole path" in str(result.exception)


def test_a_download_needs_a_place(homeless, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(UsageError, match="set HF_HOME"):
        hub.fetch_model("someone/model", None, ["config.json"])


def test_a_cache_that_cannot_be_made_is_refused_with_advice(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write .*set EDGECAP_CACHE"):
        check_cache(tmp_path / "file" / "cache")
    check_cache(tmp_path)
    check_cache(tmp_path / "new")
    assert not (tmp_path / "new").exists()
