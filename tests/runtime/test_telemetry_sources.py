"""What is found on Jetsons with JetPack 5, 6 and 7 and on a workstation, by the files of fakes/jetson_trees.py."""

from collections.abc import Collection
from pathlib import Path

import pytest
from jetson_trees import (
    AGX_ORIN_JETPACK6,
    AGX_XAVIER_JETPACK5,
    ORIN_NANO_JETPACK6,
    THOR_JETPACK7,
    XEON,
    Tree,
    write_tree,
)

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.sensors import Channel, Quantity, Sensor, hottest_c, total_rails
from unblur.runtime.machine.telemetry import Instruments, find_instruments


def no_program(leave_out: Collection[Quantity] = ()) -> Sensor:
    raise DeviceError("not asked for")


def look(root: Path, tree: Tree) -> Instruments:
    return find_instruments(write_tree(root, tree), nvml=no_program, tegrastats=no_program)


def read(found: Instruments) -> dict[Channel, float]:
    return {channel: value for sensor in found.sensors for channel, value in sensor.read().items()}


def of(quantity: Quantity, found: Instruments) -> dict[str, float]:
    return {
        channel.name: pytest.approx(value) for channel, value in read(found).items() if channel.quantity == quantity
    }


def test_agx_xavier_with_jetpack_5(tmp_path: Path) -> None:
    found = look(tmp_path, AGX_XAVIER_JETPACK5)
    power = {"GPU": 0.0, "CPU": 0.304, "SOC": 0.931, "CV": 0.0, "VDDRQ": 0.627, "SYS5V": 1.482}
    assert of("power_w", found) == power
    assert total_rails(power) == tuple(power)
    degrees = {"CPU-therm": 37.5, "GPU-therm": 37.5, "AUX-therm": 36.0, "AO-therm": 37.5, "Tboard-tegra": 37.0}
    assert of("temperature_c", found) == degrees
    assert hottest_c(tmp_path / "sys/class/thermal") == 37.5
    assert of("clocks_mhz", found) == {
        "CPU 0,1": 1190.4,
        "CPU 2,3": 2265.6,
        "GPU 17000000.gv11b": 318.75,
        "EMC": 665.6,
    }
    assert (found.power_mode, found.jetson_clocks) == ("MODE_15W", False)
    assert found.not_available["throttle alerts"] == "the kernel shows none"


def test_orin_nano_with_jetpack_6(tmp_path: Path) -> None:
    found = look(tmp_path, ORIN_NANO_JETPACK6)
    assert of("power_w", found) == {"VDD_IN": 5.861184, "VDD_CPU_GPU_CV": 1.315776, "VDD_SOC": 1.472896}
    assert of("temperature_c", found) == {"cpu-thermal": 49.218, "soc0-thermal": 48.125, "tj-thermal": 50.593}
    assert of("clocks_mhz", found) == {"CPU 0,1,2,3": 1728.0, "CPU 4,5": 1728.0, "GPU 17000000.gpu": 1020.0}
    assert of("load_percent", found) == {"GPU 17000000.gpu": 84.2}
    assert of("throttled_percent", found) == {"cpu": 0.0, "gpu": 100.0}
    assert (found.power_mode, found.jetson_clocks) == ("MAXN_SUPER", True)
    assert found.not_available == {"RAPL": "the kernel shows none", "NVML": "not asked for"}


def test_agx_orin_whose_second_chip_is_hardly_connected(tmp_path: Path) -> None:
    found = look(tmp_path, AGX_ORIN_JETPACK6)
    power = {"VDD_GPU_SOC": 2.0, "VDD_CPU_CV": 1.0, "VIN_SYS_5V0": 4.5, "VDDQ_VDD2_1V8AO": 0.5}
    assert of("power_w", found) == power
    assert total_rails(power) == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert found.not_available["power_mode"] == "/etc/nvpmodel.conf does not exist"
    assert found.not_available["jetson_clocks"] == "the limits of the clocks cannot be read here"


