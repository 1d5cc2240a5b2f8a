"""What is kept of a run: sums that are exact, curves that stay small."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unblur.runtime.machine.sensors import Channel
from unblur.runtime.machine.telemetry import MOST_READINGS, EnergyMeter, Meter, Record, Spread

POWER = Channel("power_w", "VDD_IN")
ENERGY = Channel("energy_j", "CPU package-0")
HEAT = Channel("temperature_c", "tj-thermal")


def test_a_gauge_is_integrated_by_trapezoids_over_uneven_times() -> None:
    meter = Meter()
    assert meter.spread is None
    for at_s, watts in ((10.0, 2.0), (11.0, 4.0), (13.0, 4.0), (14.0, 0.0)):
        meter.add(at_s, watts)
    assert meter.integral == pytest.approx(3.0 + 8.0 + 2.0)
    assert meter.spread == Spread(mean=13.0 / 4.0, max=4.0)


def test_one_reading_is_its_own_mean() -> None:
    meter = Meter()
    meter.add(5.0, -7.0)
    assert meter.spread == Spread(-7.0, -7.0)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=50), st.floats(-5, 50), st.floats(-1, 1))
def test_a_straight_line_is_integrated_exactly(steps_s: list[float], offset: float, slope: float) -> None:
    meter, at_s = Meter(), 0.0
    for step_s in steps_s:
        at_s += step_s
        meter.add(at_s, offset + slope * at_s)
    first_s = steps_s[0]
    exact = offset * (at_s - first_s) + slope * (at_s**2 - first_s**2) / 2
    assert math.isclose(meter.integral, exact, rel_tol=1e-9, abs_tol=1e-6)


def test_a_counter_gives_watts_between_readings() -> None:
    meter = EnergyMeter()
    assert meter.add(0.0, 1000.0) is None
    assert meter.spread is None
    assert meter.add(2.0, 1030.0) == 15.0
    assert meter.add(2.0, 1030.0) is None
    assert meter.add(3.0, 1060.0) == 30.0
    assert (meter.integral, meter.spread) == (60.0, Spread(mean=20.0, max=30.0))


def test_readings_show_a_counter_as_power() -> None:
    record = Record()
    record.add(0.0, {ENERGY: 5.0, HEAT: 40.0})
    record.add(0.5, {ENERGY: 15.0, HEAT: 41.0})
    shown = Channel("power_w", "CPU package-0")
    assert [reading.values for reading in record.readings] == [{HEAT: 40.0}, {HEAT: 41.0, shown: 20.0}]
    assert record.spreads("power_w") == {"CPU package-0": Spread(20.0, 20.0)}
    assert record.spreads("clocks_mhz") is None


def test_thirty_minutes_keep_a_thousand_readings_evenly_and_exact_sums() -> None:
    record = Record()
    for index in range(3601):
        record.add(index * 0.5, {POWER: 10.0 + index % 2})
    seconds = [reading.seconds for reading in record.readings]
    assert MOST_READINGS / 2 <= len(seconds) < MOST_READINGS
    assert {later - earlier for earlier, later in pairwise(seconds)} == {2.0}
    assert (seconds[0], seconds[-1]) == (0.0, 1800.0)
    assert record.joules({"VDD_IN"}) == pytest.approx(10.5 * 1800)
    assert record.samples == 3601


def test_energy_is_known_only_of_rails_that_answer_to_the_end() -> None:
    record = Record()
    record.add(0.0, {POWER: 4.0, ENERGY: 0.0})
    record.add(1.0, {POWER: 4.0, ENERGY: 8.0})
    assert record.joules({"VDD_IN"}) == 4.0
    assert record.joules({"VDD_IN", "CPU package-0"}) == 12.0
    assert record.joules(()) is None
    assert record.joules({"VIN"}) is None
    assert record.silent() == {}
    record.add(2.5, {ENERGY: 9.0})
    assert record.joules({"VDD_IN"}) is None
    assert record.silent() == {"power_w VDD_IN": "stopped answering after 1.0 s"}
