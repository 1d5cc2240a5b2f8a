"""How a Jetson is set: the mode that nvpmodel gave it, and whether jetson_clocks fixed its clocks. Nothing is run.

`jetson_clocks --show` needs root and prints the same files.
"""

import re
from pathlib import Path

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry.clocks import cpu_policies, jetson_gpus
from unblur.runtime.telemetry.sensor import text_in

_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")
_DEFAULT = re.compile(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>")
_STATUS = re.compile(r"\bpmode:(\d+)")


def is_jetson(root: Path) -> bool:
    """By the chip that the device tree names; containers see it too."""
    return "nvidia,tegra" in text_in(root / "proc/device-tree/compatible")


def power_mode(root: Path) -> str:
    """ "MAXN", "15W" or "MAXN_SUPER": of nvpmodel. DeviceError where there is none."""
    known = text_in(root / "etc/nvpmodel.conf")
    if not known:
        raise DeviceError("there is no /etc/nvpmodel.conf" if is_jetson(root) else "this is no Jetson")
    chosen = _STATUS.search(text_in(root / "var/lib/nvpmodel/status")) or _DEFAULT.search(known)
    names: dict[int, str] = {int(number): name for number, name in _MODE.findall(known)}
    if chosen is None or int(chosen[1]) not in names:
        raise DeviceError("/etc/nvpmodel.conf does not name the mode that /var/lib/nvpmodel/status tells")
    return names[int(chosen[1])]


def jetson_clocks(root: Path) -> bool:
    """Whether the lowest clock that CPU and GPU may take is the highest. DeviceError where this is no Jetson."""
    if not is_jetson(root):
        raise DeviceError("this is no Jetson")
    limits = [(text_in(cpu / "scaling_min_freq"), text_in(cpu / "scaling_max_freq")) for cpu in cpu_policies(root)]
    limits += [(text_in(gpu / "min_freq"), text_in(gpu / "max_freq")) for gpu in jetson_gpus(root)]
    known = [(low, high) for low, high in limits if low and high]
    if not known:
        raise DeviceError("the limits of the clocks cannot be read here")
    return all(low == high for low, high in known)
