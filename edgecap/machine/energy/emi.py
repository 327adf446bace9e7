"""Windows' Energy Meter Interface: RAPL channels since Windows 11, and built-in meters.

    RAPL_Package0_PKG          counted
    RAPL_Package0_DRAM         counted: not in its package
    RAPL_Package0_PP0, _PP1    cores and graphics: part of the package
    RAPL_Package0_Core3_CORE   likewise, each on its own device
    RAPL_..._PSYS              the whole platform: a counter of its own

Energy is in picowatt-hours, 3.6e-9 J. A processor of several dies may show its one counter several
times: a package whose value lies between two readings of another one is the same counter.
Source: Microsoft, emi.h (EMI_METADATA_V1/V2, EMI_CHANNEL_V2, EMI_MEASUREMENT_DATA_V1/V2).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgecap.machine.energy.failures import unreadable
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PICOWATT_HOUR_J = 3.6e-9
# CTL_CODE(FILE_DEVICE_UNKNOWN, 0..3, METHOD_BUFFERED, FILE_READ_ACCESS)
GET_VERSION, GET_METADATA_SIZE, GET_METADATA, GET_MEASUREMENT = (
    0x224000,
    0x224004,
    0x224008,
    0x22400C,
)
_GUID = "{45BD8344-7ED6-49CF-A440-C276C933B053}"  # GUID_DEVICE_ENERGY_METER
_RAPL = re.compile(r"RAPL_Package(?P<package>\d+)(?:_Die\d+)?_(?P<part>\w+)\Z", re.IGNORECASE)

EmiQuery = Callable[[int, int], bytes]  # takes a control code and the size of the reply


class EmiChannel(NamedTuple):
    """One channel: its name, and a function that reads its joules."""

    name: str
    joules: Callable[[], float]


def channel_names(version: int, metadata: bytes) -> list[str]:
    """Parse the names of a device's channels from its EMI_METADATA_V1 or _V2."""
    if version == 1:  # unit, OEM[16], model[16], revision, name size, name
        (size,) = struct.unpack_from("<H", metadata, 70)
        return [_wide(metadata[72 : 72 + size])]
    (count,) = struct.unpack_from("<H", metadata, 66)  # OEM[16], model[16], revision, count
    names, at = list[str](), 68
    for _ in range(count):  # unit, name size, name
        _, size = struct.unpack_from("<IH", metadata, at)
        names.append(_wide(metadata[at + 6 : at + 6 + size]))
        at += 6 + size
    return names


def _wide(raw: bytes) -> str:
    return raw.decode("utf-16-le").split("\0")[0]


def channel_joules(measurement: bytes, channel: int) -> float:
    """Parse the joules of a channel from EMI_MEASUREMENT_DATA.

    The data is pairs of energy and time (100 ns), 8 bytes each.
    """
    (energy,) = struct.unpack_from("<Q", measurement, 16 * channel)
    return float(energy * PICOWATT_HOUR_J)


def device_channels(ask: EmiQuery) -> list[EmiChannel]:
    """Query the channels of one device."""
    (version,) = struct.unpack("<H", ask(GET_VERSION, 2))
    (size,) = struct.unpack("<I", ask(GET_METADATA_SIZE, 4))
    names = channel_names(version, ask(GET_METADATA, size))

    def reader(place: int) -> Callable[[], float]:
        return lambda: channel_joules(ask(GET_MEASUREMENT, 16 * len(names)), place)

    return [EmiChannel(name, reader(i)) for i, name in enumerate(names)]


def open_emi(devices: Sequence[EmiQuery] | None = None) -> list[Counter | LeftOut]:
    """Open packages and memory as one counter, psys as another; a LeftOut for the rest."""
    channels, failed = list[EmiChannel](), list[LeftOut]()
    for number, ask in enumerate(_devices() if devices is None else devices):
        try:
            channels += device_channels(ask)
        except Exception as error:  # what it would show is not known: it may be a package
            failed.append(unreadable(f"emi device {number}", "processor", error))
    lost = {c: why for c in channels if (why := _try_channel(c))}
    failed += lost.values()
    counted, psys, left_out = _classify([c for c in channels if c not in lost])
    left_out += failed
    if not any(name.startswith("package") for name in counted):
        return [_missing(_no_package(failed)), *left_out]
    counters: list[Counter | LeftOut] = [_counter("emi", "processor", counted)]
    return counters + ([_counter("emi-psys", "platform", psys)] if psys else []) + left_out


def _try_channel(channel: EmiChannel) -> LeftOut | None:
    """Read a channel once; return a LeftOut if it cannot be read, missing if it belongs there."""
    try:
        channel.joules()
    except Exception as error:
        belongs = _role(channel.name)[0] not in ("", "psys")
        return unreadable(f"emi {channel.name}", "processor", error, belongs)
    return None


