"""Sensors beside a run: files that change, sensors that fall silent, and what is said of those that are missing."""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from jetson_trees import ORIN_NANO_JETPACK6, XEON, write_tree

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.sensors import Channel, FileSensor, Sensor
from unblur.runtime.machine.telemetry import Instruments, Spread, Telemetry, TelemetrySummary, find_instruments
from unblur.runtime.strict_json import from_json, to_json

POWER = Channel("power_w", "VDD_IN")
HEAT = Channel("temperature_c", "tj-thermal")


class Scripted:
    """A sensor that tells one entry after the other, and raises those that are errors."""

    def __init__(self, *told: Mapping[Channel, float] | DeviceError, name: str = "power rails") -> None:
        self.name = name
        self.told = list(told)
        self.closed = False

    def read(self) -> Mapping[Channel, float]:
        now = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(now, DeviceError):
            raise now
        return now

    def close(self) -> None:
        self.closed = True


def having(*sensors: Sensor) -> Callable[[], Instruments]:
    return lambda: Instruments(sensors, "MAXN", True, {})


def no_gpu() -> Sensor:
    raise DeviceError("no GPU in this test")


@pytest.fixture
def clock() -> Callable[[], float]:
    """A clock that goes on by a second at every look; a block looks when it begins, and at each sample."""
    ticks = iter(range(100, 10_000))
    return lambda: float(next(ticks))


def test_a_run_is_summed_up_from_its_beginning_to_its_end(clock: Callable[[], float]) -> None:
    rails = Scripted({POWER: 5.0, HEAT: 40.0}, {POWER: 7.0, HEAT: 44.0})
    with Telemetry(interval_s=60, find=having(rails), clock=clock) as telemetry:
        assert telemetry.summary(frames=1).samples == 1
    summary = telemetry.summary(frames=3)
    assert rails.closed
    assert (summary.sensors, summary.seconds, summary.samples) == (("power rails",), 2.0, 2)
    assert summary.power_w == {"VDD_IN": Spread(mean=6.0, max=7.0)}
    assert summary.temperature_c == {"tj-thermal": Spread(mean=42.0, max=44.0)}
    assert (summary.joules_per_frame, summary.joules_of) == (2.0, ("VDD_IN",))
    assert (summary.power_mode, summary.jetson_clocks) == ("MAXN", True)
    assert summary.not_available.keys() == {"clocks_mhz", "load_percent", "throttled_percent"}


def test_it_reads_while_the_block_runs() -> None:
    rails = Scripted(*({POWER: float(watts)} for watts in range(100)))
    with Telemetry(interval_s=0.01, find=having(rails)) as telemetry:
        time.sleep(0.2)
    readings = telemetry.readings
    assert len(readings) >= 4
    assert [reading.values for reading in readings] == [{POWER: float(watts)} for watts in range(len(readings))]
    assert readings[0].seconds < 0.05 < 0.2 <= readings[-1].seconds
    assert [reading.seconds for reading in readings] == sorted(reading.seconds for reading in readings)


def test_a_sensor_that_falls_silent_ends_there_and_the_others_go_on(clock: Callable[[], float]) -> None:
    rails = Scripted({POWER: 5.0}, DeviceError("[Errno 5] Input/output error"))
    zones = Scripted({HEAT: 40.0}, name="thermal zones")
    with Telemetry(interval_s=60, find=having(rails, zones), clock=clock) as telemetry:
        pass
    summary = telemetry.summary(frames=10)
    assert summary.temperature_c == {"tj-thermal": Spread(40.0, 40.0)}
    assert summary.power_w == {"VDD_IN": Spread(5.0, 5.0)}
    assert (summary.joules_per_frame, summary.joules_of) == (None, ())
    assert summary.not_available["joules_per_frame"] == "VDD_IN did not answer until the end"
    silent = "stopped answering after 2.0 s: [Errno 5] Input/output error"
    assert summary.not_available["power rails"] == silent
    assert summary.not_available["power_w VDD_IN"] == "stopped answering after 1.0 s"


@pytest.mark.parametrize("frames", [None, 0])
def test_without_frames_there_is_no_energy_of_one(clock: Callable[[], float], frames: int | None) -> None:
    with Telemetry(interval_s=60, find=having(Scripted({POWER: 5.0})), clock=clock) as telemetry:
        pass
    summary = telemetry.summary(frames)
    assert (summary.joules_per_frame, summary.joules_of) == (None, ())
    assert summary.not_available["joules_per_frame"] == "no frame was counted"


def test_an_orin_nano_whose_gpu_wakes_up(tmp_path: Path) -> None:
    write_tree(tmp_path, ORIN_NANO_JETPACK6)
    with Telemetry(interval_s=0.01, find=partial(find_instruments, tmp_path, nvml=no_gpu)) as telemetry:
        (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("71500\n")
        (tmp_path / "sys/class/hwmon/hwmon1/in1_input").unlink()
        time.sleep(0.05)
    summary = telemetry.summary(frames=5)
    assert summary.temperature_c is not None
    assert summary.temperature_c["gpu-thermal"].max == 71.5
    assert summary.joules_per_frame is None
    assert summary.not_available["power_w VDD_IN"].startswith("stopped answering after 0.0")
    assert "power_w VDD_SOC" not in summary.not_available


def test_a_workstation_counts_the_energy_of_its_processor(tmp_path: Path) -> None:
    write_tree(tmp_path, XEON)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    with Telemetry(interval_s=60, find=partial(find_instruments, tmp_path, nvml=no_gpu)) as telemetry:
        counter.write_text(f"{int(counter.read_text()) + 30_000_000}\n")
    summary = telemetry.summary(frames=20)
    assert summary.joules_per_frame == pytest.approx(1.5)
    assert summary.joules_of == ("CPU package-0",)


def test_a_sample_of_a_jetson_takes_less_than_half_a_percent_of_a_core(tmp_path: Path) -> None:
    """CPU time, so that a busy machine does not matter; the default is two samples a second."""
    write_tree(tmp_path, ORIN_NANO_JETPACK6)
    started_s = time.process_time()
    with Telemetry(interval_s=0.002, find=partial(find_instruments, tmp_path, nvml=no_gpu)) as telemetry:
        time.sleep(0.3)
    a_sample_s = (time.process_time() - started_s) / telemetry.summary().samples
    assert a_sample_s < 0.005 * 0.5


def test_it_survives_json(clock: Callable[[], float]) -> None:
    with Telemetry(interval_s=60, find=having(Scripted({POWER: 5.0})), clock=clock) as telemetry:
        pass
    summary = telemetry.summary(frames=2)
    document = json.loads(json.dumps(to_json(summary)))
    assert document["power_w"] == {"VDD_IN": {"mean": 5.0, "max": 5.0}}
    assert from_json(TelemetrySummary, document, "telemetry") == summary


def test_this_machine_says_a_reason_for_all_that_it_does_not_tell() -> None:
    with Telemetry() as telemetry:
        pass
    summary = telemetry.summary(frames=1)
    document = to_json(summary)
    assert isinstance(document, dict)
    missing = {name for name, value in document.items() if value is None}
    assert missing <= summary.not_available.keys()
    assert all(summary.not_available.values())


def test_what_only_root_may_read_is_said() -> None:
    def read() -> float:
        raise PermissionError(13, "Permission denied", "/sys/class/powercap/intel-rapl:0/energy_uj")

    with pytest.raises(DeviceError, match=r"^only root may read /sys/class/powercap/intel-rapl:0/energy_uj$"):
        FileSensor("RAPL", {Channel("energy_j", "CPU package-0"): read}).read()
