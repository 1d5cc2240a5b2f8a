"""Where the time of a model goes: its layers as they ran here, and how near each is to what the device can do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unblur.runtime.bundle import MANIFEST, read_bundle
from unblur.runtime.engine_runner import EngineRunner
from unblur.runtime.errors import BadInput
from unblur.runtime.int8_advice import advise
from unblur.runtime.layers import Layer
from unblur.runtime.layers_onnx import onnx_layers
from unblur.runtime.layers_tensorrt import profile_engine_layers
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.profile import Placement, Profile, Roofline
from unblur.runtime.roofline import Peaks, measure_peaks, place
from unblur.runtime.runner import Runner


def add_layers(profile: Profile, runner: Runner, threads: int | None) -> Profile:
    """The profile of `runner` with its layers, measured in a session of their own, which takes longer than without.

    threads: those that the runner was opened with. An INT8 model gets advice too; in a bundle it is compared with
    fp32. The roofline is that of the CPU; an engine has none. Raises BadInput if nothing can look into that runner,
    and what `onnx_layers` and `profile_engine_layers` raise.
    """
    height, width = profile.padded_size
    shape = (profile.batch, 3, height, width)
    is_int8 = profile.precision == "int8"
    if isinstance(runner, EngineRunner):
        layers = tuple(profile_engine_layers(runner.path, shape))
        return replace(profile, layers=layers, int8_advice=tuple(advise(layers)) if is_int8 else None)
    if not isinstance(runner, OnnxRunner) or not runner.device.startswith("cpu"):
        raise BadInput(f"the layers of a model on {runner.device} cannot be timed; take --device cpu or an engine")
    layers = tuple(onnx_layers(runner.path, shape, threads=threads))
    peaks = measure_peaks(threads)
    profile = replace(profile, layers=layers, roofline=_roofline(layers, peaks))
    if not is_int8:
        return profile
    plain = _float_twin(runner.path, profile.steps)
    plain_layers = [] if plain is None else onnx_layers(plain, shape, threads=threads)
    advice = advise(layers, peaks, plain=plain_layers, cpu=profile.environment.cpu)
    return replace(profile, int8_advice=tuple(advice))


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
