"""Whether a Jetson slows itself down, as its firmware tells Linux: the cooling devices named `*-throttle-alert`."""

from collections.abc import Callable
from pathlib import Path

from unblur.runtime.telemetry_sensor import Channel, FileSensor, text_in

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
    return lambda: 100.0 if int(state.read_text()) else 0.0