def _no_package(failed: Sequence[LeftOut]) -> str:
    if failed:
        return f"the energy meter interface: {failed[0].name}: {failed[0].reason}"
    return "no channel of a processor package (Windows 11 shows RAPL's)"


def _missing(reason: str) -> LeftOut:
    return LeftOut(name="emi", reason=reason, scope="processor", missing=True)


def _counter(name: str, scope: str, counted: dict[str, EmiChannel]) -> CumulativeCounter:
    reads = [c.joules for c in counted.values()]
    return CumulativeCounter(
        name, scope, list(counted), lambda: [r() for r in reads], PICOWATT_HOUR_J
    )


def _classify(
    channels: list[EmiChannel],
) -> tuple[dict[str, EmiChannel], dict[str, EmiChannel], list[LeftOut]]:
    """Return the channels of the total by domain, psys, and the others with a reason."""
    counted, psys, left_out = dict[str, EmiChannel](), dict[str, EmiChannel](), list[LeftOut]()
    for channel in channels:
        domain, reason = _role(channel.name)
        if domain == "psys":
            psys.setdefault("psys", channel)
            continue
        if domain in counted:
            domain, reason = _second_die(domain, channel, counted)
        if domain:
            counted[domain] = channel
        else:
            left_out.append(LeftOut(name=f"emi {channel.name}", reason=reason, scope="processor"))
    return counted, psys, left_out


def _role(name: str) -> tuple[str, str]:
    """Return the domain that a channel counts, or "" and the reason why it is left out."""
    match = _RAPL.match(name)
    if not match:
        return "", "neither a processor package nor its memory"
    part = match["part"].upper()
    if part == "PSYS":
        return "psys", ""
    domains = {"PKG": f"package-{match['package']}", "DRAM": f"dram-{match['package']}"}
    return domains.get(part, ""), "part of its package, never added to it"


def _second_die(
    domain: str, channel: EmiChannel, counted: dict[str, EmiChannel]
) -> tuple[str, str]:
    """Return the domain of a second channel: another die, or "" if it is the same counter."""
    dies = [c for name, c in counted.items() if name == domain or name.startswith(f"{domain}-die-")]
    for other in dies:
        first, between, last = other.joules(), channel.joules(), other.joules()
        if 0 < first <= between <= last:
            return (
                "",
                f"shows the same number as {domain}: one counter of the socket, seen from each die",
            )
    return f"{domain}-die-{len(dies)}", ""


# --- the device interface ---------------------------------------------------------------------


def _devices() -> list[EmiQuery]:  # pragma: no cover - Windows only
    """Open each energy meter that Windows lists (CM_Get_Device_Interface_List)."""
    import ctypes

    library: Any = ctypes.windll  # type: ignore[attr-defined]
    guid = (ctypes.c_byte * 16)()
    if library.ole32.CLSIDFromString(ctypes.c_wchar_p(_GUID), ctypes.byref(guid)):
        raise OSError("Windows does not know the energy meter interface")
    size = ctypes.c_ulong(0)
    library.cfgmgr32.CM_Get_Device_Interface_List_SizeW(
        ctypes.byref(size), ctypes.byref(guid), None, 0
    )
    names = ctypes.create_unicode_buffer(max(1, size.value))
    library.cfgmgr32.CM_Get_Device_Interface_ListW(ctypes.byref(guid), None, names, size, 0)
    paths = "".join(names[: size.value]).split("\0")
    return [_open_or_raise_later(library.kernel32, path) for path in paths if path]


def _open_or_raise_later(kernel32: Any, path: str) -> EmiQuery:  # pragma: no cover - Windows only
    """Open a device; one that cannot be opened raises when it is asked, alone."""
    try:
        return _open_device(kernel32, path)
    except OSError as error:
        reason = str(error)

    def ask(code: int, size: int) -> bytes:
        raise OSError(reason)

    return ask


def _open_device(kernel32: Any, path: str) -> EmiQuery:  # pragma: no cover - Windows only
    import ctypes

    generic_read, share_read_write, open_existing = 0x80000000, 0x3, 3
    kernel32.CreateFileW.restype = ctypes.c_void_p
    handle = kernel32.CreateFileW(
        path, generic_read, share_read_write, None, open_existing, 0, None
    )
    if handle in (None, ctypes.c_void_p(-1).value):
        raise OSError(f"{path} cannot be opened (error {kernel32.GetLastError()})")

    def ask(code: int, size: int) -> bytes:
        reply, size_read = ctypes.create_string_buffer(size), ctypes.c_ulong(0)
        done = kernel32.DeviceIoControl(
            ctypes.c_void_p(handle), code, None, 0, reply, size, ctypes.byref(size_read), None
        )
        if not done:
            raise OSError(f"{path} does not reply to {code:#x} (error {kernel32.GetLastError()})")
        return reply.raw[: size_read.value]

    return ask
