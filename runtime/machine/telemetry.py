"""Power, clocks and temperature during a run, from the sensors of the machine.

    with Telemetry() as telemetry:
        ...  # restore frames
    telemetry.summary(frames=250).joules_per_frame

What no sensor reports is None, with the reason in `not_available`; it is never zero.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.jetson_sensors import (
    Tegrastats,
    is_jetson,
    jetson_clocks,
    power_mode,
    rails,
    throttle_alerts,
)
from unblur.runtime.machine.sensors import (
    Channel,
    Quantity,
    Sensor,
    clocks,
    rapl,
    thermal_zones,
    total_rails,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """mean: over time. max: of the readings; for an energy counter, of the means between two readings."""

    mean: float
    max: float


class Meter:
    """Integrates a gauge by the trapezoidal rule. integral: value times seconds."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.integral = 0.0
        self._first_s = 0.0
        self._last = 0.0
        self._max: float | None = None

    def add(self, at_s: float, value: float) -> float | None:
        """Add a reading; returns the value to plot."""
        if self._max is None:
            self._first_s, self._max = at_s, value
        else:
            self.integral += (at_s - self.last_s) * (self._last + value) / 2
            self._max = max(self._max, value)
        self.last_s, self._last = at_s, value
        return value

    @property
    def spread(self) -> Spread | None:
        """None before the first reading."""
        if self._max is None:
            return None
        seconds = self.last_s - self._first_s
        return Spread(self.integral / seconds if seconds > 0 else self._last, self._max)


class EnergyMeter:
    """Turns a counter of joules into watts. integral: joules, without gaps between readings."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.integral = 0.0
        self._first_s: float | None = None
        self._last_j = 0.0
        self._max_w: float | None = None

    def add(self, at_s: float, joules: float) -> float | None:
        """Add a reading; returns the mean watts since the one before, None for the first."""
        watts = None
        if self._first_s is None:
            self._first_s = at_s
        elif at_s > self.last_s:
            used = joules - self._last_j
            watts = used / (at_s - self.last_s)
            self.integral += used
            self._max_w = watts if self._max_w is None else max(self._max_w, watts)
        self.last_s, self._last_j = at_s, joules
        return watts

    @property
    def spread(self) -> Spread | None:
        """In watts; None before the second reading."""
        if self._first_s is None or self._max_w is None:
            return None
        return Spread(self.integral / (self.last_s - self._first_s), self._max_w)


def meter_of(quantity: Quantity) -> Meter | EnergyMeter:
    """An empty meter for channels of that quantity."""
    return EnergyMeter() if quantity == "energy_j" else Meter()


MOST_READINGS = 1024


class Reading(NamedTuple):
    """The values of the channels at one time. seconds: since the run began. An energy counter appears as power."""

    seconds: float
    values: Mapping[Channel, float]


class Record:
    """Readings in order of time. last_s, samples: so far.

    readings: at most 1024, spread over the run. When full, every second one is dropped.
    """

    def __init__(self) -> None:
        self.last_s = 0.0
        self.samples = 0
        self.readings: list[Reading] = []
        self._keep_every = 1
        self._meters: dict[Channel, Meter | EnergyMeter] = {}

    def add(self, seconds: float, values: Mapping[Channel, float]) -> None:
        """Add the values of the channels that answered."""
        shown = {}
        for channel, value in values.items():
            reading = self._meters.setdefault(channel, meter_of(channel.quantity)).add(seconds, value)
            if reading is not None:
                shown[_as_power(channel)] = reading
        if self.samples % self._keep_every == 0:
            self.readings.append(Reading(seconds, shown))
        if len(self.readings) == MOST_READINGS:
            del self.readings[1::2]
            self._keep_every *= 2
        self.last_s, self.samples = seconds, self.samples + 1

    def spreads(self, quantity: Quantity) -> dict[str, Spread] | None:
        """By channel name, for one quantity; None without such a channel. Energy counters count as power_w."""
        found = {
            channel.name: spread
            for channel, meter in self._meters.items()
            if _as_power(channel).quantity == quantity and (spread := meter.spread) is not None
        }
        return found or None

    def joules(self, rails: Collection[str]) -> float | None:
        """Energy of those rails together over the run; None unless each answered until the end."""
        chosen = {channel.name: meter for channel, meter in self._power_meters() if channel.name in rails}
        if not rails or any(name not in chosen or chosen[name].last_s < self.last_s for name in rails):
            return None
        return sum(meter.integral for meter in chosen.values())

    def silent(self) -> dict[str, str]:
        """Channels that stopped answering -> the reason."""
        return {
            f"{channel.quantity} {channel.name}": f"stopped answering after {meter.last_s:.1f} s"
            for channel, meter in self._meters.items()
            if meter.last_s < self.last_s
        }

    def _power_meters(self) -> list[tuple[Channel, Meter | EnergyMeter]]:
        return [
            (channel, meter) for channel, meter in self._meters.items() if _as_power(channel).quantity == "power_w"
        ]


def _as_power(channel: Channel) -> Channel:
    return channel._replace(quantity="power_w") if channel.quantity == "energy_j" else channel


_FILES: Mapping[str, Callable[[Path], Sensor]] = {
    "power rails": rails,
    "RAPL": rapl,
    "thermal zones": lambda root: thermal_zones(root / "sys/class/thermal"),
    "clocks": clocks,
    "throttle alerts": throttle_alerts,
}


@dataclass(frozen=True)
class Instruments:
    """The sensors that answer, and how the machine is configured. not_available: sensor or field -> the reason."""

    sensors: tuple[Sensor, ...]
    power_mode: str | None
    jetson_clocks: bool | None
    not_available: Mapping[str, str]


def open_nvml() -> Sensor:
    """The sensors of NVIDIA's driver. DeviceError without a driver, or without the package nvidia-ml-py."""
    try:
        from unblur.runtime.machine.nvml import Nvml
    except ImportError as error:
        raise DeviceError("nvidia-ml-py is not installed: pip install 'unblur[telemetry]'") from error
    return Nvml()


