"""Clocks of the CPU, and of a Jetson's GPU and memory, through cpufreq, devfreq and the firmware's debug files.

/proc/cpuinfo is not asked: where there is no cpufreq, as in most virtual machines, it tells a nominal clock.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from unblur.runtime.telemetry.sensor import Channel, FileSensor, number_in, text_in

_MHZ_FROM_KHZ, _MHZ_FROM_HZ, _PERCENT_FROM_PER_MILLE = 1e-3, 1e-6, 0.1
_JETSON_GPU = re.compile(r"\.(gpu|g[vpab]\d\db)$|^gpu-")
"""57000000.gpu (Nano), 17000000.gv11b (Xavier), 17000000.ga10b or .gpu (Orin), gpu-gpc-0 (Thor)."""

_EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
"""Of the memory's clock; for root, from Xavier on."""

_Read = Callable[[], float]


def clocks(root: Path) -> FileSensor:
    """ "CPU 0,1,2,3" by the cores that share a clock; of a Jetson "GPU 17000000.gpu", with its load, and "EMC"."""
    gpus = jetson_gpus(root)
    channels = dict([*map(_of_cores, cpu_policies(root)), *chain.from_iterable(map(_of_gpu, gpus))])
    if gpus:
        channels[Channel("clocks_mhz", "EMC")] = number_in(root / _EMC, _MHZ_FROM_HZ)
    return FileSensor("clocks", channels)


def cpu_policies(root: Path) -> list[Path]:
    """A folder for each group of cores that share a clock, in the order of the cores."""
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*")
    return sorted(policies, key=lambda folder: int(folder.name.removeprefix("policy")))


def jetson_gpus(root: Path) -> list[Path]:
    """A folder for each clock of a Jetson's GPU; Thor has two."""
    found = sorted((root / "sys/class/devfreq").glob("*"))
    return [folder for folder in found if _JETSON_GPU.search(folder.name)]


def _of_cores(policy: Path) -> tuple[Channel, _Read]:
    cores = text_in(policy / "related_cpus").replace(" ", ",")
    return Channel("clocks_mhz", f"CPU {cores}"), number_in(policy / "scaling_cur_freq", _MHZ_FROM_KHZ)


def _of_gpu(gpu: Path) -> Iterator[tuple[Channel, _Read]]:
    name, load = f"GPU {gpu.name}", gpu / "device/load"
    yield Channel("clocks_mhz", name), number_in(gpu / "cur_freq", _MHZ_FROM_HZ)
    if load.is_file():
        yield Channel("load_percent", name), number_in(load, _PERCENT_FROM_PER_MILLE)
