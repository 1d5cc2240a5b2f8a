"""Intel's and AMD's counters of energy (RAPL), through the kernel's powercap files.

https://docs.kernel.org/power/powercap/powercap.html. Since CVE-2020-8694 only root may read them.
"""

from collections.abc import Callable
from pathlib import Path

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry_sensor import Channel, FileSensor, text_in

_MICRO = 1e-6
_ROOT_ONLY = "only root may read {file}; run as root, or let the administrator chmod a+r it"


def rapl(root: Path) -> FileSensor:
    """Energy of each zone: "CPU package-0", "package-0 core", "platform" (psys: the whole machine).

    Raises DeviceError if there are no such counters, or none for this user.
    """
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))  # AMD's too are called intel-rapl
    if not zones:
        raise DeviceError("this processor or its hypervisor shows no counters of energy")
    try:
        zones[0].joinpath("energy_uj").read_text()
    except PermissionError as error:
        raise DeviceError(_ROOT_ONLY.format(file=zones[0] / "energy_uj")) from error
    counters = {Channel("energy_j", _name(zone)): _unwrapped(zone) for zone in zones}
    return FileSensor("RAPL", counters)


def _name(zone: Path) -> str:
    """intel-rapl:0 is a package or the platform, intel-rapl:0:1 a part of the package intel-rapl:0."""
    name, _, part = zone.name.partition(":")[2].partition(":")
    own = text_in(zone / "name")
    if part:
        return f"{text_in(zone.with_name(f'intel-rapl:{name}') / 'name')} {own}"
    return "platform" if own == "psys" else f"CPU {own}"


def _unwrapped(zone: Path) -> Callable[[], float]:
    """A function that reads a counter as one that never starts again; it must be called within each of its rounds.

    A round is max_energy_range_uj, 262 kJ on most: 17 minutes at 250 W.
    """
    file, last_uj, passed_uj = zone / "energy_uj", None, 0
    round_uj = int(text_in(zone / "max_energy_range_uj") or 0)

    def read() -> float:
        nonlocal last_uj, passed_uj
        now_uj = int(file.read_text())
        if last_uj is not None and now_uj < last_uj:
            passed_uj += round_uj
        last_uj = now_uj
        return (passed_uj + now_uj) * _MICRO

    return read