def find_instruments(
    root: Path = Path("/"),
    *,
    nvml: Callable[[], Sensor] = open_nvml,
    tegrastats: Callable[[Collection[Quantity]], Sensor] = Tegrastats,
) -> Instruments:
    """The sensors of the machine whose files are under `root`; only read.

    tegrastats is started only on a Jetson without readable power rails, for what no other sensor reports.
    """
    missing: dict[str, str] = {}
    openers = {name: partial(opener, root) for name, opener in _FILES.items()} | {"NVML": nvml}
    opened = [_unless_missing(name, partial(_open, opener), missing) for name, opener in openers.items()]
    found = [each for each in opened if each is not None]
    if "power rails" in missing and is_jetson(root):
        covered = frozenset[Quantity]().union(*(quantities for _, quantities in found))
        fallback = _unless_missing("tegrastats", partial(_open, partial(tegrastats, covered)), missing)
        found += [fallback] if fallback is not None else []
    return Instruments(
        sensors=tuple(sensor for sensor, _ in found),
        power_mode=_unless_missing("power_mode", partial(power_mode, root), missing),
        jetson_clocks=_unless_missing("jetson_clocks", partial(jetson_clocks, root), missing),
        not_available=missing,
    )


def _open(opener: Callable[[], Sensor]) -> tuple[Sensor, frozenset[Quantity]]:
    """A sensor that answers, and its quantities; one that does not answer is closed."""
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


_SPREADS: tuple[Quantity, ...] = ("power_w", "temperature_c", "clocks_mhz", "load_percent", "throttled_percent")


@dataclass(frozen=True)
class TelemetrySummary:
    """What the sensors measured during a run.

    sensors: those found. seconds: length of the run. samples: readings of each sensor.
    power_w: by rail. joules_per_frame: of the rails in `joules_of` together, which do not overlap.
    temperature_c: by thermal zone. clocks_mhz, load_percent: by unit. throttled_percent: of the time, by reason.
    power_mode: of nvpmodel, "MAXN". jetson_clocks: whether the clocks are fixed at their highest.
    not_available: field, sensor or channel -> why it is missing, or why it stopped.
    """

    sensors: tuple[str, ...]
    seconds: float
    samples: int
    power_w: Mapping[str, Spread] | None
    joules_per_frame: float | None
    joules_of: tuple[str, ...]
    temperature_c: Mapping[str, Spread] | None
    clocks_mhz: Mapping[str, Spread] | None
    load_percent: Mapping[str, Spread] | None
    throttled_percent: Mapping[str, Spread] | None
    power_mode: str | None
    jetson_clocks: bool | None
    not_available: Mapping[str, str]


class Telemetry:
    """Reads the sensors when its block begins, every `interval_s` seconds in a thread, and when the block ends.

    find: finds the sensors when the block begins. clock: monotonic, in seconds. A failing sensor raises nothing;
    see `TelemetrySummary.not_available`.
    """

    def __init__(
        self,
        interval_s: float = 0.5,
        *,
        find: Callable[[], Instruments] = find_instruments,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._instruments = Instruments((), None, None, {})
        self._interval_s = interval_s
        self._clock = clock
        self._started_s = 0.0
        self._record = Record()
        self._lost: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_ended, name="telemetry", daemon=True)

    def __enter__(self) -> "Telemetry":
        self._instruments = self._find()
        self._started_s = self._clock()
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        for sensor in self._instruments.sensors:
            sensor.close()

    @property
    def readings(self) -> Sequence[Reading]:
        """At most 1024, spread evenly over the run so far."""
        with self._lock:
            return tuple(self._record.readings)

    def summary(self, frames: int | None = None) -> TelemetrySummary:
        """Statistics so far; after the block, of the whole run. frames: restored in it."""
        with self._lock:
            spreads = {quantity: self._record.spreads(quantity) for quantity in _SPREADS}
            missing = {str(name): "no sensor reports it" for name, spread in spreads.items() if spread is None}
            rails = total_rails(spreads["power_w"] or ())
            joules = None
            try:
                joules = _joules_per_frame(self._record, rails, frames)
            except DeviceError as error:
                missing["joules_per_frame"] = str(error)
            return TelemetrySummary(
                sensors=tuple(sensor.name for sensor in self._instruments.sensors),
                seconds=self._record.last_s,
                samples=self._record.samples,
                joules_per_frame=joules,
                joules_of=() if joules is None else rails,
                power_mode=self._instruments.power_mode,
                jetson_clocks=self._instruments.jetson_clocks,
                not_available={**missing, **self._instruments.not_available, **self._lost, **self._record.silent()},
                **spreads,
            )

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            seconds = self._clock() - self._started_s
            values: dict[Channel, float] = {}
            for sensor in self._instruments.sensors:
                if sensor.name not in self._lost:
                    try:
                        values |= sensor.read()
                    except DeviceError as error:
                        self._lost[sensor.name] = f"stopped answering after {seconds:.1f} s: {error}"
            self._record.add(seconds, values)


def _joules_per_frame(record: Record, rails: Sequence[str], frames: int | None) -> float:
    """Raises DeviceError with the reason where it is unknown."""
    if not rails:
        raise DeviceError("no sensor reports the power of the whole device")
    joules = record.joules(rails)
    if joules is None:
        raise DeviceError(f"{' or '.join(rails)} did not answer until the end")
    if not frames:
        raise DeviceError("no frame was counted")
    return joules / frames
