"""How hot the chip is, as Linux tells it."""

from collections.abc import Callable
from pathlib import Path

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry.sensor import Channel, FileSensor, number_in, text_in

_ZONES = Path("/sys/class/thermal")
_PLAUSIBLE_C = (1, 150)
_DUMMY = "PMIC-Die"
"""A zone of the Jetsons up to Xavier that tells 100 degrees at all times."""


def hottest_c(zones: Path = _ZONES) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where there is none that answers.

    On a Jetson that is the junction, which throttling goes by; elsewhere mostly the CPU package.
    """
    try:
        return max(thermal_zones(zones).read().values())
    except DeviceError:
        return None


def thermal_zones(zones: Path = _ZONES) -> FileSensor:
    """The temperature of each zone by its name, "gpu-thermal" or "x86_pkg_temp"."""
    channels: dict[Channel, Callable[[], float]] = {}
    for folder in sorted(zones.glob("thermal_zone*")):
        name = text_in(folder / "type") or folder.name
        if name == _DUMMY:
            continue
        channel = Channel("temperature_c", name)
        taken = channel in channels  # of two sockets both are x86_pkg_temp
        channels[channel._replace(name=f"{name} {folder.name}") if taken else channel] = _reader(folder / "temp")
    return FileSensor("thermal zones", channels)


def _reader(file: Path) -> Callable[[], float]:
    """A unit that is powered down has a zone that cannot be read, or that tells 0 or less."""
    least, most = _PLAUSIBLE_C
    told = number_in(file, 1e-3)

    def read() -> float:
        celsius = told()
        if not least <= celsius <= most:
            raise ValueError(f"{file} tells {celsius:g} degrees")
        return celsius

    return read
