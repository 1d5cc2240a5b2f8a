"""What a measurement was taken on, to be stored beside it: a figure without its machine says nothing.

    document = environment()
    document["cpu"]["model"], document["commit"]

Nothing in it names the machine or its user.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from unblur.runtime.engine.libcuda import Device
from unblur.runtime.errors import DeviceError
from unblur.runtime.records import to_json
from unblur.runtime.system_facts import SystemFacts, read_facts
from unblur.runtime.telemetry.power_mode import jetson_clocks, power_mode
from unblur.runtime.telemetry.sensor import text_in

T = TypeVar("T")

PACKAGES = (
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
"""(implementer, part): Arm's cores do not tell a name. From arch/arm64/include/asm/cputype.h of Linux."""


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
    """What a figure depends on besides the model; None where the machine has no such thing or does not tell.

    commit: of the sources, with "-dirty" where tracked files differ from it; None for an installed package.
    memory_bytes: of the CPU, which a Jetson's GPU shares. power_mode, jetson_clocks: how a Jetson is set, "MAXN".
    packages: versions of those in `PACKAGES` that are there.
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
        commit=_commit(Path(__file__).parents[1]),
        python=platform.python_version(),
        system=facts.system,
        kernel=platform.release(),
        cpu=_cpu(root),
        memory_bytes=_memory_bytes(root),
        board=facts.board,
        jetpack=facts.jetpack,
        power_mode=_or_none(power_mode, root),
        jetson_clocks=_or_none(jetson_clocks, root),
        gpu=facts.gpu,
        driver=facts.driver,
        packages={name: facts.packages[name] for name in PACKAGES if name in facts.packages},
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


def _cpu(root: Path) -> Cpu:
    text = text_in(root / "proc/cpuinfo")
    flags = set(_field(text, "flags", "Features").split())
    return Cpu(
        model=_model(text),
        threads=os.cpu_count() or 1,
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        governor=text_in(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
    )


def _model(cpuinfo: str) -> str:
    """ "AMD EPYC 7763", "Cortex-A78AE"; what the machine is called where /proc/cpuinfo names nothing."""
    core = _ARM_CORES.get((_field(cpuinfo, "CPU implementer"), _field(cpuinfo, "CPU part")))
    return core or _field(cpuinfo, "model name") or platform.machine()


def _field(cpuinfo: str, *names: str) -> str:
    match = re.search(rf"^(?:{'|'.join(names)})\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""


def _memory_bytes(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_in(root / "proc/meminfo"), re.MULTILINE)
    return None if match is None else int(match[1]) * 1024
