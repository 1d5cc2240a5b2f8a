"""What this machine is, as its files, its packages and its driver tell it; nothing is judged here.

    facts = read_facts()
    facts.jetpack, facts.gpu, facts.packages["onnxruntime"]

No module of a GPU is imported: that may crash where a driver is missing, and versions stand in the metadata.
"""

import json
import platform
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from unblur.runtime.engine.libcuda import Device, probe
from unblur.runtime.engine.record import DeviceFacts, Flavour, this_platform
from unblur.runtime.errors import DeviceError

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
    """What `read_facts` found; None where the machine has no such thing.

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
        """ "6.2"; None where this is no Jetson, or one that is older than the table."""
        known = [name for release, name in JETPACKS if self.l4t is not None and _is_from(release, self.l4t)]
        return known[-1] if known else None

    def version_of(self, flavour: Flavour) -> str | None:
        """The version of TensorRT or TensorRT-RTX that Python sees."""
        return next((self.packages[name] for name in PACKAGES[flavour] if name in self.packages), None)

    def device(self, flavour: Flavour) -> DeviceFacts | None:
        """What an engine of that flavour would meet here; None without GPU or without that flavour."""
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
    """Read the machine whose files lie under `root`. packages: default those that this Python can import."""
    gpu, no_gpu = _gpu(find_gpu)
    return SystemFacts(
        python=(sys.version_info.major, sys.version_info.minor),
        platform=this_platform(),
        system=_system(root),
        l4t=_l4t(root),
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


def _l4t(root: Path) -> tuple[int, ...] | None:
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
    """A file of the system, without the zero byte that the device tree ends in; None if there is none."""
    try:
        return path.read_text(errors="replace").rstrip("\0\n")
    except OSError:  # not there, or not for us: both mean that the machine does not say
        return None
