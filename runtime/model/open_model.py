"""Open what a user names as a model: a shipped preset, a bundle, an .onnx file or an engine.

For a bundle the choice is logged in one line, with the times it rests on: "lprn-s int8 runs on cuda:0 (TensorRT
10.3.0): int8 on tensorrt 11.2 ms, fp16 on tensorrt 13.9 ms, fp32 on cpu 310 ms".
"""

import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from unblur.runtime.errors import (
    BadInput,
    DeviceError,
    EngineMismatch,
    MissingExtra,
    ParityError,
    SpecMismatch,
    needs_extra,
)
from unblur.runtime.files import atomic_file, recover_folder
from unblur.runtime.frames import Batch, Padding, batch_from_frame
from unblur.runtime.model.bundle import ENGINES, Bundle, Golden, Variant, read_bundle
from unblur.runtime.model.choose_variant import Choice, cache_folder, candidates_of, choose_variant, engine_problems
from unblur.runtime.model.golden import agreement_of, check_golden, golden_frame, read_golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.onnx_session import OnnxDevice
from unblur.runtime.quality.tolerances import TOLERANCES, Agreement
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import Device, Precision, SpecOverrides
from unblur.runtime.tensorrt.engine_file import EngineIdentity, EngineRecord, Profile, find_engines, read_record
from unblur.runtime.tensorrt.engine_runner import EngineRunner

CHECKED_SUFFIX = ".checked"

_log = logging.getLogger(__name__)


def open_engine(
    bundle: Bundle, precisions: Sequence[Precision], steps: int
) -> tuple[EngineRunner | None, list[str]]:
    """The first engine of the bundle that runs here and is right, and why not those before it.

    precisions: in order of preference. The first time that an engine is opened its output is checked; that it
    passed is noted beside it, if the folder can be written.
    """
    reasons: list[str] = []
    for engine, variant in _candidates(bundle, precisions, steps, reasons):
        try:
            return _open_checked(bundle, variant, engine), reasons
        except (EngineMismatch, DeviceError, MissingExtra, ParityError) as error:
            reasons.append(f"{variant.precision} engine: {error}")
    return None, reasons


def _open_checked(bundle: Bundle, variant: Variant, engine: Path) -> EngineRunner:
    """Open an engine and check its first output; one that is wrong is closed, and a warning logged."""
    runner = EngineRunner(engine)
    with ExitStack() as opening:
        opening.callback(runner.close)
        try:
            check_first_output(bundle, variant, engine, runner)
        except (ParityError, DeviceError) as error:
            _log.warning("not used: %s", error)
            raise
        opening.pop_all()
    return runner


def check_first_output(bundle: Bundle, variant: Variant, engine: Path, runner: EngineRunner) -> None:
    """Run the golden vectors of an engine's variant, unless they passed before on this device.

    Raises ParityError if the engine disagrees with its ONNX file, or if that cannot be decided.
    """
    note = engine.with_suffix(CHECKED_SUFFIX)
    tolerance = TOLERANCES["engine"][variant.precision]
    identity = f"{read_record(engine).engine_sha256} {runner.device} {tolerance}\n"
    if note.is_file() and note.read_text() == identity:
        return
    agreement = engine_agreement(bundle, variant, runner)
    if not agreement.passed:
        raise ParityError(
            f"{engine.name} against {variant.file}: {agreement.reason}; build it again with `unblur build`"
        )
    if os.access(engine.parent, os.W_OK):
        with atomic_file(note) as temporary:
            temporary.write_text(identity)


def engine_agreement(bundle: Bundle, variant: Variant, runner: EngineRunner) -> Agreement:
    """Judge an engine against the ONNX file it was made from.

    An engine of a fixed size does not take the golden image; it is compared with its ONNX file on the CPU, on that
    image repeated to its size, which takes as long as the CPU takes for one frame.
    """
    golden = bundle.golden(variant)
    if golden is not None and _takes(runner, bundle, golden):
        result = check_golden(bundle, variant, runner, TOLERANCES["engine"][variant.precision])
        return Agreement(result.psnr_db, result.threshold_db, result.passed, result.reason)
    batch = _golden_batch(runner.record.identity.profiles[0])
    runner.infer(np.ascontiguousarray(batch[:, :, ::-1]))  # another frame first, in case its output is stale
    restored = runner.infer(batch).copy()
    with OnnxRunner(bundle.path / variant.file, graph_optimization=False) as reference:
        return agreement_of(restored, reference.infer(batch), batch, TOLERANCES["engine"][variant.precision])


def _takes(runner: EngineRunner, bundle: Bundle, golden: Golden) -> bool:
    """Whether the golden image is of a size that the engine was built for."""
    height, width = read_golden_frame(bundle, golden).shape[:2]
    padded_hw = Padding.to_multiple((height, width), runner.spec.multiple_of).padded_hw
    return any(profile.holds((1, 3, *padded_hw)) for profile in runner.record.identity.profiles)


