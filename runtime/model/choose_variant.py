"""Which variant of a bundle runs on this device, and on what: decided by timing a few frames, once.

    choice = choose_variant(bundle, open_candidate, threads=None)
    print(choice)  # "int8 on tensorrt 11.2 ms, fp16 on tensorrt 13.9 ms, fp32 on cpu 310 ms"

INT8 is the fastest on many GPUs and on CPUs with VNNI or AMX, but slower than fp32 on CPUs with AVX2, so that a
fixed order would be wrong somewhere. The choice is kept in the bundle's folder of engines, or in the user's cache
if there is none or it is read-only. It is made anew when the bundle, its engines, the device or a version changes.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from unblur.runtime.errors import DeviceError, EngineMismatch, MissingExtra, ParityError, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.machine.facts import read_cpu
from unblur.runtime.model.bundle import ENGINES, MANIFEST, Bundle
from unblur.runtime.model.golden import GoldenResult, check_golden, golden_frame
from unblur.runtime.model.onnx_session import PROVIDERS
from unblur.runtime.quality.tolerances import BF16, TOLERANCES
from unblur.runtime.runner import FrameRunner, Runner
from unblur.runtime.spec import Device, Precision
from unblur.runtime.strict_json import parse_document, to_json
from unblur.runtime.tensorrt.cuda_driver import probe
from unblur.runtime.tensorrt.engine_file import find_engines, read_record

CHOICE = "choice.json"
SCHEMA = 1

_SIZE_HW = (360, 640)
_FRAMES = 3
_HOPELESS = 4  # times as slow as the best so far in its first frame: not timed further
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "unblur")
_SHIPPED = Path(__file__).parents[1]
_FAILURES = (DeviceError, EngineMismatch, MissingExtra, ParityError, SpecMismatch)

_log = logging.getLogger(__name__)

OpenCandidate = Callable[[Precision, Device], Runner]


@dataclass(frozen=True)
class TimedCandidate:
    """A variant on one of the ways to run it. ms: median per frame, None if it cannot be used, for the reason."""

    precision: Precision
    device: Device
    ms: float | None
    reason: str = ""

    def __str__(self) -> str:
        if self.ms is None:
            return f"{self.precision} on {self.device}"
        digits = ".3g" if self.ms < 100 else ".0f"
        return f"{self.precision} on {self.device} {self.ms:{digits}} ms"


@dataclass(frozen=True)
class Choice:
    """What was timed, at `size_hw`. key: of bundle, engines, device, threads and versions."""

    key: str
    size_hw: tuple[int, int]
    candidates: tuple[TimedCandidate, ...]

    def ranked(self) -> list[TimedCandidate]:
        """The candidates that can be used, the fastest first."""
        return sorted((each for each in self.candidates if each.ms is not None), key=lambda each: each.ms or 0.0)

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranked())) or "nothing runs here"


def choose_variant(bundle: Bundle, open_candidate: OpenCandidate, *, threads: int | None = None) -> Choice:
    """The choice for this device, read where it was kept, else measured and kept.

    open_candidate: opens the bundle's own number of steps, or raises why it cannot. threads: of the CPU, as given.
    """
    key = _key(bundle, threads)
    known = _read(bundle, key)
    if known is not None:
        return known
    _log.info("%s is timed on this device, once", bundle.manifest.name)
    frame = _frame(bundle)
    choice = Choice(key, (frame.shape[0], frame.shape[1]), tuple(_timed(bundle, open_candidate, frame)))
    _keep(bundle, choice)
    return choice


def candidates_of(bundle: Bundle) -> Iterator[tuple[Precision, Device]]:
    """What could run here. fp16 is not tried on CPUs: they compute it in fp32 or bf16, as they do fp32."""
    steps = bundle.spec.steps
    present = [each.precision for each in bundle.manifest.variants if each.steps == steps]
    engines = {read_record(engine).identity.precision for engine in _engines(bundle)}
    yield from ((precision, "tensorrt") for precision in present if precision in engines)
    providers = onnxruntime.get_available_providers()
    if PROVIDERS["ort-tensorrt"] in providers:  # builds what has no engine of ours
        yield from ((precision, "ort-tensorrt") for precision in present if precision not in engines)
    if PROVIDERS["cuda"] in providers:
        yield from ((precision, "cuda") for precision in present if precision != "int8")
    on_cpu = [precision for precision in present if precision != "fp16"] or present
    if find_spec("openvino") is not None:
        yield from ((precision, "openvino") for precision in on_cpu)
    yield from ((precision, "cpu") for precision in on_cpu)


def check_candidate(bundle: Bundle, runner: Runner, device: Device) -> None:
    """Raise ParityError unless `runner` computes what the bundle's golden vectors say.

    Engines are checked when they are opened, and fp32 on ONNX Runtime's CPU provider is the reference itself.
    """
    if device == "tensorrt" or (device == "cpu" and runner.precision == "fp32"):
        return
    result = check_runner(bundle, runner)
    if not result.passed:
        raise ParityError(f"{runner.precision} on {runner.device}: {result.reason}")


def check_runner(bundle: Bundle, runner: Runner) -> GoldenResult:
    """Check a runner of this bundle on its golden vectors, with the tolerance of the arithmetic it computes in."""
    is_bf16 = bool(getattr(runner, "is_bf16", False)) and runner.precision != "int8"
    tolerance = BF16 if is_bf16 else TOLERANCES["engine"][runner.precision]
    return check_golden(bundle, bundle.variant(runner.precision, runner.spec.steps), runner, tolerance)


def frame_ms(runner: Runner, frame: Frame) -> float:
    """Milliseconds to restore one uint8 frame, conversions included."""
    size_hw = frame.shape[0], frame.shape[1]
    out = np.empty((*runner.spec.output_hw(size_hw), 3), np.uint8)
    started = time.perf_counter()
    if isinstance(runner, FrameRunner):
        runner.infer_frame(frame, out)
    else:
        padding = Padding.to_multiple(size_hw, runner.spec.multiple_of)
        restored: Batch = runner.infer(batch_from_frame(frame, padding))
        frame_from_batch(restored, padding.scaled(runner.spec.scale), out)
    return (time.perf_counter() - started) * 1e3


def _timed(bundle: Bundle, open_candidate: OpenCandidate, frame: Frame) -> Iterator[TimedCandidate]:
    best_ms = float("inf")
    for precision, device in candidates_of(bundle):
        try:
            with open_candidate(precision, device) as runner:
                check_candidate(bundle, runner, device)
                ms = _median_ms(runner, frame, best_ms)
        except _FAILURES as error:
            yield TimedCandidate(precision, device, None, str(error))
            continue
        best_ms = min(best_ms, ms)
        yield TimedCandidate(precision, device, ms)


def _median_ms(runner: Runner, frame: Frame, best_ms: float) -> float:
    frame_ms(runner, frame)  # allocates, and compiles for this size
    first_ms = frame_ms(runner, frame)
    if first_ms > _HOPELESS * best_ms:
        return first_ms
    return median([first_ms, *(frame_ms(runner, frame) for _ in range(_FRAMES - 1))])


def _frame(bundle: Bundle) -> Frame:
    """The golden image, repeated to a size that the engines take."""
    height, width = bundle.spec.usual_hw(_SIZE_HW)
    for engine in _engines(bundle)[:1]:
        profiles = read_record(engine).identity.profiles
        if not any(profile.holds((1, 3, *_SIZE_HW)) for profile in profiles):
            height, width = profiles[0].optimum[2:]
    frame = golden_frame()
    repeats = (-(-height // frame.shape[0]), -(-width // frame.shape[1]), 1)
    return np.ascontiguousarray(np.tile(frame, repeats)[:height, :width])


def engine_problems(bundle: Bundle) -> list[str]:
    """Why engine files of the bundle cannot be used at all."""
    return [problem for _, problem in _read_records(bundle) if problem]


def _engines(bundle: Bundle) -> list[Path]:
    """Engine files whose record can be read."""
    return [engine for engine, problem in _read_records(bundle) if not problem]


def _read_records(bundle: Bundle) -> Iterator[tuple[Path, str]]:
    """Each engine file, and why its record cannot be read, or ""."""
    for engine in find_engines(bundle.path) if (bundle.path / ENGINES).is_dir() else ():
        try:
            read_record(engine)
        except EngineMismatch as error:
            yield engine, str(error)
        else:
            yield engine, ""


def _key(bundle: Bundle, threads: int | None) -> str:
    cpu = read_cpu()
    facts = {
        "bundle": hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest(),
        "engines": [engine.name for engine in _engines(bundle)],
        "cpu": [cpu.model, cpu.threads, *cpu.flags],
        "gpu": _gpu(),
        "threads": threads,
        "versions": {package: _version(package) for package in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _gpu() -> str:
    """The GPU and the CUDA version of its driver; "" without one."""
    try:
        return repr(probe())
    except DeviceError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cache_folder() -> Path:
    """unblur's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unblur"


def _note(bundle: Bundle, key: str) -> Path:
    engines = bundle.path / ENGINES
    is_shipped = bundle.path.resolve().is_relative_to(_SHIPPED)
    if engines.is_dir() and os.access(engines, os.W_OK) and not is_shipped:
        return engines / CHOICE
    return cache_folder() / f"choice-{key[:16]}.json"


def _read(bundle: Bundle, key: str) -> Choice | None:
    """The choice that was kept; None if there is none, or one for something else."""
    try:
        note = _note(bundle, key)
        choice = parse_document(Choice, note.read_text("utf-8"), str(note), schema=SCHEMA)
    except (OSError, ValueError):
        return None
    return choice if choice.key == key else None


def _keep(bundle: Bundle, choice: Choice) -> None:
    note = _note(bundle, choice.key)
    document = {"schema": SCHEMA, **{name: to_json(value) for name, value in vars(choice).items()}}
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(note) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    except OSError as error:
        _log.warning("the choice of the variant cannot be kept in %s: %s", note, error)