def test_thor_with_jetpack_7(tmp_path: Path) -> None:
    found = look(tmp_path, THOR_JETPACK7)
    power = {"VDD_GPU": -0.4, "VDD_CPU_SOC_MSS": 6.5, "VIN_SYS_5V0": 6.52, "VIN": 28.548}
    assert of("power_w", found) == power
    assert total_rails(power) == ("VIN",)
    assert total_rails(power.keys() - {"VIN"}) == ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")
    assert "gpu-thermal" not in of("temperature_c", found)
    assert of("clocks_mhz", found) == {"CPU 0": 2601.0, "GPU gpu-gpc-0": 1575.0, "GPU gpu-nvd-0": 1692.0}
    assert (found.power_mode, found.jetson_clocks) == ("120W", False)


def test_a_workstation(tmp_path: Path) -> None:
    found = look(tmp_path, XEON)
    assert of("energy_j", found) == {"CPU package-0": 262000.0, "package-0 dram": 5.0}
    assert total_rails(["CPU package-0", "package-0 dram", "GPU board 0"]) == ("CPU package-0", "GPU board 0")
    assert total_rails(["CPU package-0", "platform"]) == ("platform",)
    assert [*of("clocks_mhz", found)] == ["CPU 0", "CPU 2", "CPU 10"]
    assert found.not_available["power rails"] == "the kernel shows none"
    assert (found.not_available["power_mode"], found.not_available["jetson_clocks"]) == ("not a Jetson",) * 2


def test_the_counter_of_energy_goes_on_where_it_starts_again(tmp_path: Path) -> None:
    (rapl,) = (sensor for sensor in look(tmp_path, XEON).sensors if sensor.name == "RAPL")
    package = Channel("energy_j", "CPU package-0")
    before = rapl.read()[package]
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("56671150\n")
    assert rapl.read()[package] - before == pytest.approx(143.32885 + 56.67115)


def test_two_sockets_have_a_zone_each(tmp_path: Path) -> None:
    for number in (0, 1):
        zone = f"sys/class/thermal/thermal_zone{number}"
        write_tree(tmp_path, {f"{zone}/type": "x86_pkg_temp\n", f"{zone}/temp": f"{60 + number}000\n"})
    assert of("temperature_c", look(tmp_path, {})) == {"x86_pkg_temp": 60.0, "x86_pkg_temp thermal_zone1": 61.0}


def test_a_mode_that_the_configuration_does_not_name(tmp_path: Path) -> None:
    found = look(tmp_path, {**ORIN_NANO_JETPACK6, "var/lib/nvpmodel/status": "pmode:0009\n"})
    assert found.power_mode is None
    assert found.not_available["power_mode"].startswith("/etc/nvpmodel.conf does not name the mode")


class OneRail:
    """A sensor that is asked for what others do not tell."""

    name = "tegrastats"

    def __init__(self, leave_out: Collection[Quantity], *, answers: bool = True) -> None:
        self.leave_out = set(leave_out)
        self.answers = answers
        self.closed = False

    def read(self) -> dict[Channel, float]:
        if not self.answers:
            raise DeviceError("silent")
        return {Channel("power_w", "VDD_IN"): 5.0}

    def close(self) -> None:
        self.closed = True


def test_tegrastats_fills_in_where_a_jetson_shows_no_rails(tmp_path: Path) -> None:
    write_tree(tmp_path, {name: text for name, text in ORIN_NANO_JETPACK6.items() if "hwmon" not in name})
    found = find_instruments(tmp_path, nvml=no_program, tegrastats=OneRail)
    fallback = found.sensors[-1]
    assert isinstance(fallback, OneRail)
    assert fallback.leave_out == {"temperature_c", "clocks_mhz", "load_percent", "throttled_percent"}

    silent = OneRail((), answers=False)
    found = find_instruments(tmp_path, nvml=no_program, tegrastats=lambda leave_out: silent)
    assert found.not_available["tegrastats"] == "silent"
    assert silent.closed


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = look(tmp_path, {})
    assert (found.sensors, found.power_mode, found.jetson_clocks) == ((), None, None)
    files = {"power rails", "RAPL", "thermal zones", "clocks", "throttle alerts"}
    assert found.not_available.keys() == files | {"NVML", "power_mode", "jetson_clocks"}