def _candidates(
    bundle: Bundle, precisions: Sequence[Precision], steps: int, reasons: list[str]
) -> Iterator[tuple[Path, Variant]]:
    """The engines of this bundle's own ONNX files at these precisions, in that order."""
    variants = _variants(bundle, precisions, steps)
    records: list[tuple[Path, EngineRecord]] = []
    for engine in find_engines(bundle.path) if (bundle.path / ENGINES).is_dir() else ():
        try:
            records.append((engine, read_record(engine)))
        except EngineMismatch as error:
            reasons.append(str(error))
    for variant in variants:
        for engine, record in records:
            if (record.identity.precision, record.identity.steps) != (variant.precision, variant.steps):
                continue
            if made_from(bundle, variant, record.identity):
                yield engine, variant
            else:
                reasons.append(f"{variant.precision} engine: it was built from another {variant.file}")


def made_from(bundle: Bundle, variant: Variant, identity: EngineIdentity) -> bool:
    """Whether an engine of that precision and steps was made from this bundle's files as they are now.

    Implicit INT8 is made from the fp32 file and a calibration cache, and judged as the INT8 variant.
    """
    precision = variant.precision if identity.calibration_sha256 is None else "fp32"
    sources = _variants(bundle, [precision], variant.steps)
    return identity.onnx_sha256 in [bundle.manifest.files[source.file].sha256 for source in sources]


def _variants(bundle: Bundle, precisions: Sequence[Precision], steps: int) -> list[Variant]:
    present = {(variant.precision, variant.steps): variant for variant in bundle.manifest.variants}
    return [present[precision, steps] for precision in precisions if (precision, steps) in present]


