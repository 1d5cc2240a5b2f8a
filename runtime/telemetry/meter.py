"""What one channel did over a run, in a few numbers that do not grow with it."""

from dataclasses import dataclass

from unblur.runtime.telemetry.sensor import Quantity


@dataclass(frozen=True)
class Spread:
    """mean: over time. max: of the readings; for an energy counter, of the means between two readings."""

    mean: float
    max: float


class Meter:
    """Sums up a gauge by the trapezoidal rule. integral: value times seconds."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.integral = 0.0
        self._first_s = 0.0
        self._last = 0.0
        self._max: float | None = None

    def add(self, at_s: float, value: float) -> float | None:
        """Take a reading; returns what a curve shows of it."""
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
    """Sums up a counter of joules as watts. integral: joules; nothing between two readings is missed."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.integral = 0.0
        self._first_s: float | None = None
        self._last_j = 0.0
        self._max_w: float | None = None

    def add(self, at_s: float, joules: float) -> float | None:
        """Take a reading; returns the watts since the one before, None for the first."""
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
