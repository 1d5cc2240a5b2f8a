"""How hot the chip is, as Linux tells it."""

from pathlib import Path

_ZONES = Path("/sys/class/thermal")
_PLAUSIBLE_C = (1, 150)
_UNKNOWN_C = -273.15


def hottest_c(zones: Path = _ZONES) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where there is none that answers.

    On a Jetson that is the junction, which throttling goes by; elsewhere mostly the CPU package.
    """
    least, most = _PLAUSIBLE_C
    readings = [_read_c(file) for file in zones.glob("thermal_zone*/temp")]
    return max((celsius for celsius in readings if least <= celsius <= most), default=None)


def _read_c(file: Path) -> float:
    """A unit that is powered down has a zone that cannot be read, or that tells 0 or less."""
    try:
        return int(file.read_text()) / 1e3
    except (OSError, ValueError):
        return _UNKNOWN_C
