"""An ONNX file that unblur wrote -> the bytes of an engine, for TensorRT 10, 11 and TensorRT-RTX.

    source = read_source(Path("lprn-s.unblur/int8.onnx"))
    api = load_api("rtx")
    identity = identify(source, Target("rtx", 86), api, [Profile(...)], BuildOptions())
    built = engine_from_onnx(source, identity, api, BuildWatch())

The precision is that of the graph, by strong typing; implicit INT8 and a DLA before TensorRT 11 are typed weakly.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from unblur.calibration.onnx_model import OnnxModel, onnx_bytes, read_onnx
from unblur.calibration.trt_cache import TensorRTCache, read_cache, table_from_cache, version_from_text
from unblur.export.fp16 import half_ends
from unblur.export.timing_cache import TimingCache
from unblur.export.trt_api import ParseProblem, Settings, TrtApi, dla_refusal, dla_types_weakly
from unblur.runtime.errors import BadInput, EngineMismatch, SpecMismatch
from unblur.runtime.frames import Padding
from unblur.runtime.machine.facts import jetson_linux
from unblur.runtime.spec import ModelSpec, Precision, SpecOverrides, parse_size_hw
from unblur.runtime.tensorrt.cuda_driver import probe
from unblur.runtime.tensorrt.engine_file import (
    BuildOptions,
    EngineIdentity,
    EngineRecord,
    Flavour,
    Profile,
    hash_of,
    this_platform,
)

DEFAULT_SIZE = "720x1280"

_RTX_TARGET = re.compile(r"rtx-sm(\d{2,3})")


@dataclass(frozen=True)
class Target:
    """sm: the architecture to build for; None is that of the GPU in this machine."""

    flavour: Flavour
    sm: int | None

    def __str__(self) -> str:
        return self.flavour if self.sm is None else f"{self.flavour}-sm{self.sm}"


def targets_from_text(text: str) -> tuple[Target, ...]:
    """ "tensorrt" or "rtx-sm86,rtx-sm89", each once; BadInput if it is neither."""
    return tuple(dict.fromkeys(_target(part.strip()) for part in text.split(",")))


def profile_from_text(text: str, multiple_of: int) -> Profile:
    """A frame size "HxW", or "MIN:OPT:MAX" of them ("MIN:MAX" is tuned for the largest), for single frames.

    Sizes are rounded up to multiples of `multiple_of`: the runtime pads its frames in the same way.
    """
    sizes = [_shape(part, multiple_of) for part in text.split(":")]
    if len(sizes) > 3:
        raise BadInput(f"--size is '{text}', expected a size such as {DEFAULT_SIZE}, or MIN:OPT:MAX")
    minimum, optimum, maximum = sizes[0], sizes[len(sizes) // 2], sizes[-1]
    profile = Profile(minimum, optimum, maximum)
    if not (profile.holds(optimum) and profile.holds(maximum)):
        raise BadInput(f"--size is '{text}', expected no side of MIN above OPT, none of OPT above MAX")
    return profile


def _target(text: str) -> Target:
    rtx = _RTX_TARGET.fullmatch(text)
    if rtx:
        return Target("rtx", int(rtx[1]))
    if text == "tensorrt":
        return Target("tensorrt", None)
    raise BadInput(f"--target is '{text}', expected 'tensorrt' for this device or rtx-smNN such as rtx-sm86")


def _shape(text: str, multiple_of: int) -> tuple[int, int, int, int]:
    return (1, 3, *Padding.to_multiple(parse_size_hw(text), multiple_of).padded_hw)


@dataclass(frozen=True)
class Source:
    """An ONNX file that an engine is made from.

    precision: of the engine. input, output: names of the graph's tensors. calibration: the ranges of an INT8 engine
    whose graph is fp32, see `calibrated`.
    """

    path: Path
    data: bytes
    model: OnnxModel
    spec: ModelSpec
    precision: Precision
    input: str
    output: str
    calibration: TensorRTCache | None = None


@dataclass(frozen=True)
class Built:
    """An engine.

    layers: what was parsed. inspection: the engine's own report in JSON, where there is a GPU. keep_timings: store
    what was measured on the way; call it when the engine is safe. not_on_dla: the layers that a DLA leaves to the
    GPU.
    """

    engine: bytes
    record: EngineRecord
    layers: list[dict[str, object]]
    inspection: str | None
    keep_timings: Callable[[], None]
    not_on_dla: tuple[str, ...] = ()


class BuildWatch:
    """Follows a build without showing anything; subclass it to show. `stop` ends the build at its next step."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def phase(self, name: str, steps: int) -> None:
        """See trt_api.Watch."""

    def step(self) -> None:
        """See trt_api.Watch."""

    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()


