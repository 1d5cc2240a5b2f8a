"""What a sensor is: a source of numbers, each with a quantity and a name, that may fall silent at any time."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from unblur.runtime.errors import DeviceError

Quantity = Literal["power_w", "energy_j", "temperature_c", "clocks_mhz", "load_percent", "throttled_percent"]
"""energy_j counts up from anywhere. throttled_percent is 100 while a reason to throttle is there, else 0."""


class Channel(NamedTuple):
    """One number of a sensor. name: of the rail, zone, unit or reason, as the machine calls it."""

    quantity: Quantity
    name: str


class Sensor(Protocol):
    """See `FileSensor` for the one that most are. name: for people, "RAPL"."""

    @property
    def name(self) -> str: ...

    def read(self) -> Mapping[Channel, float]:
        """What the channels say now; those that do not answer are left out. DeviceError if none does."""
        ...

    def close(self) -> None: ...


class FileSensor:
    """Channels that are files of the kernel, by functions that read one; they may raise OSError or ValueError."""

    def __init__(self, name: str, channels: Mapping[Channel, Callable[[], float]]) -> None:
        self.name = name
        self._channels = channels

    def read(self) -> dict[Channel, float]:
        """See Sensor: a unit that is powered down has files that cannot be read."""
        values: dict[Channel, float] = {}
        problem = "the kernel shows none"
        for channel, read in self._channels.items():
            try:
                values[channel] = read()
            except PermissionError as error:
                problem = f"only root may read {error.filename}"
            except (OSError, ValueError) as error:
                problem = str(error)
        if not values:
            raise DeviceError(problem)
        return values

    def close(self) -> None: ...


def number_in(file: Path, scale: float = 1.0) -> Callable[[], float]:
    """A function that reads the number in a file, times `scale`."""
    return lambda: float(file.read_bytes()) * scale  # half the time of read_text, and there may be hundreds


def text_in(file: Path) -> str:
    """What a file of the kernel says, without the end of its line; "" if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
