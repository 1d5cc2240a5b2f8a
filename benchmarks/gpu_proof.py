"""Everything that can only be shown on an NVIDIA GPU, in one go: `make gpu-proof`.

    python -m benchmarks.gpu_proof -o docs/verified_gpu.json

The tests of tests/gpu, then a copy of the shipped bundle through the commands that people type: engines of three
precisions are built, a clip and a camera restored, the engines profiled and verified, and a camera that dies is
restored for two minutes. Exit code 0 if all of it holds, 1 if not, 2 with one line if something is missing here.
(Not yet run on a GPU.)
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.clip import write_clip
from benchmarks.command import Model, NotMeasured, last_line, log, require_program, run, unblur
from unblur.runtime.errors import DeviceError, MissingExtra
from unblur.runtime.files import atomic_file
from unblur.runtime.machine.facts import read_environment
from unblur.runtime.model.open_model import find_model
from unblur.runtime.strict_json import to_json
from unblur.runtime.tensorrt.cuda_driver import Device, probe
from unblur.runtime.tensorrt.trt import TensorRT, load_tensorrt

PRECISIONS = ("fp32", "fp16", "int8")
_ROOT = Path(__file__).parents[1]
_CAMERA = "test://moving?size=720x1280&fps=30&frames=300"

Document = dict[str, Any]


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results are written.")],
    model: Model = "lprn-n",
    soak_minutes: Annotated[float, typer.Option(help="How long the camera that dies is restored.")] = 2,
) -> None:
    """Prove on this GPU what tests elsewhere can only imitate."""
    device, trt = what_is_here()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "proof.unblur"
        shutil.copytree(find_model(model), bundle)
        steps = prove(bundle, trt, soak_minutes)
    passed = all(step["exit_code"] == 0 for step in steps.values())
    found = {"device": to_json(device), "tensorrt": str(trt), "environment": to_json(read_environment())}
    with atomic_file(output) as temporary:
        temporary.write_text(dumps({"passed": passed, **found, "steps": steps}, indent=1) + "\n")
    log(f"{'all of it holds' if passed else 'NOT all of it holds'}: {output}")
    raise typer.Exit(0 if passed else 1)


def what_is_here() -> tuple[Device, TensorRT]:
    """The GPU and TensorRT of this machine; NotMeasured, in one line, names the first thing that is missing."""
    try:
        device = probe()
        trt = load_tensorrt("tensorrt" if find_spec("tensorrt") is not None else "rtx")
    except (DeviceError, MissingExtra) as error:
        raise NotMeasured(f"no proof on a GPU: {error}") from error
    if find_spec("onnx") is None:
        raise NotMeasured(
            "no proof on a GPU: building engines needs the package onnx: pip install 'unblur[tensorrt]'"
        )
    require_program("ffmpeg")
    return device, trt


def prove(bundle: Path, trt: TensorRT, soak_minutes: float) -> dict[str, Document]:
    """What every step said, by its name, each with its exit code; a step that cannot be done ends nothing."""
    target = "tensorrt" if trt.flavour == "tensorrt" else f"rtx-sm{probe().sm}"
    clip, sink = write_clip(bundle.parent / "clip.mp4", 120, (720, 1280)), str(bundle.parent / "sharp.mp4")
    soak = ("--kill-every", "30", "--json", "--model")
    run_on_gpu = ("--device", "tensorrt", "--json")
    steps: dict[str, Callable[[], Document]] = {
        "tests": lambda: _step([sys.executable, "-m", "pytest", "-q", "-rs", "tests/gpu"], is_json=False),
        "build": lambda: _step(
            unblur("build", str(bundle), "--target", target, "--precision", ",".join(PRECISIONS), "--json")
        ),
        "run clip": lambda: _step(unblur("run", str(bundle), "--source", str(clip), "--sink", sink, *run_on_gpu)),
        "run camera": lambda: _step(
            unblur("run", str(bundle), "--source", _CAMERA, "--sink", "null:", *run_on_gpu)
        ),
        **{f"profile {each}": _profile(bundle, each) for each in PRECISIONS},
        "verify": lambda: _step(unblur("verify", str(bundle), "--json")),
        "doctor": lambda: _step(unblur("doctor", str(bundle), "--json")),
        "soak": lambda: _step(
            [sys.executable, *f"-m benchmarks.soak --minutes {soak_minutes}".split(), *soak, str(bundle)]
        ),
    }
    found = {}
    for name, step in steps.items():
        log(f"{name} ...")
        found[name] = step()
    return found


def _profile(bundle: Path, precision: str) -> Callable[[], Document]:
    options = ("--device", "tensorrt", "--precision", precision, "--seconds", "5", "--json")
    return lambda: _step(unblur("profile", str(bundle), *options))


def _step(command: list[str], *, is_json: bool = True) -> Document:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    said = loads(done.stdout) if is_json and done.stdout.startswith(("{", "[")) else last_line(done.stdout)
    return {"exit_code": done.returncode, "said": said, "error": last_line(done.stderr) if done.returncode else ""}


if __name__ == "__main__":
    run(main)
