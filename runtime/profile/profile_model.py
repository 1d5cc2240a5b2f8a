"""A whole profile: open and measure a model, then as asked sweep, compare and look into its layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unblur.runtime.errors import BadInput
from unblur.runtime.model.bundle import MANIFEST, read_bundle
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.profile.comparison import compare, interleave
from unblur.runtime.profile.document import Against, Percentiles, Placement, Profile, Roofline, intervals_of
from unblur.runtime.profile.int8_advice import advise
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.layers_onnx import onnx_layers
from unblur.runtime.profile.layers_tensorrt import profile_engine_layers
from unblur.runtime.profile.measure import Control, Plan, profile_runner, ready_to_measure
from unblur.runtime.profile.roofline import OPERATIONS_A_CLOCK, Peaks, measure_gpu_peaks, measure_peaks, place
from unblur.runtime.profile.sweep import SweepRequest, sweep
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.open_cuda import open_cuda

LEAST_ROUNDS = 6
"""Of two runs of each model: what `compare` takes at least."""


def profile_against(runner: Runner, other: Runner, plan: Plan, *, model: str, control: Control) -> Against | None:
    """Compare two runners at the size of `plan`, for twice its seconds, since two share them.

    model: what the document calls `other`.
    None if it was stopped before there was enough to compare.
    """
    first, second = (ready_to_measure(each, plan, control) for each in (runner, other))
    times_ms: list[float] = []
    other_ms: list[float] = []
    began, done = control.clock(), 0.0
    while (done < 1 or len(times_ms) < 2 * LEAST_ROUNDS) and not control.stop.is_set():
        round_ms, other_round_ms = interleave(first, second, rounds=1, seed=len(times_ms))
        times_ms += round_ms
        other_ms += other_round_ms
        done = (control.clock() - began) / (2e9 * plan.seconds)
        control.watch("in turn", min(done, 1.0))
    if len(times_ms) < 2 * LEAST_ROUNDS:
        return None
    comparison, latency = compare(times_ms, other_ms), summarise(other_ms)
    return Against(
        model=model,
        precision=other.precision,
        steps=other.spec.steps,
        device=other.device,
        samples=latency.samples,
        latency_ms=Percentiles.of(latency),
        intervals_ms=intervals_of(latency),
        ratio=comparison.ratio,
        ratio_interval=(comparison.interval.low, comparison.interval.high),
        verdict=comparison.verdict,
    )


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
        layers = onnx_layers(runner.path, shape, threads=threads, overrides=runner.overrides)
        peaks = measure_peaks(threads)
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
    """The fp32 file of as many steps in the bundle of a file; None if there is none."""
    if not (model.parent / MANIFEST).is_file():
        return None
    bundle = read_bundle(model.parent)
    variants = bundle.manifest.variants
    return next(
        (bundle.path / each.file for each in variants if (each.precision, each.steps) == ("fp32", steps)), None
    )


@dataclass(frozen=True)
class ModelChoice:
    """Which model to open, and how."""

    model: str
    options: RunnerOptions = RunnerOptions()

    @property
    def name(self) -> str:
        """Without its folder."""
        return Path(self.model).name

    def open(self, *, quiet: bool = True) -> Runner:
        """See `open_runner`."""
        return open_runner(self.model, replace(self.options, quiet=quiet))


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure of which model. against: the model to compare it with. layers: look inside."""

    choice: ModelChoice
    plan: Plan
    sweeps: SweepRequest | None = None
    against: ModelChoice | None = None
    layers: bool = False


def profile_model(
    request: ProfileRequest,
    control: Control,
    *,
    import_ms: float | None = None,
    keep: Callable[[Profile], object] = lambda profile: None,
) -> Profile:
    """Do what is asked for.

    import_ms: that importing the runners took. keep: given what there is after each section, so that an error in a
    later one does not lose it. Raises what the sections raise.
    """
    began = control.clock()
    with request.choice.open(quiet=False) as runner:
        cold_ms = {"import": import_ms, "open": (control.clock() - began) / 1e6}
        profile = profile_runner(
            runner,
            request.plan,
            model=request.choice.name,
            cold_ms=cold_ms,
            threads=request.choice.options.threads,
            control=control,
        )
        keep(profile)
        if request.layers and not control.stop.is_set():
            profile = add_layers(profile, runner, request.choice.options.threads)
            keep(profile)
        if request.sweeps is not None and not control.stop.is_set():
            sweeps = sweep(request.sweeps, runner, request.choice.open, request.plan, control)
            profile = replace(profile, sweeps=sweeps)
            keep(profile)
        if request.against is not None and not control.stop.is_set():
            profile = replace(profile, against=_against(runner, request.against, request.plan, control))
    return replace(profile, interrupted=control.stop.is_set())


def _against(runner: Runner, choice: ModelChoice, plan: Plan, control: Control) -> Against | None:
    with choice.open(quiet=False) as other:
        return profile_against(runner, other, plan, model=choice.name, control=control)
