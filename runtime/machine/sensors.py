"""The Sensor protocol, and the sensors that are files of the Linux kernel: clocks, RAPL, thermal zones.

A sensor may stop answering at any time.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from unblur.runtime.errors import DeviceError

Quantity = Literal["power_w", "energy_j", "temperature_c", "clocks_mhz", "load_percent", "throttled_percent"]
"""energy_j counts up from any start. throttled_percent is 100 while throttled for that reason, else 0."""


class Channel(NamedTuple):
    """One number of a sensor. name: of the rail, zone, unit or reason, as the machine calls it."""

    quantity: Quantity
    name: str


class Sensor(Protocol):
    """See `FileSensor`. name: for display, "RAPL"."""

    @property
    def name(self) -> str: ...

    def read(self) -> Mapping[Channel, float]:
        """The present values of the channels that answer; DeviceError if none does."""
        ...

    def close(self) -> None: ...


class FileSensor:
    """Channels that are files of the kernel, by functions that read one; they may raise OSError or ValueError."""

    def __init__(self, name: str, channels: Mapping[Channel, Callable[[], float]]) -> None:
        self.name = name
        self._channels = channels

    def read(self) -> dict[Channel, float]:
        """See Sensor: a unit that is powered down has files that cannot be read."""
        values: dict[Channel, float] = {}
        problem = "the kernel shows none"
        for channel, read in self._channels.items():
            try:
                values[channel] = read()
            except PermissionError as error:
                problem = f"only root may read {error.filename}"
            except (OSError, ValueError) as error:
                problem = str(error)
        if not values:
            raise DeviceError(problem)
        return values

    def close(self) -> None: ...


def number_in(file: Path, scale: float = 1.0) -> Callable[[], float]:
    """A function that reads the number in a file, times `scale`."""
    return lambda: float(file.read_bytes()) * scale  # half the time of read_text, and there may be hundreds


def text_in(file: Path) -> str:
    """The text of a kernel file without its line end; "" if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


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


_J_FROM_UJ = 1e-6


def rapl(root: Path) -> FileSensor:
    """The energy of each zone: "CPU package-0", its part "package-0 dram", and "platform", the whole machine."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))  # so are AMD's called
    return FileSensor("RAPL", {Channel("energy_j", _name(zone)): _unwrapped(zone) for zone in zones})


def _name(zone: Path) -> str:
    """intel-rapl:0 is a package or the platform, intel-rapl:0:1 a part of it."""
    name = text_in(zone / "name")
    whole = zone.name.rpartition(":")[0]
    if ":" in whole:
        return f"{text_in(zone.with_name(whole) / 'name')} {name}"
    return "platform" if name == "psys" else f"CPU {name}"


def _unwrapped(zone: Path) -> Callable[[], float]:
    """A function that reads joules and never starts again at zero; it must be called in each round of the counter.

    A round, max_energy_range_uj, is 262 kJ on many processors: 17 minutes at 250 W.
    """
    last_uj = passed_uj = 0

    def read() -> float:
        nonlocal last_uj, passed_uj
        now_uj = int((zone / "energy_uj").read_text())
        if now_uj < last_uj:
            passed_uj += int((zone / "max_energy_range_uj").read_text())
        last_uj = now_uj
        return (passed_uj + now_uj) * _J_FROM_UJ

    return read


_ZONES = Path("/sys/class/thermal")
_PLAUSIBLE_C = (1, 150)
_DUMMY = "PMIC-Die"
"""A zone of Jetsons up to Xavier that always reads 100 degrees."""


def hottest_c(zones: Path = _ZONES) -> float | None:
    """The hottest thermal zone in degrees Celsius; None if none answers.

    On a Jetson that is the junction, which throttling goes by; elsewhere mostly the CPU package.
    """
    try:
        return max(thermal_zones(zones).read().values())
    except DeviceError:
        return None


def thermal_zones(zones: Path = _ZONES) -> FileSensor:
    """The temperature of each zone by its name, "gpu-thermal" or "x86_pkg_temp"."""
    channels: dict[Channel, Callable[[], float]] = {}
    for folder in sorted(zones.glob("thermal_zone*")):
        name = text_in(folder / "type") or folder.name
        if name == _DUMMY:
            continue
        channel = Channel("temperature_c", name)
        taken = channel in channels  # of two sockets both are x86_pkg_temp
        channels[channel._replace(name=f"{name} {folder.name}") if taken else channel] = _reader(folder / "temp")
    return FileSensor("thermal zones", channels)


def _reader(file: Path) -> Callable[[], float]:
    """The zone of a unit that is powered down cannot be read, or reads 0 or less."""
    least, most = _PLAUSIBLE_C
    read_c = number_in(file, 1e-3)

    def read() -> float:
        celsius = read_c()
        if not least <= celsius <= most:
            raise ValueError(f"{file} reads {celsius:g} degrees")
        return celsius

    return read


_OF_THE_DEVICE = (
    ("VIN",),  # the carrier board of AGX Thor
    ("VDD_IN",),  # Orin Nano and NX, Xavier NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor on other carrier boards
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("platform",),  # a PC whose board reports to its processor
)
"""The first of these whose rails are all there is the total."""

_OF_A_PROCESSOR = ("GPU board", "CPU package")
"""How names begin of rails that hold one processor, where nothing measures the whole: those add up."""


def total_rails(rails: Collection[str]) -> tuple[str, ...]:
    """The rails to add up; () if the rails there are do not cover the device."""
    for total in _OF_THE_DEVICE:
        if all(rail in rails for rail in total):
            return total
    return tuple(rail for rail in rails if rail.startswith(_OF_A_PROCESSOR))
