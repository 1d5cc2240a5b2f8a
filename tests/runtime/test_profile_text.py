"""The screen of a profile tells what its reader must know: sensors, throttling, what the samples cannot bound."""

import dataclasses

import pytest
from costed_runner import nanoseconds, scripted
from made_up_profile import HOT, JETSON
from timed_runner import HandClock

from unblur.runtime.console import stdout
from unblur.runtime.machine.telemetry import Spread
from unblur.runtime.profile.document import Against, Profile
from unblur.runtime.profile.measure import Control, Plan, profile_runner
from unblur.runtime.profile.text import bars, interval, number, print_profile

RAILS = {"VDD_CPU_GPU_CV": Spread(5.1, 7.7), "VDD_IN": Spread(11.52, 14.9)}
ZONES = {f"soc{zone}-thermal": Spread(60.0 + zone, 70.0 + zone) for zone in range(5)}


@pytest.fixture(scope="module")
def profile() -> Profile:
    clock = HandClock()
    runner = scripted(clock, (10 + index % 7 / 10 for index in range(100_000)))
    return profile_runner(
        runner, Plan((16, 24), seconds=2, telemetry=False), control=Control(clock=nanoseconds(clock))
    )


def screen(profile: Profile) -> list[str]:
    with stdout.capture() as captured:
        print_profile(profile)
    return [line.rstrip() for line in captured.get().splitlines()]


def words(profile: Profile) -> str:
    """All of it in one line."""
    return " ".join(" ".join(screen(profile)).split())


def test_it_fits_a_terminal(profile: Profile) -> None:
    lines = screen(dataclasses.replace(profile, telemetry=JETSON, sustained=HOT))
    assert len(lines) <= 26
    assert max(map(len, lines[1:])) <= 80  # the first names the machine, which may take more


def test_sensors(profile: Profile) -> None:
    seen = dataclasses.replace(JETSON, power_w=RAILS, temperature_c=ZONES)
    text = words(dataclasses.replace(profile, telemetry=seen))
    assert "power VDD_IN 11.52 W (max 14.90), 0.3840 J per frame" in text
    assert (
        "temperature soc4-thermal 64 (max 74) C, soc3-thermal 63 (max 73) C, soc2-thermal 62 (max 72) C, 2 more"
        in text
    )
    assert "clocks gpu 612 (max 918) MHz" in text
    assert "power mode 15W" in text


def test_sensors_that_are_not_there(profile: Profile) -> None:
    reasons = {"joules_per_frame": "no sensor reports the power of the whole device"}
    blind = dataclasses.replace(
        JETSON, power_w=None, joules_per_frame=None, temperature_c=None, clocks_mhz=None, not_available=reasons
    )
    text = words(dataclasses.replace(profile, telemetry=blind))
    assert f"power energy per frame not available: {reasons['joules_per_frame']}" in text
    assert "temperature" not in text


def test_throttling(profile: Profile) -> None:
    text = words(dataclasses.replace(profile, sustained=HOT))
    assert "over time ▄▄▄" in text
    assert "███ throttled from 900 s on, +100.0% in the end (+95.0% to +105.0%) after 1800 s;" in text
    assert "clock gpu fell from 918 to 306 MHz" in text


def test_what_cannot_be_trusted_is_said(profile: Profile) -> None:
    assert f"{profile.samples} inferences are too few to bound p99, p99.9 from above" in words(profile)
    assert "did not keep its level" not in words(profile)
    drifted = dataclasses.replace(
        profile, stationary=False, warmup=dataclasses.replace(profile.warmup, settled=False)
    )
    assert "did not keep its level" in words(drifted)
    assert "did not settle" in words(drifted)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.5, "1.500"), (12.345, "12.35"), (54321.9, "54,322")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_an_end_that_is_not_known_is_a_question_mark() -> None:
    assert interval((9.81, None)) == "9.810 to ?"


def test_the_highest_bar_is_full_and_nothing_is_nothing() -> None:
    assert bars([0, 1, 40, 80]) == " ▁▄█"


def test_a_ratio_without_an_upper_end_is_told(profile: Profile) -> None:
    against = Against(
        model="other",
        precision="fp32",
        steps=1,
        device="cpu",
        samples=12,
        latency_ms=profile.latency_ms,
        intervals_ms=profile.intervals_ms,
        ratio=1.02,
        ratio_interval=(0.9, None),
        verdict="no difference seen",
    )
    assert "99 % interval 0.900 to ?" in words(dataclasses.replace(profile, against=against))
