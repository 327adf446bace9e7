"""Stand-ins for energy devices: trees of sysfs,
and vendor libraries with their own names and units.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import uuid
from contextlib import contextmanager
from types import SimpleNamespace

# --- sysfs ------------------------------------------------------------------------------------


def write(folder, **files):
    """A folder with one small file for each keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(root, name, kind, energy_uj=0, wrap=262_143_328_850):
    """A powercap zone."""
    return write(
        root / "class/powercap" / name, name=kind, energy_uj=energy_uj, max_energy_range_uj=wrap
    )


def hwmon(root, number, name, **files):
    return write(root / f"class/hwmon/hwmon{number}", name=name, **files)


def supply(root, name, kind, **files):
    return write(root / f"class/power_supply/{name}", type=kind, **files)


def dangling(root, name, target):
    """A link of sysfs to a device that the container does not show."""
    link = root / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    return link


# Counts each zone at its own power, as a kernel does: a number that is always whole, wrapping at
# its range.
_DRIVER = """
import sys, time
zones = [(open(path, "r+"), float(watts), int(start), int(wrap)) for path, watts, start, wrap in
         (z.split("|") for z in sys.argv[1:])]
begun = time.monotonic()
print("counting", flush=True)
while True:
    for file, watts, start, wrap in zones:
        file.seek(0)
        file.write(f"{(start + int((time.monotonic() - begun) * watts * 1e6)) % wrap:020d}\\n")
        file.flush()
    time.sleep(0.002)
"""


@contextmanager
def driven(*zones):
    """A second process that lets zones, (folder, watts, start_uj, wrap_uj), count."""
    texts = [
        f"{folder / 'energy_uj'}|{watts}|{start}|{wrap}" for folder, watts, start, wrap in zones
    ]
    process = subprocess.Popen([sys.executable, "-c", _DRIVER, *texts], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# --- NVIDIA: nvidia-ml-py, mJ and mW ----------------------------------------------------------


class NVMLError(Exception):
    pass


def told(board, key):
    """Return what a board tells, or raise the error of one that does not."""
    if key not in board:
        raise NVMLError("Not Supported")
    return board[key]


class FakeNvml:
    """Boards as dicts: name, uuid, mig, and watts; `counts` says whether energy is counted.

    `bus`, `memory` (total and used bytes), `busy` (percent), `limit_w`, `users` ({pid: bytes}),
    `loads` ({pid: percent}), `mhz`, `most_mhz` and `slowed` (bits) are told if they are there;
    `instances` are dicts like boards, with `slices` of a MIG profile.
    """

    NVML_TOTAL_POWER_SAMPLES, NVML_CLOCK_SM = 0, 1

    def __init__(self, clock, *boards, driver=True):
        self.clock, self.boards, self.driver = clock, boards, driver

    def nvmlInit(self):
        if not self.driver:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self):
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index):
        if self.boards[index].get("lost"):
            raise NVMLError("GPU is lost")
        return self.boards[index]

    def nvmlDeviceGetUUID(self, board):
        return board["uuid"]

    def nvmlDeviceGetName(self, board):
        return board.get("name", "NVIDIA Fake").encode()

    def nvmlShutdown(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return b"580.159"

    def nvmlDeviceGetPciInfo(self, board):
        return SimpleNamespace(busId=told(board, "bus").encode())

    def nvmlDeviceGetMemoryInfo(self, board):
        total, used = told(board, "memory")
        return SimpleNamespace(total=total, used=used, free=total - used)

    def nvmlDeviceGetUtilizationRates(self, board):
        return SimpleNamespace(gpu=told(board, "busy"), memory=0)

    def nvmlDeviceGetEnforcedPowerLimit(self, board):
        return int(told(board, "limit_w") * 1e3)

    def nvmlDeviceGetComputeRunningProcesses(self, board):
        users = told(board, "users")
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in users.items()]

    def nvmlDeviceGetProcessUtilization(self, board, since_us):
        loads = told(board, "loads")
        return [SimpleNamespace(pid=pid, smUtil=load) for pid, load in loads.items()]

    def nvmlDeviceGetClockInfo(self, board, kind):
        return told(board, "mhz")

    def nvmlDeviceGetMaxClockInfo(self, board, kind):
        return told(board, "most_mhz")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, board):
        return told(board, "slowed")

    def nvmlDeviceGetMaxMigDeviceCount(self, board):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board, index):
        if index >= len(board["instances"]):
            raise NVMLError("Not Found")
        return board["instances"][index]

    def nvmlDeviceGetAttributes(self, board):
        compute, whole = told(board, "slices")
        return SimpleNamespace(
            computeInstanceSliceCount=compute,
            gpuInstanceSliceCount=whole,
            memorySizeMB=board["memory"][0] / 2**20,
        )

    def nvmlDeviceGetMigMode(self, board):
        if "mig" not in board:
            raise NVMLError("Not Supported")
        return [board["mig"], board["mig"]]

    def nvmlDeviceGetTotalEnergyConsumption(self, board):
        if not board.get("counts", True):
            raise NVMLError("Not Supported")
        return int(1e9 + self.clock() * board["watts"] * 1e3)

    def nvmlDeviceGetPowerUsage(self, board):
        if "watts" not in board:
            raise NVMLError("Not Supported")
        return int(board["watts"] * 1e3)

    def nvmlDeviceGetSamples(self, board, kind, since):
        if "period_us" not in board:
            raise NVMLError("Not Supported")
        return 1, [SimpleNamespace(timeStamp=1_000_000 + i * board["period_us"]) for i in range(20)]


