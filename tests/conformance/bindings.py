"""The real Python bindings of TensorRT without its libraries, which cannot be installed from the package index.

A binding is linked to `libnvinfer` and its companions. Empty ones that export the names it needs make it
importable, with every class, enum and signature of that version; only what would compute gives nothing.
"""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


class NoWheel(RuntimeError):
    """The package index has no wheel of that version for this Python, or cannot be reached."""


@dataclass(frozen=True)
class Binding:
    """package: on the package index. module: what it installs."""

    package: str
    version: str
    module: str = "tensorrt_bindings"

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


def unpack(binding: Binding, cache: Path) -> tuple[Path, Path]:
    """The folder to import the binding from, and that of its stand-in libraries; downloaded once."""
    folder = cache / binding.requirement
    stand_ins = folder / "lib"
    if not stand_ins.is_dir():
        wheel = download(binding.requirement, folder)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        _compile(stand_ins, binding.version.partition(".")[0])
    return folder, stand_ins


def download(requirement: str, folder: Path) -> Path:
    """The wheel of a requirement such as "tensorrt-rtx==1.7.1.116", put in `folder`; NoWheel if there is none."""
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise NoWheel(f"{requirement}: {reason[0]}")
    return wheels[0]


def _compile(folder: Path, major: str) -> None:
    """One library with all names; the others are empty, the loader asks only that they exist."""
    folder.mkdir()
    source = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS)
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), "-x", "c", "-"]
        text = source if library == LIBRARIES[0] else ""
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
