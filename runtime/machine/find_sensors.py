"""Which sensors this machine has, each looked for by its own module; what is not there says why."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.jetson_sensors import (
    Tegrastats,
    is_jetson,
    jetson_clocks,
    power_mode,
    rails,
    throttle_alerts,
)
from unblur.runtime.machine.sensors import Quantity, Sensor, clocks, rapl, thermal_zones

T = TypeVar("T")

_FILES: Mapping[str, Callable[[Path], Sensor]] = {
    "power rails": rails,
    "RAPL": rapl,
    "thermal zones": lambda root: thermal_zones(root / "sys/class/thermal"),
    "clocks": clocks,
    "throttle alerts": throttle_alerts,
}


@dataclass(frozen=True)
class Instruments:
    """The sensors that answer, and how the machine is set. not_available: sensor or field -> why it is missing."""

    sensors: tuple[Sensor, ...]
    power_mode: str | None
    jetson_clocks: bool | None
    not_available: Mapping[str, str]


def open_nvml() -> Sensor:
    """The sensors of NVIDIA's driver. DeviceError if there is none, or not the package that asks it."""
    try:
        from unblur.runtime.machine.nvml import Nvml
    except ImportError as error:
        raise DeviceError("there is no Python package nvidia-ml-py: pip install 'unblur[telemetry]'") from error
    return Nvml()


def find_instruments(
    root: Path = Path("/"),
    *,
    nvml: Callable[[], Sensor] = open_nvml,
    tegrastats: Callable[[Collection[Quantity]], Sensor] = Tegrastats,
) -> Instruments:
    """What the machine whose files lie under `root` measures itself with; nothing of it is changed.

    tegrastats is started only on a Jetson that shows no power rails, for what no other sensor tells.
    """
    missing: dict[str, str] = {}
    openers = {name: partial(opener, root) for name, opener in _FILES.items()} | {"NVML": nvml}
    opened = [_unless_missing(name, partial(_open, opener), missing) for name, opener in openers.items()]
    found = [each for each in opened if each is not None]
    if "power rails" in missing and is_jetson(root):
        told = frozenset[Quantity]().union(*(quantities for _, quantities in found))
        fallback = _unless_missing("tegrastats", partial(_open, partial(tegrastats, told)), missing)
        found += [fallback] if fallback is not None else []
    return Instruments(
        sensors=tuple(sensor for sensor, _ in found),
        power_mode=_unless_missing("power_mode", partial(power_mode, root), missing),
        jetson_clocks=_unless_missing("jetson_clocks", partial(jetson_clocks, root), missing),
        not_available=missing,
    )


def _open(opener: Callable[[], Sensor]) -> tuple[Sensor, frozenset[Quantity]]:
    """A sensor that answers, and what it tells; one that does not is closed."""
    sensor = opener()
    try:
        return sensor, frozenset(channel.quantity for channel in sensor.read())
    except DeviceError:
        sensor.close()
        raise


def _unless_missing(name: str, get: Callable[[], T], missing: dict[str, str]) -> T | None:
    """What `get` gives; None where it raises DeviceError, whose text goes to `missing`."""
    try:
        return get()
    except DeviceError as error:
        missing[name] = str(error)
        return None
