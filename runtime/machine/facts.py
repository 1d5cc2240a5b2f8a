"""Facts about this machine: for `unblur doctor`, and to be stored beside every measurement.

    document = environment()
    document["cpu"]["model"], document["commit"]

Nothing in them identifies the machine or its user.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TypeVar, cast

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.jetson_sensors import jetson_clocks, power_mode
from unblur.runtime.machine.sensors import text_in
from unblur.runtime.strict_json import to_json
from unblur.runtime.tensorrt.cuda_driver import Device, probe
from unblur.runtime.tensorrt.engine_file import DeviceFacts, Flavour, this_platform

JETPACKS: tuple[tuple[tuple[int, ...], str], ...] = (
    ((35, 1), "5.0.2"),
    ((35, 2), "5.1"),
    ((35, 3), "5.1.1"),
    ((35, 4), "5.1.2"),
    ((35, 5), "5.1.3"),
    ((35, 6), "5.1.4"),
    ((36, 2), "6.0 DP"),
    ((36, 3), "6.0"),
    ((36, 4), "6.1"),
    ((36, 4, 3), "6.2"),
    ((36, 4, 4), "6.2.1"),
    ((36, 5), "6.2.2"),
    ((38, 2), "7.0"),
    ((38, 4), "7.1"),
    ((39, 2), "7.2"),
    ((39, 2, 1), "7.2.1"),
)
"""Which JetPack came with which Jetson Linux (L4T), from NVIDIA's JetPack archive; a later point release counts as
the last one before it."""

PACKAGES: Mapping[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
"""The distributions whose version is that of a flavour's Python module."""

_L4T = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_DRIVER = re.compile(r"Kernel Module\D*?(?:for \S+\s+)?(\d+\.[\d.]+)")
_DPKG_STATUS = "var/lib/dpkg/status"
_OWN_DEBIAN_PACKAGES = re.compile(r"nvidia-jetpack|libnvinfer\d+|python3-libnvinfer|nvidia-l4t-core")


@dataclass(frozen=True)
class SystemFacts:
    """What `read_facts` found; None where it does not apply.

    l4t: version of Jetson Linux, (36, 4, 3). board: the name in the device tree. driver: version of the kernel
    module. toolkit: version of CUDA that is installed to compile with. packages: Python distributions in lower case
    with dashes. debian: versions of NVIDIA's Debian packages. no_gpu: why `gpu` is None.
    """

    python: tuple[int, int]
    platform: str
    system: str
    l4t: tuple[int, ...] | None
    board: str | None
    driver: str | None
    toolkit: str | None
    packages: Mapping[str, str]
    debian: Mapping[str, str]
    gpu: Device | None
    no_gpu: str = ""

    @property
    def jetpack(self) -> str | None:
        """ "6.2"; None unless this is a Jetson that the table covers."""
        known = [name for release, name in JETPACKS if self.l4t is not None and _is_from(release, self.l4t)]
        return known[-1] if known else None

    def version_of(self, flavour: Flavour) -> str | None:
        """The version of TensorRT or TensorRT-RTX that Python sees."""
        return next((self.packages[name] for name in PACKAGES[flavour] if name in self.packages), None)

    def device(self, flavour: Flavour) -> DeviceFacts | None:
        """The device that an engine of that flavour would run on; None without GPU or that flavour."""
        version = self.version_of(flavour)
        if self.gpu is None or version is None:
            return None
        return DeviceFacts(flavour, version, self.gpu.sm, self.gpu.name, self.platform)


def read_facts(
    root: Path = Path("/"),
    *,
    find_gpu: Callable[[], Device] = probe,
    packages: Mapping[str, str] | None = None,
) -> SystemFacts:
    """Read the machine whose files are under `root`. packages: default those installed for this Python."""
    gpu, no_gpu = _gpu(find_gpu)
    return SystemFacts(
        python=(sys.version_info.major, sys.version_info.minor),
        platform=this_platform(),
        system=_system(root),
        l4t=jetson_linux(root),
        board=_text(root / "proc/device-tree/model"),
        driver=_match(_DRIVER, root / "proc/driver/nvidia/version"),
        toolkit=_toolkit(root),
        packages=_installed() if packages is None else packages,
        debian=_debian(root),
        gpu=gpu,
        no_gpu=no_gpu,
    )


def _gpu(find_gpu: Callable[[], Device]) -> tuple[Device | None, str]:
    try:
        return find_gpu(), ""
    except DeviceError as error:
        return None, str(error)


def _is_from(release: tuple[int, ...], l4t: tuple[int, ...]) -> bool:
    """Whether `l4t` is that release or a later one of the same major number."""
    return release[0] == l4t[0] and release <= l4t


def jetson_linux(root: Path = Path("/")) -> tuple[int, ...] | None:
    """The version of Jetson Linux (L4T) below `root`; None on other machines."""
    match = _L4T.search(_text(root / "etc/nv_tegra_release") or "")
    return None if match is None else (int(match[1]), *map(int, match[2].strip(".").split(".")))


