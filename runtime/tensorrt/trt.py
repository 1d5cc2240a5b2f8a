"""Executing engines through TensorRT 10, 11 or TensorRT-RTX, by named tensors, every answer checked.

TensorRT reports failure by False or None and puts the reason in its log, so the log is kept and its last error
becomes part of ours.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from unblur.runtime.errors import DeviceError, EngineMismatch, MissingExtra
from unblur.runtime.tensorrt.engine_file import FLAVOUR_NAMES, EngineRecord, Flavour

MODULES: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}

TOO_OLD = "is too old: it reads opsets up to 17, ignores the axes input of ReduceMean and misreads fp16 scales"
"""TensorRT 8.6 (NVIDIA/TensorRT#3467, and its ONNX parser's sources)."""

UPDATE = "update to TensorRT 10 or newer, on a Jetson with JetPack 6.1 or newer"


def is_too_old(version: str) -> bool:
    """Whether engines need a newer TensorRT than this one; not for TensorRT-RTX, which counts from 1."""
    return int(version.partition(".")[0]) < 10


class TensorRT:
    """One flavour of TensorRT, with the only logger that a process may give it.

    module: `tensorrt` or `tensorrt_rtx`, or anything that behaves like the parts of it that are used here.
    """

    def __init__(self, module: Any, flavour: Flavour) -> None:
        self.module = module
        self.flavour = flavour
        self.version = str(module.__version__)
        self.errors: list[str] = []
        self.logger = _make_logger(module, self.errors)

    def __str__(self) -> str:
        return f"{FLAVOUR_NAMES[self.flavour]} {self.version}"

    def last_words(self) -> str:
        """The last error in the log since the last call, in one line."""
        words = " ".join(self.errors[-1].split()) if self.errors else "it gave no reason"
        self.errors.clear()
        return words


@cache
def load_tensorrt(flavour: Flavour) -> TensorRT:
    """The installed TensorRT of that flavour. Probe the driver first: without one, calls may crash.

    Raises MissingExtra if the package is not installed, DeviceError if one of its libraries is missing or it is
    too old.
    """
    name = MODULES[flavour]
    try:
        loaded = TensorRT(importlib.import_module(name), flavour)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"engines need the Python package '{name}': pip install 'unblur[{flavour}]', or on a "
            "Jetson make the virtual environment with --system-site-packages"
        ) from error
    except (ImportError, OSError) as error:
        raise DeviceError(f"{FLAVOUR_NAMES[flavour]} is installed but does not load: {error}") from error
    if flavour == "tensorrt" and is_too_old(loaded.version):
        raise DeviceError(f"{loaded} {TOO_OLD}; {UPDATE}")
    return loaded


class Execution:
    """An engine that is loaded and has buffers bound; made, used and closed with the CUDA context current.

    Raises EngineMismatch if TensorRT refuses the engine or if the engine is not what its record says,
    DeviceError if there is no memory for it.
    """

    def __init__(self, trt: TensorRT, engine: bytes, record: EngineRecord) -> None:
        self._trt = trt
        self._record = record
        trt.errors.clear()
        self._runtime: Any = trt.module.Runtime(trt.logger)
        if record.identity.options.version_compatible:
            self._runtime.engine_host_code_allowed = True  # such an engine brings its own small runtime
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineMismatch(
                f"{trt} refused the engine ({trt.last_words()}); build it again with `unblur build`"
            )
        self._check_tensors()
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"{trt} has no memory to execute the engine ({trt.last_words()})")
        self._profile = 0
        self._profiler: Any = None

    def set_shape(self, shape: tuple[int, ...], stream: int) -> None:
        """Choose the profile that holds a batch of this shape, and the shape; EngineMismatch if there is none."""
        profile = self._record.profile_for(shape)
        if profile != self._profile:
            self._demand(self._context.set_optimization_profile_async(profile, stream), f"profile {profile}")
            self._profile = profile
        self._demand(self._context.set_input_shape(self._record.input, shape), f"the input shape {shape}")
        found = tuple(self._context.get_tensor_shape(self._record.output))
        expected = (*shape[:2], *self._record.spec.output_hw((shape[2], shape[3])))
        if found != expected:
            raise EngineMismatch(f"the engine makes {found} of {shape}, expected {expected}; build it again")

    def bind(self, source: int, target: int) -> None:
        """Where the input is read and the output written, as addresses that the GPU can use."""
        for name, address in ((self._record.input, source), (self._record.output, target)):
            self._demand(self._context.set_tensor_address(name, address), f"the address of {name}")

    def enqueue(self, stream: int) -> None:
        """Put one inference on the stream."""
        self._demand(self._context.execute_async_v3(stream), "to execute")

    def inspect(self) -> str:
        """The report of the engine's layers as JSON; the shape must be set, since theirs follow from it."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        report: str = inspector.get_engine_information(self._trt.module.LayerInformationFormat.JSON)
        return report

    def report_layers(self, report: Callable[[str, float], None]) -> None:
        """From now on report the time of each layer in ms after each inference, which takes longer then."""
        self._profiler = _make_profiler(self._trt.module, report)
        self._context.profiler = self._profiler

    def close(self) -> None:
        """Free it in the order that TensorRT asks for: context, engine, runtime."""
        self._context = None
        self._profiler = None
        self._engine = None
        self._runtime = None

    def _check_tensors(self) -> None:
        modes, types = self._trt.module.TensorIOMode, self._trt.module.DataType
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        found = {name: (self._engine.get_tensor_mode(name), self._engine.get_tensor_dtype(name)) for name in names}
        if found != {
            self._record.input: (modes.INPUT, types.FLOAT),
            self._record.output: (modes.OUTPUT, types.FLOAT),
        }:
            raise EngineMismatch(
                f"the engine has the tensors {', '.join(names)}, expected {self._record.input} and "
                f"{self._record.output} in float; build it again with `unblur build`"
            )

    def _demand(self, done: bool, what: str) -> None:
        if not done:
            raise DeviceError(f"{self._trt} refused {what}: {self._trt.last_words()}")


def _make_logger(module: Any, errors: list[str]) -> Any:
    """A logger that keeps errors, and says nothing of what TensorRT recovered from."""

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Logger()


def _make_profiler(module: Any, report: Callable[[str, float], None]) -> Any:
    """An IProfiler that passes on what it is given."""

    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()
