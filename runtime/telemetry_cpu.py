"""Clocks of the CPU."""

from collections.abc import Callable, Mapping
from pathlib import Path

from unblur.runtime.telemetry_sensor import Channel, FileSensor, number_in

_MHZ_FROM_KHZ = 1e-3


def cpu_clocks(root: Path) -> FileSensor:
    """The clock of each core as its governor sets it, "CPU 0"; DeviceError where Linux does not set clocks."""
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    numbered = sorted((int(file.parts[-3].removeprefix("cpu")), file) for file in cores)
    clocks: Mapping[Channel, Callable[[], float]] = {
        Channel("clocks_mhz", f"CPU {number}"): number_in(file, _MHZ_FROM_KHZ) for number, file in numbered
    }
    return FileSensor("CPU clocks", clocks)