def _system(root: Path) -> str:
    """ "Ubuntu 22.04.5 LTS"."""
    text = _text(root / "etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else platform.system()


def _toolkit(root: Path) -> str | None:
    text = _text(root / "usr/local/cuda/version.json")
    if text is None:
        return None
    try:
        return str(json.loads(text)["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _debian(root: Path) -> dict[str, str]:
    """From the package database; only paragraphs that say "installed" count."""
    paragraphs = (_text(root / _DPKG_STATUS) or "").split("\n\n")
    fields = (dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE)) for paragraph in paragraphs)
    return {
        each["Package"]: each.get("Version", "")
        for each in fields
        if _OWN_DEBIAN_PACKAGES.fullmatch(each.get("Package", "")) and each.get("Status", "").endswith(" installed")
    }


def _installed() -> dict[str, str]:
    named = ((found.metadata["Name"], found.version) for found in distributions())
    return {name.lower().replace("_", "-"): version for name, version in named if name}


def _match(pattern: re.Pattern[str], path: Path) -> str | None:
    match = pattern.search(_text(path) or "")
    return None if match is None else match[1]


def _text(path: Path) -> str | None:
    """Contents of a system file, without the zero byte that ends a device tree entry; None if unreadable."""
    try:
        return path.read_text(errors="replace").rstrip("\0\n")
    except OSError:  # missing or not permitted: unknown either way
        return None


T = TypeVar("T")

RECORDED_PACKAGES = (
    "unblur",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "torch",
    "av",
)
"""The distributions that decide how fast or how exact something is."""

_FLAGS = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""Instruction sets that ONNX Runtime chooses its kernels by, as /proc/cpuinfo spells them on x86 and on Arm."""

_ARM_CORES: Mapping[tuple[str, str], str] = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}
"""(implementer, part): Arm's cores do not give their name. From arch/arm64/include/asm/cputype.h of Linux."""


@dataclass(frozen=True)
class Cpu:
    """The processor. threads: that the system schedules on. flags: its instruction sets that matter here.

    governor: who sets the clock of the first core, "performance" or "schedutil"; None where Linux cannot set it.
    """

    model: str
    threads: int
    flags: tuple[str, ...]
    governor: str | None


@dataclass(frozen=True)
class Environment:
    """What a figure depends on besides the model; None where unknown or not applicable.

    commit: of the sources, with "-dirty" where tracked files differ from it; None for an installed package.
    memory_bytes: of the CPU, which a Jetson's GPU shares. power_mode, jetson_clocks: how a Jetson is set, "MAXN".
    packages: versions of those in `RECORDED_PACKAGES` that are there.
    """

    commit: str | None
    python: str
    system: str
    kernel: str
    cpu: Cpu
    memory_bytes: int | None
    board: str | None
    jetpack: str | None
    power_mode: str | None
    jetson_clocks: bool | None
    gpu: Device | None
    driver: str | None
    packages: Mapping[str, str]


def environment() -> dict[str, object]:
    """The `Environment` of this machine as a JSON document."""
    return cast("dict[str, object]", to_json(read_environment()))


def read_environment(root: Path = Path("/"), *, facts: SystemFacts | None = None) -> Environment:
    """Read the machine whose files lie under `root`. facts: default those that `read_facts` finds there."""
    facts = read_facts(root) if facts is None else facts
    return Environment(
        commit=_commit(Path(__file__).parents[2]),
        python=platform.python_version(),
        system=facts.system,
        kernel=platform.release(),
        cpu=read_cpu(root),
        memory_bytes=_memory_bytes(root),
        board=facts.board,
        jetpack=facts.jetpack,
        power_mode=_or_none(power_mode, root),
        jetson_clocks=_or_none(jetson_clocks, root),
        gpu=facts.gpu,
        driver=facts.driver,
        packages={name: facts.packages[name] for name in RECORDED_PACKAGES if name in facts.packages},
    )


def _or_none(get: Callable[[Path], T], root: Path) -> T | None:
    try:
        return get(root)
    except DeviceError:
        return None


def _commit(checkout: Path) -> str | None:
    """None too where git is not installed, or refuses a checkout of another user."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def read_cpu(root: Path = Path("/")) -> Cpu:
    """The processor, by the files under `root`."""
    text = text_in(root / "proc/cpuinfo")
    flags = set(_field(text, "flags", "Features").split())
    return Cpu(
        model=_model(text),
        threads=os.cpu_count() or 1,
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        governor=text_in(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
    )


def _model(cpuinfo: str) -> str:
    """ "AMD EPYC 7763", "Cortex-A78AE"; the machine type where /proc/cpuinfo names nothing."""
    core = _ARM_CORES.get((_field(cpuinfo, "CPU implementer"), _field(cpuinfo, "CPU part")))
    return core or _field(cpuinfo, "model name") or platform.machine()


def _field(cpuinfo: str, *names: str) -> str:
    match = re.search(rf"^(?:{'|'.join(names)})\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""


def _memory_bytes(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_in(root / "proc/meminfo"), re.MULTILINE)
    return None if match is None else int(match[1]) * 1024


def usable_cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SMALLEST_CACHE = 32 << 20
"""Least bytes assumed for the last-level cache: not every device reports it."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CACHE_SIZE = re.compile(r"(\d+)K")


def last_level_cache(caches: Path = _CACHES) -> int:
    """Bytes of the largest cache that Linux reports for the first core, at least `SMALLEST_CACHE`."""
    sizes = [_CACHE_SIZE.match(file.read_text()) for file in caches.glob("index*/size")]
    return max([SMALLEST_CACHE, *(int(size[1]) << 10 for size in sizes if size)])
