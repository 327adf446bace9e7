"""The commands that let a user read a counter, by distribution; printed, never run.

Sources: udev(7), tmpfiles.d(5); the Linux kernel since 5.10 lets only root read powercap energy,
against the PLATYPUS attack (CVE-2020-8694).
"""

from __future__ import annotations

from pathlib import Path

_UNTIL_BOOT = "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"
_RULE = 'SUBSYSTEM=="powercap", ACTION=="add", RUN+="{chmod} a+r /sys%p/energy_uj"'
_WITH_UDEV = (
    "echo '{rule}' | sudo tee /etc/udev/rules.d/60-edgecap-powercap.rules"
    " && sudo udevadm control --reload"
    " && sudo udevadm trigger --subsystem-match=powercap --action=add"
)
# Commands that keep the permission after a reboot, by ID or ID_LIKE of /etc/os-release.
_PERMANENT = {
    "debian": _WITH_UDEV.format(rule=_RULE.format(chmod="/bin/chmod")),
    "fedora": _WITH_UDEV.format(rule=_RULE.format(chmod="/usr/bin/chmod")),
    "rhel": _WITH_UDEV.format(rule=_RULE.format(chmod="/usr/bin/chmod")),
    "suse": _WITH_UDEV.format(rule=_RULE.format(chmod="/usr/bin/chmod")),
    "arch": _WITH_UDEV.format(rule=_RULE.format(chmod="/usr/bin/chmod")),
    "nixos": "services.udev.extraRules = ''"
    + _RULE.format(chmod="/run/current-system/sw/bin/chmod")
    + "''; in configuration.nix, then sudo nixos-rebuild switch",
    "alpine": f"echo '{_UNTIL_BOOT.removeprefix('sudo ')}' | sudo tee /etc/local.d/edgecap.start"
    " && sudo chmod +x /etc/local.d/edgecap.start && sudo rc-update add local",
}


def powercap_remedy(zone: Path) -> str:
    """Return why an existing zone cannot be read, and the command that helps."""
    return (
        f"{zone / 'energy_uj'} is not readable by this user; let your user read it: {_UNTIL_BOOT}"
    )


def powercap_commands(os_release: str = "") -> tuple[str, str]:
    """Return the command that grants access until the next boot, and the one that keeps it.

    `os_release` is the text of /etc/os-release.
    """
    lines = (line.partition("=") for line in os_release.splitlines())
    fields = {key: value.strip("\"'") for key, _, value in lines}
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    families = [
        f for n in names for f in _PERMANENT if n == f or n.startswith("opensuse") and f == "suse"
    ]
    return _UNTIL_BOOT, _PERMANENT[families[0]] if families else _PERMANENT["debian"]


def video_group_command(user: str) -> str:
    """Return the command that lets a user read GPU and firmware devices (AMD GPUs, vcgencmd)."""
    return f"sudo usermod -aG render,video {user}   # then log in again"
