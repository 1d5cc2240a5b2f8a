"""TensorRT 10, 11 and TensorRT-RTX behind one set of calls: all their differences, and nothing else.

A difference is decided by what the imported module has, not by its version number. `make conformance` holds every
attribute that is touched here against the real bindings of 10.0, 10.3, 10.7, 10.13, 11.4 and TensorRT-RTX 1.7.

    api = load_api("rtx")
    builder = api.create_builder()
    network = api.create_network(builder, weakly_typed=False)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from unblur.runtime.errors import DeviceError, EngineMismatch
from unblur.runtime.spec import Precision, parse_version
from unblur.runtime.tensorrt.engine_file import Flavour, Profile
from unblur.runtime.tensorrt.trt import TensorRT, load_tensorrt

_MIB = 1 << 20


class Watch(Protocol):
    """Follows a build. Called from threads of TensorRT."""

    def phase(self, name: str, steps: int) -> None:
        """A new phase of the build begins."""
        ...

    def step(self) -> None:
        """One step of the phase is done."""
        ...

    def stopped(self) -> bool:
        """Whether to stop the build."""
        ...


@dataclass(frozen=True)
class ParseProblem:
    """Why a node of an ONNX graph cannot be part of an engine. name, operator: empty if it is no single node."""

    name: str
    operator: str
    description: str


@dataclass(frozen=True)
class Settings:
    """What a builder gets beside the network; see BuildOptions for those of the same name.

    sm: the architecture to build for, where the flavour can choose. detailed: keep what the layer report needs.
    """

    precision: Precision
    sm: int
    level: int | None = None
    workspace_mb: int | None = None
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    detailed: bool = False


@cache
def load_api(flavour: Flavour) -> "TrtApi":
    """The installed TensorRT of that flavour; once per process, because it takes only one logger.

    Raises MissingExtra if it is not installed, DeviceError if its libraries do not load.
    """
    return TrtApi(load_tensorrt(flavour))


class TrtApi:
    """One imported TensorRT module. Objects of TensorRT itself are passed around as `Any`: it has no types."""

    def __init__(self, loaded: TensorRT) -> None:
        self._loaded = loaded
        self._trt = loaded.module
        self.flavour: Flavour = loaded.flavour
        self.version = loaded.version

    @property
    def name(self) -> str:
        """For people: "TensorRT 10.3.0"."""
        return str(self._loaded)

    @property
    def can_read_calibration(self) -> bool:
        """Implicit INT8, with ranges from a calibration cache: up to 10.x, never in TensorRT-RTX."""
        return hasattr(self._trt, "IInt8EntropyCalibrator2") and hasattr(
            self._trt.IBuilderConfig, "int8_calibrator"
        )

    @property
    def can_cache_timings(self) -> bool:
        """TensorRT-RTX looks for a GPU as soon as a timing cache is attached, and measures nothing without one."""
        return self.flavour == "tensorrt"

    @property
    def architectures(self) -> tuple[int, ...] | None:
        """The SMs that it can build for without such a GPU; None if it builds for the GPU that is there."""
        capabilities = getattr(self._trt, "ComputeCapability", None)
        if capabilities is None:
            return None
        return tuple(sorted(int(name[2:]) for name in dir(capabilities) if name[:2] == "SM"))

    def last_error(self) -> str:
        """The last message that TensorRT logged as an error, on one line."""
        return self._loaded.last_words()

    def create_builder(self) -> Any:
        """A builder; DeviceError if the library has none to give (no driver, no GPU)."""
        self._loaded.errors.clear()
        try:
            return self._trt.Builder(self._loaded.logger)
        except (TypeError, RuntimeError) as error:  # what pybind11 makes of a null pointer
            raise DeviceError(f"{self.name} gives no builder: {self.last_error()}; see `unblur doctor`") from error

    def create_network(self, builder: Any, *, weakly_typed: bool) -> Any:
        """An empty network whose batch size is part of the shape."""
        flags = self._trt.NetworkDefinitionCreationFlag
        wanted = 0
        if hasattr(flags, "EXPLICIT_BATCH"):  # the only way from 11 on, so there is no flag any more
            wanted |= 1 << int(flags.EXPLICIT_BATCH)
        if not weakly_typed:
            wanted |= 1 << int(flags.STRONGLY_TYPED)
        return builder.create_network(wanted)

    def parse(self, network: Any, onnx: bytes) -> list[ParseProblem]:
        """Fill `network` from the bytes of an ONNX file; what it does not support, nothing if all is well."""
        parser = self._trt.OnnxParser(network, self._loaded.logger)
        if parser.parse(onnx):
            return []
        return [_problem(parser.get_error(index)) for index in range(parser.num_errors)] or [
            ParseProblem("", "", self.last_error())
        ]

    def allow_formats(self, network: Any) -> None:
        """Let the builder choose by its timings how float16 lies at the ends: planar, in pairs or in eights."""
        formats = self._trt.TensorFormat
        allowed = 1 << int(formats.LINEAR) | 1 << int(formats.CHW2) | 1 << int(formats.HWC8)
        ends = (network.get_input(0), network.get_output(0))
        for tensor in (each for each in ends if each.dtype == self._trt.DataType.HALF):
            tensor.allowed_formats = allowed

    def create_config(self, builder: Any, network: Any, settings: Settings, *, weakly_typed: bool) -> Any:
        """The settings in the words of this version; EngineMismatch if it has none for one of them."""
        trt, config = self._trt, builder.create_builder_config()
        # On by default, and 10 bits of mantissa: an fp32 engine would be as exact as an fp16 one.
        config.clear_flag(trt.BuilderFlag.TF32)
        if weakly_typed:
            self._allow_precision(network, config, settings.precision)
        if settings.level is not None:
            config.builder_optimization_level = settings.level
        if settings.workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb * _MIB)
        if settings.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if settings.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if settings.detailed:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if settings.dla_core is not None:
            self._use_dla(builder, config, settings.dla_core)
        if self.architectures is not None:
            self._target(config, settings.sm)
        return config

    def add_profile(self, builder: Any, config: Any, tensor: str, profile: Profile) -> None:
        """Let the engine take batches from `profile.minimum` to `profile.maximum`."""
        sizes = builder.create_optimization_profile()
        sizes.set_shape(tensor, profile.minimum, profile.optimum, profile.maximum)
        if config.add_optimization_profile(sizes) < 0:
            raise EngineMismatch(
                f"{self.name} refuses the size {profile}: {self.last_error()}; give another --size"
            )

    def build(
        self, builder: Any, network: Any, config: Any, watch: Watch, calibration: str | None = None
    ) -> bytes | None:
        """The engine; None if it failed or was stopped, `last_error` has the reason.

        calibration: the text of a calibration cache under this version's header, for implicit INT8.
        """
        # TensorRT keeps neither object alive: the names do.
        config.progress_monitor = monitor = _monitor(self._trt, watch)  # noqa: F841
        calibrator = None if calibration is None else _calibrator(self._trt, calibration)
        if calibrator is not None:
            config.int8_calibrator = calibrator
        engine = builder.build_serialized_network(network, config)
        return None if engine is None else bytes(engine)

    def attach_timings(self, config: Any, timings: bytes) -> None:
        """Start from the kernel timings of earlier builds; those that do not fit this device are left out."""
        cache = config.create_timing_cache(timings)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def merged_timings(self, config: Any, others: bytes) -> bytes:
        """The timings of this build together with those that other processes have stored since it began."""
        cache = config.get_timing_cache()
        other = config.create_timing_cache(others) if others else None
        if other is not None:
            cache.combine(other, False)
        return bytes(cache.serialize())

    def layers(self, network: Any) -> list[dict[str, object]]:
        """What was parsed, layer by layer: name, type, output types and shapes (-1 where a size is open)."""
        return [
            {
                "name": layer.name,
                "type": _last_word(layer.type),
                "outputs": [
                    {"type": _last_word(tensor.dtype), "shape": list(tensor.shape)} for tensor in _outputs(layer)
                ],
            }
            for layer in (network.get_layer(index) for index in range(network.num_layers))
        ]

    def not_on_dla(self, network: Any, config: Any) -> tuple[str, ...]:
        """The layers, "name (TYPE)", that run on the GPU since a DLA cannot run them."""
        layers = (network.get_layer(index) for index in range(network.num_layers))
        return tuple(
            f"{layer.name} ({_last_word(layer.type)})" for layer in layers if not config.can_run_on_DLA(layer)
        )

    def inspect(self, engine: bytes) -> str:
        """The engine's own layer report as JSON. Needs the GPU; DeviceError if the engine does not open."""
        opened = self._trt.Runtime(self._loaded.logger).deserialize_cuda_engine(engine)
        if opened is None:
            raise DeviceError(f"{self.name} cannot open the engine it has built: {self.last_error()}")
        report: str = opened.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return report

    def _allow_precision(self, network: Any, config: Any, precision: Precision) -> None:
        """The flags that make a weakly typed builder keep to the types of the graph.

        fp16 and INT8 are allowed, and the sums over a frame that the graph keeps in float32 are pinned to it: in
        fp16 they overflow (`precision.fp16_from_fp32`).
        """
        flags = self._trt.BuilderFlag
        if precision == "fp32":
            return
        config.set_flag(flags.FP16)
        if precision == "int8":
            config.set_flag(flags.INT8)
        config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
        sums = (self._trt.LayerType.REDUCE, self._trt.LayerType.POOLING, self._trt.LayerType.NORMALIZATION)
        for layer in (network.get_layer(index) for index in range(network.num_layers)):
            if layer.type in sums and layer.get_output(0).dtype == self._trt.DataType.FLOAT:
                layer.precision = self._trt.DataType.FLOAT

    def _use_dla(self, builder: Any, config: Any, core: int) -> None:
        if core >= builder.num_DLA_cores:
            raise EngineMismatch(
                f"DLA core {core} was asked for, this device has {builder.num_DLA_cores} of them; leave --dla out"
            )
        config.default_device_type = self._trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self._trt.BuilderFlag.GPU_FALLBACK)

    def _target(self, config: Any, sm: int) -> None:
        """`sm` is one of `architectures`."""
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(self._trt.ComputeCapability, f"SM{sm}"), 0)


