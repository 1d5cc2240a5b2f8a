"""What a run costs in watts and degrees: the sensors of the machine, read beside it.

    with Telemetry() as telemetry:
        ...  # restore frames
    telemetry.summary(frames=250).joules_per_frame

What the machine does not tell is None and has its reason in `not_available`; it is never a zero.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry.meter import Spread
from unblur.runtime.telemetry.record import Reading, Record
from unblur.runtime.telemetry.sensor import Channel, Quantity
from unblur.runtime.telemetry.sources import Instruments, find_instruments
from unblur.runtime.telemetry.total import total_rails

_SPREADS: tuple[Quantity, ...] = ("power_w", "temperature_c", "clocks_mhz", "load_percent", "throttled_percent")


@dataclass(frozen=True)
class TelemetrySummary:
    """A run as its sensors saw it; `records.to_json` and `records.from_json` know it.

    sensors: those found. seconds: of the run, in which each was read `samples` times.
    power_w: by rail. joules_per_frame: of the rails `joules_of` together, which do not overlap.
    temperature_c: by thermal zone. clocks_mhz, load_percent: by unit. throttled_percent: of the time, by reason.
    power_mode: of nvpmodel, "MAXN". jetson_clocks: whether the clocks are fixed at their highest.
    not_available: field, sensor or channel -> why it is not there, or not to the end.
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

    find: what to read, looked for when the block begins. clock: in seconds, never backwards. No failure of a
    sensor is raised, see `TelemetrySummary.not_available`.
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
        """(seconds since the block began, value by channel), at most 1024, evenly over the run."""
        with self._lock:
            return tuple(self._record.readings)

    def summary(self, frames: int | None = None) -> TelemetrySummary:
        """What was seen so far; after the block, all of it. frames: that were restored in it."""
        with self._lock:
            spreads = {quantity: self._record.spreads(quantity) for quantity in _SPREADS}
            missing = {str(name): "no sensor tells it" for name, spread in spreads.items() if spread is None}
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
    """DeviceError with the reason where it is not known."""
    if not rails:
        raise DeviceError("no sensor tells the power of the whole device")
    joules = record.joules(rails)
    if joules is None:
        raise DeviceError(f"{' or '.join(rails)} did not answer to the end")
    if not frames:
        raise DeviceError("no frame was counted")
    return joules / frames
