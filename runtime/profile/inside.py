"""Where the time of a model goes: its layers as they ran here, and how near each is to what the device can do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unblur.runtime.bundle import MANIFEST, read_bundle
from unblur.runtime.engine.cuda import open_cuda
from unblur.runtime.engine.runner import EngineRunner
from unblur.runtime.errors import BadInput
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.profile.document import Placement, Profile, Roofline
from unblur.runtime.profile.gpu_peaks import OPERATIONS_A_CLOCK, measure_gpu_peaks
from unblur.runtime.profile.int8_advice import advise
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.layers_onnx import onnx_layers
from unblur.runtime.profile.layers_tensorrt import profile_engine_layers
from unblur.runtime.profile.roofline import Peaks, measure_peaks, place
from unblur.runtime.runner import Runner


def add_layers(profile: Profile, runner: Runner, threads: int | None) -> Profile:
    """The profile of `runner` with its layers, measured in a session of their own, which takes longer than without.

    threads: those that the runner was opened with. The roofline is measured here; a GPU of an unknown architecture
    has none. An INT8 model gets advice too; an ONNX file in a bundle is compared with fp32 for it. Raises BadInput
    if nothing can look into that runner, and what `onnx_layers` and `profile_engine_layers` raise.
    """
    shape = (profile.batch, 3, *_height_width(profile))
    if isinstance(runner, EngineRunner):
        layers, peaks = profile_engine_layers(runner.path, shape), _gpu_peaks()
        plain, cpu = list[Layer](), None
    elif isinstance(runner, OnnxRunner) and runner.device.startswith("cpu"):
        layers, peaks = onnx_layers(runner.path, shape, threads=threads), measure_peaks(threads)
        twin = _float_twin(runner.path, profile.steps) if profile.precision == "int8" else None
        plain, cpu = [] if twin is None else onnx_layers(twin, shape, threads=threads), profile.environment.cpu
    else:
        raise BadInput(f"the layers of a model on {runner.device} cannot be timed; take --device cpu or an engine")
    is_int8 = profile.precision == "int8"
    return replace(
        profile,
        layers=tuple(layers),
        roofline=None if peaks is None else _roofline(layers, peaks),
        int8_advice=tuple(advise(layers, peaks, plain=plain, cpu=cpu)) if is_int8 else None,
    )


def _height_width(profile: Profile) -> tuple[int, int]:
    height, width = profile.padded_size
    return height, width


def _gpu_peaks() -> Peaks | None:
    """None if nobody published what this GPU does in a clock."""
    cuda = open_cuda()
    return measure_gpu_peaks(cuda) if cuda.device.sm in OPERATIONS_A_CLOCK else None


def _roofline(layers: Sequence[Layer], peaks: Peaks) -> Roofline:
    """Every layer that was timed."""
    placed = [place(layer, peaks) for layer in layers if layer.ms is not None]
    return Roofline(
        peaks, tuple(Placement(each.layer.name, each.intensity, each.bound, each.attained) for each in placed)
    )


def _float_twin(model: Path, steps: int) -> Path | None:
    """The fp32 file of as many steps in the bundle that a file lies in; None if there is no such."""
    if not (model.parent / MANIFEST).is_file():
        return None
    bundle = read_bundle(model.parent)
    variants = bundle.manifest.variants
    return next(
        (bundle.path / each.file for each in variants if (each.precision, each.steps) == ("fp32", steps)), None
    )