def read_source(path: Path, overrides: SpecOverrides = SpecOverrides()) -> Source:
    """Read and check an ONNX file; see `read_onnx`."""
    model = read_onnx(path, overrides)
    precision = model.precision
    if precision not in get_args(Precision):
        raise SpecMismatch(f"{path} does not say its precision; export the model again with `unblur export`")
    return Source(
        path=path,
        data=model.data if model.adapted else path.read_bytes(),
        model=model,
        spec=model.spec,
        precision=cast(Precision, precision),
        input=model.input,
        output=model.output,
    )


def calibrated(source: Source, cache: Path) -> Source:
    """Implicit INT8: an fp32 graph, and the ranges in a TensorRT calibration cache.

    Raises SpecMismatch if the graph is not fp32, BadInput or CalibrationError if the cache cannot be read or is of
    another model, which TensorRT itself would not notice.
    """
    if source.precision != "fp32":
        raise SpecMismatch(f"{source.path} is {source.precision}, a calibration cache goes with an fp32 model")
    calibration = read_cache(cache)
    table_from_cache(calibration, source.model, where=str(cache))
    return replace(source, precision="int8", calibration=calibration)


def identify(
    source: Source, target: Target, api: TrtApi, profiles: Sequence[Profile], options: BuildOptions
) -> EngineIdentity:
    """What the engine will be, known before it is built.

    Raises EngineMismatch if this version cannot build it, DeviceError if it takes a GPU and there is none.
    """
    _check_options(api, source, options, profiles)
    if target.flavour == "rtx":
        sm, gpu = target.sm or 0, None
        _check_architecture(api, sm)
    else:
        device = probe()
        sm, gpu = device.sm, device.name
    return EngineIdentity(
        flavour=target.flavour,
        version=api.version,
        sm=sm,
        gpu=gpu,
        platform=this_platform(),
        precision=source.precision,
        steps=source.spec.steps,
        profiles=tuple(profiles),
        options=options,
        onnx_sha256=hash_of(source.data),
        calibration_sha256=_hash_of_cache(source.calibration),
    )


def engine_from_onnx(
    source: Source,
    identity: EngineIdentity,
    api: TrtApi,
    watch: BuildWatch,
    *,
    timings: TimingCache | None = None,
    detailed: bool = False,
) -> Built:
    """Build the engine. detailed: keep and return the engine's own layer report, which makes it a little larger.

    Ctrl-C stops the build at its next step and raises KeyboardInterrupt. Raises EngineMismatch if a node is not
    supported or the build fails, DeviceError without a GPU.
    """
    # In a thread of its own: TensorRT swallows what is raised in its callbacks, so the thread that hears Ctrl-C is
    # better not inside it.
    with ThreadPoolExecutor(max_workers=1) as pool:
        building = pool.submit(_build, source, identity, api, watch, timings, detailed)
        try:
            return building.result()
        except KeyboardInterrupt:
            watch.stop()
            wait([building])
            raise


def _hash_of_cache(cache: TensorRTCache | None) -> str | None:
    return None if cache is None else hash_of(cache.to_text().encode())