class FakeCuda:
    """The driver's library: devices by their UUIDs, in CUDA's order; `status` is that of cuInit."""

    def __init__(self, *uuids, status=0):
        self.uuids, self.status = uuids, status

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.uuids)
        return 0

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal
        return 0

    def cuDeviceGetUuid_v2(self, raw, device):
        raw._obj[:] = uuid.UUID(self.uuids[device.value].partition("-")[2]).bytes
        return 0


# --- AMD: amdsmi, counts x counter_resolution in µJ, W ----------------------------------------


class FakeAmdsmi:
    """Boards as dicts: watts, hip_id; `factor` makes the count wrong,
    `old` names it as before 6.2.1.
    """

    RESOLUTION = 15.3

    def __init__(self, clock, *boards):
        self.clock, self.boards = clock, boards

    def amdsmi_init(self):
        pass

    def amdsmi_get_processor_handles(self):
        return list(self.boards)

    def amdsmi_get_gpu_enumeration_info(self, board):
        if board["hip_id"] is None:
            raise RuntimeError("AMDSMI_STATUS_NOT_SUPPORTED")
        return {"hip_id": board["hip_id"]}

    def amdsmi_get_energy_count(self, board):
        count = int(self.clock() * board["watts"] * board.get("factor", 1) * 1e6 / self.RESOLUTION)
        field = "power" if board.get("old") else "energy_accumulator"
        return {field: count, "counter_resolution": self.RESOLUTION, "timestamp": 0}

    def amdsmi_get_power_info(self, board):
        return {
            "socket_power": "N/A",
            "current_socket_power": "N/A",
            "average_socket_power": int(board["watts"]),
        }


# --- Apple: zeus_apple_silicon, mJ ------------------------------------------------------------


class FakeApple:
    """A chip with 3 W of cores, 5 W of GPU and 1 W of memory, and no neural engine."""

    def __init__(self, clock):
        self.clock = clock

    def AppleEnergyMonitor(self):
        return self

    def get_cumulative_energy(self):
        now = self.clock()
        return SimpleNamespace(
            cpu_total_mj=int(3000 * now),
            efficiency_cores_mj=[int(500 * now)] * 4,
            gpu_mj=int(5000 * now),
            gpu_sram_mj=int(100 * now),
            dram_mj=int(1000 * now),
            ane_mj=None,
        )


# --- Windows: emi.h, picowatt-hours -----------------------------------------------------------


def _wide(text, size=None):
    raw = (text + "\0").encode("utf-16-le")
    return raw if size is None else raw.ljust(size, b"\0")


class FakeEmi:
    """A device of `channels`, {name: watts}; version 1 has one channel."""

    def __init__(self, clock, channels, version=2):
        self.clock, self.channels, self.version = clock, channels, version

    def metadata(self):
        oem, model = _wide("OEM", 32), _wide("Model", 32)
        if self.version == 1:
            name = _wide(next(iter(self.channels)))
            return struct.pack("<I", 0) + oem + model + struct.pack("<HH", 1, len(name)) + name
        names = [_wide(n) for n in self.channels]
        packed = b"".join(struct.pack("<IH", 0, len(n)) + n for n in names)
        return oem + model + struct.pack("<HH", 1, len(names)) + packed

    def __call__(self, code, size):
        pairs = (
            struct.pack("<QQ", int(w * self.clock() / 3.6e-9), 0) for w in self.channels.values()
        )
        answers = {
            0x224000: lambda: struct.pack("<H", self.version),
            0x224004: lambda: struct.pack("<I", len(self.metadata())),
            0x224008: self.metadata,
            0x22400C: lambda: b"".join(pairs),
        }
        answer = answers[code]()
        assert len(answer) == size
        return answer


PMIC = """    3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.20000000A
  VDD_CORE_A current(7)=2.00000000A
   3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00500000V
"""
