"""All channels over a run: summed up exactly, and as curves that are thinned, so that memory does not grow."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from unblur.runtime.telemetry.meter import EnergyMeter, Meter, Spread, meter_of
from unblur.runtime.telemetry.sensor import Channel, Quantity

MOST_READINGS = 1024


class Reading(NamedTuple):
    """What the channels said at one time. seconds: since the run began. A counter of energy is told as power."""

    seconds: float
    values: Mapping[Channel, float]


class Record:
    """Takes readings in the order of time. last_s, samples: of those so far.

    readings: at most 1024, evenly over the run; when it is full, every second goes, and half as many are kept.
    """

    def __init__(self) -> None:
        self.last_s = 0.0
        self.samples = 0
        self.readings: list[Reading] = []
        self._keep_every = 1
        self._meters: dict[Channel, Meter | EnergyMeter] = {}

    def add(self, seconds: float, values: Mapping[Channel, float]) -> None:
        """Take what the channels said; those that did not answer are left out."""
        shown = {}
        for channel, value in values.items():
            told = self._meters.setdefault(channel, meter_of(channel.quantity)).add(seconds, value)
            if told is not None:
                shown[_as_power(channel)] = told
        if self.samples % self._keep_every == 0:
            self.readings.append(Reading(seconds, shown))
        if len(self.readings) == MOST_READINGS:
            del self.readings[1::2]
            self._keep_every *= 2
        self.last_s, self.samples = seconds, self.samples + 1

    def spreads(self, quantity: Quantity) -> dict[str, Spread] | None:
        """By name, of the channels with that quantity; None if there is none. Energy counters are under power_w."""
        found = {
            channel.name: spread
            for channel, meter in self._meters.items()
            if _as_power(channel).quantity == quantity and (spread := meter.spread) is not None
        }
        return found or None

    def joules(self, rails: Collection[str]) -> float | None:
        """What those rails used together over the whole run; None unless each answered to its end."""
        chosen = {channel.name: meter for channel, meter in self._power_meters() if channel.name in rails}
        if not rails or any(name not in chosen or chosen[name].last_s < self.last_s for name in rails):
            return None
        return sum(meter.integral for meter in chosen.values())

    def silent(self) -> dict[str, str]:
        """Channels that answered at first but not at the end, with the reason in words."""
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
