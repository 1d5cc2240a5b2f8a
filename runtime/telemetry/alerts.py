"""Whether a Jetson slows itself down, as its firmware tells Linux: the cooling devices named `*-throttle-alert`."""

from collections.abc import Callable
from pathlib import Path

from unblur.runtime.telemetry.sensor import Channel, FileSensor, number_in, text_in

_ALERT = "-throttle-alert"


def throttle_alerts(root: Path) -> FileSensor:
    """100 while the unit is slowed down, else 0, for "gpu", "cpu" and the like. Orin and later have them."""
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    kinds = ((text_in(device / "type"), device / "cur_state") for device in devices)
    alerts = {
        Channel("throttled_percent", kind.removesuffix(_ALERT)): _reader(state)
        for kind, state in kinds
        if kind.endswith(_ALERT)
    }
    return FileSensor("throttle alerts", alerts)


def _reader(state: Path) -> Callable[[], float]:
    read = number_in(state)
    return lambda: 100.0 if read() else 0.0