def dla_refusal(flavour: Flavour, version: str, precision: Precision, *, calibrated: bool = False) -> str | None:
    """Why this version cannot build that precision for a DLA; None if it can.

    calibrated: the ranges of INT8 come from a calibration cache, not from Q/DQ nodes.
    From NVIDIA's release notes: 10.0 to 10.7 take INT8 from a calibration cache only, 10.8 to 11.4.0 have no DLA on
    Jetson, 11.4.1 has it again, strongly typed.
    """
    numbers = parse_version(version)
    if flavour == "rtx":
        return "TensorRT-RTX has no DLA"
    if precision == "fp32":
        return "a DLA computes in fp16 or INT8, not in fp32"
    if (10, 8) <= numbers < (11, 4, 1):
        return f"TensorRT {version} has no DLA; 10.7 is the last before, 11.4.1 the first after"
    if precision == "int8" and dla_needs_cache(version) and not calibrated:
        return (
            f"the DLA of TensorRT {version} takes INT8 from a calibration cache only, not from Q/DQ; give a bundle "
            "that has one, or the fp32 model with --calibration-cache"
        )
    return None


def dla_needs_cache(version: str) -> bool:
    """Up to 10.7 a DLA takes its INT8 ranges from a calibration cache."""
    return parse_version(version) < (10, 8)


