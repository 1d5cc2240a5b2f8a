"""Lines of tegrastats as others have published them, in telemetry/*.txt, and a program that prints them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.jetson_sensors import Tegrastats, parse_line
from unblur.runtime.machine.sensors import Channel, Quantity

FIXTURES = Path(__file__).with_name("telemetry")


def published(name: str) -> str:
    """The line in a file whose first line names its source."""
    source, line = (FIXTURES / f"{name}.txt").read_text().splitlines()
    assert source.startswith("# Documented, never recorded")
    return line


NANO = published("nano-jetpack4")
AGX_XAVIER = published("agx-xavier-jetpack4")
ORIN_NX = published("orin-nx-jetpack5")
AGX_ORIN = published("agx-orin-jetpack6")
THOR = published("thor-jetpack7")
THOR_72 = published("thor-jetpack7.2")


def of(quantity: Quantity, line: str) -> dict[str, float]:
    return {channel.name: value for channel, value in parse_line(line).items() if channel.quantity == quantity}


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        (NANO, {"POM_5V_IN": 1.022, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.204}),
        (AGX_XAVIER, {"GPU": 0.0, "CPU": 0.311, "SOC": 0.932, "CV": 0.0, "VDDRQ": 0.621, "SYS5V": 1.482}),
        (ORIN_NX, {"VDD_IN": 5.299, "VDD_CPU_GPU_CV": 0.773, "VDD_SOC": 1.424}),
        (AGX_ORIN, {"VDD_GPU_SOC": 2.412, "VDD_CPU_CV": 1.607, "VIN_SYS_5V0": 4.607}),
        (THOR, {"VDD_GPU": 0.0, "VDD_CPU_SOC_MSS": 4.923, "VIN_SYS_5V0": 4.327}),
        (THOR_72, {"VDD_GPU": 4.925, "VDD_CPU_SOC_MSS": 7.953, "VIN_SYS_5V0": 6.667}),
        ("VDD_GPU -392mW/-392mW", {"VDD_GPU": -0.392}),
    ],
)
def test_powers_are_those_of_now(line: str, watts: dict[str, float]) -> None:
    assert of("power_w", line) == pytest.approx(watts)


def test_temperatures_without_the_dummy_and_what_is_asleep() -> None:
    nano = {"PLL": 34.0, "CPU": 36.5, "GPU": 36.0, "AO": 39.5, "thermal": 36.25}
    assert of("temperature_c", NANO) == nano
    thor = {"cpu": 34.312, "tj": 35.906, "soc012": 34.093, "gpu": 35.906, "soc345": 34.437}
    assert of("temperature_c", THOR_72) == thor
    assert of("temperature_c", "CV0@-256C GPU@49.2C") == {"GPU": 49.2}


def test_clocks_and_loads() -> None:
    assert of("clocks_mhz", NANO) == {
        **{f"CPU {core}": 204.0 for core in range(4)},
        "EMC": 204.0,
        "GPU": 76.0,
    }
    loads = {"CPU 0": 6.0, "CPU 1": 9.0, "CPU 2": 5.0, "CPU 3": 16.0, "EMC": 0.0, "GPU": 0.0}
    assert of("load_percent", ORIN_NX) == loads
    assert of("load_percent", THOR_72)["EMC"] == 7.0
    assert "GPU" not in of("load_percent", THOR_72)
    assert of("clocks_mhz", THOR_72)["GPU"] == 314.0
    shared = "CPU [0%,5%,off]@2601 EMC_FREQ @4266"
    assert of("clocks_mhz", shared) == {"CPU 0": 2601.0, "CPU 1": 2601.0, "EMC": 4266.0}
    assert parse_line("cannot open /dev/null") == {}


Start = Callable[..., Tegrastats]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(script, patience_s=0.2)`: a sensor whose tegrastats is a shell script, closed at the end."""
    started: list[Tegrastats] = []

    def run(script: str, *arguments: object, **options: object) -> Tegrastats:
        program = tmp_path / "tegrastats"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        started.append(Tegrastats(*arguments, program=str(program), **options))
        return started[-1]

    yield run
    for sensor in started:
        sensor.close()


def test_the_program_is_asked_for_its_interval_and_its_last_line_counts(start: Start) -> None:
    script = f'[ "$*" = "--interval 250" ] && echo "{ORIN_NX}" && echo "VDD_IN 6000mW/5600mW"\nexec sleep 60'
    sensor = start(script, interval_s=0.25)
    deadline_s = time.monotonic() + 5
    while len(sensor.read()) > 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert sensor.read() == {Channel("power_w", "VDD_IN"): 6.0}


def test_quantities_are_left_out(start: Start) -> None:
    sensor = start(f'echo "{THOR}"\nexec sleep 60', {"load_percent", "clocks_mhz", "power_w"})
    assert {channel.quantity for channel in sensor.read()} == {"temperature_c"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "tegrastats ended with exit status 3"),
        ("exec sleep 60", "tegrastats was silent for 0.5 s"),
        (
            "echo 'Permission denied'; exec sleep 60",
            "no readable value from tegrastats; expected 'VDD_IN 4067mW/4067mW'",
        ),
    ],
)
def test_a_program_that_does_not_help(start: Start, script: str, said: str) -> None:
    sensor = start(script, patience_s=0.5 if "silent" in said else 5.0)
    with pytest.raises(DeviceError, match=f"^{said}$"):
        sensor.read()


def test_a_program_that_falls_silent(start: Start) -> None:
    sensor = start("echo 'VDD_IN 6000mW/5600mW'; exec sleep 60", patience_s=0.3)
    assert sensor.read() == {Channel("power_w", "VDD_IN"): 6.0}
    time.sleep(0.4)
    with pytest.raises(DeviceError, match=r"^tegrastats was silent for 0.3 s$"):
        sensor.read()


def test_there_is_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"^cannot run tegrastats: No such file or directory$"):
        Tegrastats(program=str(tmp_path / "tegrastats"))