def _golden_batch(profile: Profile) -> Batch:
    """The golden image, repeated to the smallest size that the engine takes."""
    count, _, height, width = profile.minimum
    frame = golden_frame()
    repeats = (-(-height // frame.shape[0]), -(-width // frame.shape[1]), 1)
    tiled = np.tile(frame, repeats)[:height, :width]
    return np.repeat(batch_from_frame(tiled, Padding((height, width), (height, width))), count, axis=0)


def open_model(path: Path, options: RunnerOptions) -> Runner:
    """Open a bundle, an .onnx file or an .engine file; raises what `open_runner` raises."""
    check_overrides(path, options.overrides)
    if path.is_dir():
        return _open_bundle(read_bundle(path), options)
    if path.suffix != ".engine":
        return _checked(path, _open_onnx(path, options), options.precision, options.steps)
    if options.device not in ("auto", "tensorrt"):
        raise BadInput(f"{path} is a TensorRT engine, which does not run on {options.device}; give its bundle")
    return _checked(path, EngineRunner(path), options.precision, options.steps)


def check_overrides(path: Path, overrides: SpecOverrides) -> None:
    """BadInput if something is stated about a model that knows it: a bundle or an engine."""
    if path.suffix != ".onnx" and overrides != SpecOverrides():
        raise BadInput(f"{path} says what it takes; --value-range and the like are for .onnx files from elsewhere")


def _open_bundle(bundle: Bundle, options: RunnerOptions) -> Runner:
    """What is asked for; where that leaves a choice, the fastest on this device as `choose_variant` timed it."""
    bundle.variant("fp32" if options.precision == "auto" else options.precision, options.steps)
    asked_for = [each for each in candidates_of(bundle) if _fits(options, *each)]
    if not options.graph_optimization or "auto" not in (options.precision, options.device) or not asked_for:
        reason = f"asked for {options.device}" if options.graph_optimization else "evaluated as written"
        return _logged(bundle, _open_variant(bundle, options), options, reason)
    choice = choice_for(bundle, options.threads)
    fitting = [each for each in choice.candidates if _fits(options, each.precision, each.device)]
    reasons = [str(choice), *(each.reason for each in fitting if each.reason), *engine_problems(bundle)]
    for each in (each for each in choice.ranked() if each in fitting):
        try:
            runner = _open_variant(bundle, replace(options, precision=each.precision, device=each.device))
        except (EngineMismatch, DeviceError, MissingExtra, ParityError, SpecMismatch) as error:
            reasons.append(str(error))
        else:
            return _logged(bundle, runner, options, "; ".join(reasons))
    if options.device == "auto":  # a precision that no CPU is timed in
        return _logged(bundle, _open_variant(bundle, replace(options, device="cpu")), options, "; ".join(reasons))
    raise EngineMismatch("; ".join(reasons[1:]) or f"{bundle.path} does not run on {options.device}")


def choice_for(bundle: Bundle, threads: int | None = None) -> Choice:
    """The candidates for this device, timed; see `choose_variant`."""

    def open_candidate(precision: Precision, device: Device) -> Runner:
        return _open_variant(bundle, RunnerOptions(precision, threads=threads, device=device, quiet=True))

    return choose_variant(bundle, open_candidate, threads=threads)


def _fits(options: RunnerOptions, precision: Precision, device: Device) -> bool:
    return options.precision in ("auto", precision) and options.device in ("auto", device)


def _open_variant(bundle: Bundle, options: RunnerOptions) -> Runner:
    """One precision on one device; precision "auto" is fp32, device "auto" the CPU."""
    variant = bundle.variant("fp32" if options.precision == "auto" else options.precision, options.steps)
    if options.device == "tensorrt":
        engine, reasons = open_engine(bundle, (variant.precision,), variant.steps)
        if engine is None:
            reason = reasons[0] if reasons else "it has no engine"
            raise EngineMismatch(f"{bundle.path} does not run on TensorRT: {reason}; see `unblur build`")
        return engine
    path = bundle.path / variant.file
    return _checked(path, _open_onnx(path, options), variant.precision, variant.steps)


def _open_onnx(path: Path, options: RunnerOptions) -> Runner:
    """On the GPU if ONNX Runtime can, unless the CPU is asked for or a reference, which is the CPU's."""
    if options.device == "tensorrt":
        raise BadInput(f"{path} is not an engine; make one with `unblur build`, or give --device cuda or cpu")
    if options.device == "openvino":
        return open_openvino(path, options.threads, options.overrides)
    if options.device == "ort-tensorrt":
        return _onnx_runner(path, options, options.device)
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if options.device == "cuda" or (options.device == "auto" and options.graph_optimization and has_cuda):
        try:
            return _onnx_runner(path, options, "cuda")
        except DeviceError as error:
            if options.device == "cuda":
                raise
            _log.warning("ONNX Runtime does not run on the GPU: %s", error)
    return _onnx_runner(path, options, "cpu")


def _onnx_runner(path: Path, options: RunnerOptions, device: OnnxDevice) -> OnnxRunner:
    return OnnxRunner(
        path,
        threads=options.threads,
        graph_optimization=options.graph_optimization,
        device=device,
        cache=cache_folder() / "ort-tensorrt",
        overrides=options.overrides,
    )


def open_openvino(path: Path, threads: int | None = None, overrides: SpecOverrides = SpecOverrides()) -> Runner:
    """On OpenVINO, in bfloat16 where the CPU has it; MissingExtra without the package."""
    with needs_extra("openvino"):
        from unblur.runtime.model.openvino_runner import OpenVinoRunner
    return OpenVinoRunner(path, threads=threads, cache=cache_folder() / "openvino", overrides=overrides)


def _checked(path: Path, runner: Runner, precision: Precision | Literal["auto"], steps: int | None) -> Runner:
    """The runner if it is what is asked for; else it is closed, and SpecMismatch raised."""
    problem = ""
    if precision not in ("auto", runner.precision):
        problem = f"is {runner.precision}, asked for {precision}; give a bundle that has both"
    elif steps not in (None, runner.spec.steps):
        problem = f"runs {runner.spec.steps} steps, asked for {steps}; export it again with --steps {steps}"
    if problem:
        runner.close()
        raise SpecMismatch(f"{path} {problem}")
    return runner


def _logged(bundle: Bundle, runner: Runner, options: RunnerOptions, reason: str) -> Runner:
    if not options.quiet:
        _log.info("%s %s runs on %s: %s", bundle.manifest.name, runner.precision, runner.device, reason)
    return runner


_SHIPPED = Path(__file__).parents[1] / "bundles"


def open_runner(model: str | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
    """Open what a user names as a model, checked and ready to infer.

    model: a shipped preset ("lprn-s"), a bundle folder, an .onnx file or an .engine file.

    Raises BadInput if there is no such model, BundleError if a bundle is damaged, SpecMismatch if it has no such
    variant, EngineMismatch or DeviceError if the device that was asked for cannot run it.
    """
    return open_model(find_model(model), options)


def find_model(model: str | Path) -> Path:
    """The bundle folder or file that `model` names; see `open_runner`. A shipped name goes before a file."""
    shipped = shipped_presets()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    recover_folder(path)
    if path.is_dir() or path.suffix in (".onnx", ".engine"):
        return path
    if path.is_file():
        raise BadInput(f"{path} cannot be run as it is; expected a bundle folder, an .onnx or an .engine file")
    near = difflib.get_close_matches(str(model), shipped, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped: {', '.join(shipped) or 'none'}."
    raise BadInput(f"there is no model '{model}'; {hint} A bundle folder or an .onnx file works too")


def shipped_presets() -> dict[str, Path]:
    """The bundles that come with the package, by preset name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.unblur"))}
