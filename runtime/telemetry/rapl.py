"""The counters of energy in Intel's and AMD's processors (RAPL), through the kernel's powercap files.

https://docs.kernel.org/power/powercap/powercap.html. Since CVE-2020-8694 most systems let only root read them.
"""

from collections.abc import Callable
from pathlib import Path

from unblur.runtime.telemetry.sensor import Channel, FileSensor, text_in

_J_FROM_UJ = 1e-6


def rapl(root: Path) -> FileSensor:
    """The energy of each zone: "CPU package-0", its part "package-0 dram", and "platform", the whole machine."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))  # so are AMD's called
    return FileSensor("RAPL", {Channel("energy_j", _name(zone)): _unwrapped(zone) for zone in zones})


def _name(zone: Path) -> str:
    """intel-rapl:0 is a package or the platform, intel-rapl:0:1 a part of it."""
    name = text_in(zone / "name")
    whole = zone.name.rpartition(":")[0]
    if ":" in whole:
        return f"{text_in(zone.with_name(whole) / 'name')} {name}"
    return "platform" if name == "psys" else f"CPU {name}"


def _unwrapped(zone: Path) -> Callable[[], float]:
    """A function that reads joules and never starts again at zero; it must be called in each round of the counter.

    A round, max_energy_range_uj, is 262 kJ on many processors: 17 minutes at 250 W.
    """
    last_uj = passed_uj = 0

    def read() -> float:
        nonlocal last_uj, passed_uj
        now_uj = int((zone / "energy_uj").read_text())
        if now_uj < last_uj:
            passed_uj += int((zone / "max_energy_range_uj").read_text())
        last_uj = now_uj
        return (passed_uj + now_uj) * _J_FROM_UJ

    return read