def dla_types_weakly(version: str) -> bool:
    """Up to TensorRT 10 a strongly typed network cannot be placed on a DLA."""
    return parse_version(version) < (11,)


def _monitor(module: Any, watch: Watch) -> Any:
    """An IProgressMonitor. Phases nest: the outermost is reported, a step of any of them can stop the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # TensorRT has no types
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._outermost = ""

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._outermost = phase
                watch.phase(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase == self._outermost:
                watch.step()
            return not watch.stopped()

        def phase_finish(self, phase: str) -> None:
            """Nothing to say: the next phase says it."""

    return Monitor()


def _calibrator(module: Any, text: str) -> Any:
    """An IInt8Calibrator that gives a cache and no pictures: if TensorRT does not take the cache, the build fails.

    EntropyCalibrator2 is the one that a DLA takes.
    """

    class Calibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc]  # TensorRT has no types
        def __init__(self) -> None:
            module.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            """No pictures."""

        def read_calibration_cache(self) -> bytes:
            return text.encode()

        def write_calibration_cache(self, cache: bytes) -> None:
            """It would be the one that was read."""

    return Calibrator()


def _problem(error: Any) -> ParseProblem:
    return ParseProblem(error.node_name(), error.node_operator(), " ".join(error.desc().split()))


def _outputs(layer: Any) -> Iterator[Any]:
    return (layer.get_output(index) for index in range(layer.num_outputs))


def _last_word(value: Any) -> str:
    """ "LayerType.CONVOLUTION" as "CONVOLUTION"."""
    return str(value).rpartition(".")[2]
