"""Which sensors this machine has, each looked for by its own module; what is not there says why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry_cpu import cpu_clocks
from unblur.runtime.telemetry_rapl import rapl
from unblur.runtime.telemetry_sensor import Sensor
from unblur.runtime.temperature import thermal_zones

_SOURCES: Mapping[str, Callable[[Path], Sensor]] = {
    "RAPL": rapl,
    "thermal zones": lambda root: thermal_zones(root / "sys/class/thermal"),
    "CPU clocks": cpu_clocks,
}


@dataclass(frozen=True)
class Instruments:
    """The sensors that answer, and how the machine is set. not_available: sensor or field -> why it is missing."""

    sensors: tuple[Sensor, ...]
    power_mode: str | None
    jetson_clocks: bool | None
    not_available: Mapping[str, str]


def find_instruments(root: Path = Path("/")) -> Instruments:
    """What the machine whose files lie under `root` has to measure itself with. Reads; changes nothing."""
    sensors, missing = [], {}
    for name, open_sensor in _SOURCES.items():
        try:
            sensor = open_sensor(root)
            sensor.read()
            sensors.append(sensor)
        except DeviceError as error:
            missing[name] = str(error)
    return Instruments(tuple(sensors), None, None, missing)