def _check_options(api: TrtApi, source: Source, options: BuildOptions, profiles: Sequence[Profile]) -> None:
    if source.calibration is not None and not api.can_read_calibration:
        raise EngineMismatch(
            f"--calibration-cache does not work here: {api.name} has no implicit INT8; "
            "build the INT8 model, whose graph holds its ranges"
        )
    if options.dla_core is not None:
        _check_dla(api, source, profiles)
    if options.hardware_compatible and jetson_linux() is not None:
        raise EngineMismatch(
            "--hardware-compatible does not work on JetPack, whose engines are for one kind of GPU; leave it out"
        )
    if api.flavour == "rtx" and (options.hardware_compatible or options.version_compatible):
        raise EngineMismatch(
            "a TensorRT-RTX engine is for the architecture and version it was built with; "
            "leave the compatibility out and name several targets: --target rtx-sm86,rtx-sm89"
        )


def _check_dla(api: TrtApi, source: Source, profiles: Sequence[Profile]) -> None:
    refusal = dla_refusal(api.flavour, api.version, source.precision, calibrated=source.calibration is not None)
    if refusal:
        raise EngineMismatch(f"--dla does not work here: {refusal}")
    for profile in profiles:
        if not profile.is_fixed:
            raise EngineMismatch(
                f"--dla needs a fixed size, --size asks for {profile}; give one size: --size {DEFAULT_SIZE}"
            )


def _check_architecture(api: TrtApi, sm: int) -> None:
    known = api.architectures or ()
    if sm not in known:
        names = ", ".join(f"rtx-sm{number}" for number in known)
        raise EngineMismatch(
            f"{api.name} cannot build for SM{sm}; expected {names}, or `--target tensorrt` on the device itself"
        )


def _settings(identity: EngineIdentity, detailed: bool) -> Settings:
    options = identity.options
    return Settings(
        precision=identity.precision,
        sm=identity.sm,
        level=options.level,
        workspace_mb=options.workspace_mb,
        dla_core=options.dla_core,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        detailed=detailed,
    )


def _unsupported(source: Source, api: TrtApi, problem: ParseProblem) -> str:
    which = f"node '{problem.name}' ({problem.operator})" if problem.operator else "the graph"
    return f"{source.path}: {api.name} does not support {which}: {problem.description}; use ONNX Runtime for it"


def _build(
    source: Source,
    identity: EngineIdentity,
    api: TrtApi,
    watch: BuildWatch,
    timings: TimingCache | None,
    detailed: bool,
) -> Built:
    started = time.perf_counter()
    on_dla = identity.options.dla_core is not None
    weakly = source.calibration is not None or (on_dla and dla_types_weakly(api.version))
    builder = api.create_builder()
    network = api.create_network(builder, weakly_typed=weakly)
    problems = api.parse(network, _parsed(source, weakly=weakly))
    if problems:
        raise EngineMismatch(_unsupported(source, api, problems[0]))
    if not (weakly or on_dla):
        api.allow_formats(network)
    config = api.create_config(builder, network, _settings(identity, detailed), weakly_typed=weakly)
    for profile in identity.profiles:
        api.add_profile(builder, config, source.input, profile)
    if timings is not None:
        api.attach_timings(config, timings.read())
    engine = api.build(builder, network, config, watch, _calibration_text(source, api))
    if engine is None:
        raise EngineMismatch(f"{api.name} could not build the engine: {api.last_error()}")
    record = EngineRecord(
        identity=identity,
        spec=source.spec,
        input=source.input,
        output=source.output,
        engine_sha256=hash_of(engine),
        engine_bytes=len(engine),
        seconds=round(time.perf_counter() - started, 3),
    )
    inspection = api.inspect(engine) if detailed and identity.flavour == "tensorrt" else None

    def keep_timings() -> None:
        if timings is not None:
            timings.update(lambda others: api.merged_timings(config, others))

    on_gpu = api.not_on_dla(network, config) if on_dla else ()
    return Built(engine, record, api.layers(network), inspection, keep_timings, on_gpu)


def _parsed(source: Source, *, weakly: bool) -> bytes:
    """The graph that an engine is built from: in fp16 and INT8 its ends are float16 too."""
    return source.data if weakly or source.precision == "fp32" else onnx_bytes(half_ends(source.model))


def _calibration_text(source: Source, api: TrtApi) -> str | None:
    """The cache under the header without which this version does not read it."""
    if source.calibration is None:
        return None
    version = version_from_text(api.version)
    return replace(source.calibration, version=version, algorithm="EntropyCalibration2").to_text()
