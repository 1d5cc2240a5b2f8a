"""Executing engines through TensorRT 10, 11 or TensorRT-RTX, by named tensors, every answer checked.

TensorRT reports failure by False or None and puts the reason in its log, so the log is kept and its last error
becomes part of ours.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError, EngineMismatch, MissingExtra
from unblur.runtime.frames import Batch
from unblur.runtime.tensorrt.cuda import Cuda, DeviceMemory
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


@dataclass(frozen=True)
class TensorFormat:
    """How an engine takes or gives a batch: (N, C / lanes, H, W, lanes), C rounded up.

    half: float16, not float32. lanes: channels side by side, 2 in TensorRT's CHW2, 8 in HWC8; 1 is planar.
    """

    half: bool = False
    lanes: int = 1

    @property
    def dtype(self) -> type[np.floating]:
        return np.float16 if self.half else np.float32

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Of a batch (N, C, H, W)."""
        return prod(self._stored(shape)) * np.dtype(self.dtype).itemsize

    def packed(self, batch: Batch) -> NDArray[np.floating]:
        """A batch (N, C, H, W) as the engine takes it; what float16 cannot hold becomes infinite."""
        stored = np.zeros(self._stored(batch.shape), self.dtype)
        with np.errstate(over="ignore"):
            for channel in range(batch.shape[1]):
                stored[:, channel // self.lanes, :, :, channel % self.lanes] = batch[:, channel]
        return stored

    def unpacked(self, memory: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.floating]:
        """The batch (N, C, H, W) in `nbytes` bytes of memory."""
        stored = memory.view(self.dtype).reshape(self._stored(shape))
        planes: NDArray[np.floating] = stored.transpose(0, 1, 4, 2, 3).reshape(shape[0], -1, *shape[2:])
        return planes[:, : shape[1]]

    def _stored(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], -(-shape[1] // self.lanes), *shape[2:], self.lanes)


PLANAR_FLOAT = TensorFormat()

_ALIGNMENT = 256
"""Of context memory, as of any allocation of CUDA; also the least of it."""


class ContextMemory:
    """Scratch memory of execution contexts that never execute at the same time; freed with the last of them."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        self.nbytes = max(nbytes, _ALIGNMENT)
        self._memory: DeviceMemory = cuda.alloc(self.nbytes)
        self._users = 0

    @property
    def address(self) -> int:
        return self._memory.address

    def taken(self) -> "ContextMemory":
        """The same with one user more."""
        self._users += 1
        return self

    def release(self) -> None:
        """One user less."""
        self._users -= 1
        if self._users == 0:
            self._memory.free()


class Execution:
    """An engine that is loaded and has buffers bound; made, used and closed with the CUDA context current.

    memory: what it computes in, which `share` may exchange; None where TensorRT allocates it itself, before 10.1.
    Raises EngineMismatch if TensorRT refuses the engine or if the engine is not what its record says,
    DeviceError if there is no memory for it.
    """

    def __init__(self, trt: TensorRT, engine: bytes, record: EngineRecord, cuda: Cuda) -> None:
        self._trt = trt
        self._record = record
        self.memory: ContextMemory | None = None
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
        self._context: Any = self._create_context()
        if self._context is None:
            raise DeviceError(f"{trt} has no memory to execute the engine ({trt.last_words()})")
        if self._manages_memory:
            self.share(ContextMemory(cuda, self._engine.device_memory_size_v2))
        self._profile = 0
        self._profiler: Any = None

    @property
    def ends(self) -> tuple[TensorFormat, TensorFormat]:
        """How the engine takes and gives batches of the present profile."""
        return self.ends_of(self._profile)

    def ends_of(self, profile: int) -> tuple[TensorFormat, TensorFormat]:
        """How the engine takes and gives batches of a profile: the builder has chosen what was fastest."""
        half = self._trt.module.DataType.HALF
        taken, given = (
            TensorFormat(
                self._engine.get_tensor_dtype(name) == half,
                max(self._engine.get_tensor_components_per_element(name, profile), 1),
            )
            for name in (self._record.input, self._record.output)
        )
        return taken, given

    def share(self, memory: ContextMemory) -> None:
        """Compute in that memory, which must be large enough, from now on; no work may be under way."""
        before, self.memory = self.memory, memory.taken()
        self._context.set_device_memory(memory.address, memory.nbytes)
        if before is not None:
            before.release()

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
        """Free it in the order that TensorRT asks for: context, its memory, engine, runtime."""
        self._context = None
        if self.memory is not None:
            self.memory.release()
            self.memory = None
        self._profiler = None
        self._engine = None
        self._runtime = None

    @property
    def _manages_memory(self) -> bool:
        return hasattr(self._engine, "device_memory_size_v2")

    def _create_context(self) -> Any:
        if not self._manages_memory:
            return self._engine.create_execution_context()
        strategies = self._trt.module.ExecutionContextAllocationStrategy
        return self._engine.create_execution_context(strategies.USER_MANAGED)

    def _check_tensors(self) -> None:
        modes, types = self._trt.module.TensorIOMode, self._trt.module.DataType
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        found = {name: self._engine.get_tensor_mode(name) for name in names}
        kinds = {self._engine.get_tensor_dtype(name) for name in names}
        expected = {self._record.input: modes.INPUT, self._record.output: modes.OUTPUT}
        if found != expected or not kinds <= {types.FLOAT, types.HALF}:
            raise EngineMismatch(
                f"the engine has the tensors {', '.join(names)}, expected {self._record.input} and "
                f"{self._record.output} in float or half; build it again with `unblur build`"
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
