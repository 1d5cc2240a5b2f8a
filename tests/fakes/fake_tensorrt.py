"""A TensorRT in memory, on the GPU of fake_cuda: what runtime/tensorrt/trt.py uses, behaving like the real one.

It answers False or None and logs the reason, never raises; it wants shape and addresses set before it executes; it
refuses to be captured before it has run once with a shape; its context holds GPU memory until it dies. An engine
is a JSON text, and computes `gain * batch + bias`, or what an ONNX file does and a little noise, since no engine
computes exactly that. Profiled, its layers take once, twice and three times their time in turn.
"""

import json
import math
import weakref
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from fake_cuda import FakeCuda

from unblur.runtime.errors import DeviceError
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.tensorrt.trt import TensorFormat


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


@dataclass(frozen=True)
class EngineText:
    """What is in a fake engine file. profiles: (minimum, maximum) shapes. onnx: path of a file to execute.

    noise: standard deviation of what is added to the output of the ONNX file. stale: every output is that of the
    execution before. lanes: of its tensors, see TensorFormat. scratch: bytes that it computes in, 0 is those of the
    largest batch.
    """

    profiles: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    input: str = "blurred"
    output: str = "restored"
    dtype: str = "FLOAT"
    lanes: int = 1
    gain: float = 0.5
    bias: float = 0.25
    enlarges: int = 1
    onnx: str = ""
    noise: float = 1e-5
    stale: bool = False
    scratch: int = 0
    can_be_captured: bool = True
    inspection: str = '{"Layers": ["convolution"], "Bindings": []}'
    layer_ms: dict[str, float] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class FakeTensorRT:
    """The module. fails: set it to a reason and every execution is refused with it."""

    class ILogger:
        ERROR = Severity.ERROR
        INTERNAL_ERROR = Severity.INTERNAL_ERROR
        Severity = Severity

    class IProfiler: ...

    class LayerInformationFormat(Enum):
        JSON = 1

    class TensorIOMode(Enum):
        INPUT = 1
        OUTPUT = 2

    class DataType(Enum):
        FLOAT = 0
        HALF = 1
        INT8 = 2

    class ExecutionContextAllocationStrategy(Enum):
        STATIC = 0
        USER_MANAGED = 2

    def __init__(self, cuda: FakeCuda, version: str = "10.3.0") -> None:
        self.__version__ = version
        self.cuda = cuda
        self.fails = ""
        self.executions = 0
        self.live: weakref.WeakSet[object] = weakref.WeakSet()

    def Runtime(self, logger: object) -> "_Runtime":  # noqa: N802
        return _Runtime(self, logger)


class _Runtime:
    def __init__(self, trt: FakeTensorRT, logger) -> None:  # type: ignore[no-untyped-def]
        self.trt = trt
        self.engine_host_code_allowed = False
        self._logger = logger
        trt.live.add(self)

    def refuse(self, reason: str) -> bool:
        self._logger.log(Severity.ERROR, reason)
        return False

    def deserialize_cuda_engine(self, data: bytes) -> "_Engine | None":
        self.trt.cuda.check()
        try:
            fields = json.loads(data)
        except ValueError:
            self.refuse("Error Code 1: Serialization (Serialization\nassertion magicTag failed)")
            return None
        return _Engine(self, EngineText(**fields))


class _Engine:
    num_io_tensors = 2

    def __init__(self, runtime: _Runtime, text: EngineText) -> None:
        self.runtime = runtime
        self.text = text
        runtime.trt.live.add(self)

    def get_tensor_name(self, index: int) -> str:
        return (self.text.input, self.text.output)[index]

    def get_tensor_mode(self, name: str) -> Enum:
        modes = self.runtime.trt.TensorIOMode
        return modes.INPUT if name == self.text.input else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Enum:
        return self.runtime.trt.DataType[self.text.dtype]

    def create_engine_inspector(self) -> "_Inspector":
        return _Inspector(self)

    def get_tensor_components_per_element(self, name: str, profile: int) -> int:
        return self.text.lanes if self.text.lanes > 1 else -1

    @property
    def scratch_bytes(self) -> int:
        return self.text.scratch or 4 * max(math.prod(maximum) for _, maximum in self.text.profiles)

    def __getattr__(self, name: str) -> int:
        if name == "device_memory_size_v2" and self.runtime.trt.__version__ != "10.0.1":
            return self.scratch_bytes
        raise AttributeError(name)

    def create_execution_context(self, strategy: Enum | None = None) -> "_Context | None":
        if strategy is FakeTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED:
            return _Context(self, None)
        try:
            return _Context(self, self.runtime.trt.cuda.alloc(self.scratch_bytes))
        except DeviceError:
            self.runtime.refuse("Error Code 2: OutOfMemory (Requested size was 4 bytes.)")
            return None


class _Inspector:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.execution_context: _Context | None = None

    def get_engine_information(self, layer_format: Enum) -> str:
        assert layer_format is FakeTensorRT.LayerInformationFormat.JSON
        assert self.execution_context is not None
        assert self.execution_context.has_shape
        return self._engine.text.inspection


class _Context:
    def __init__(self, engine: _Engine, scratch) -> None:  # type: ignore[no-untyped-def]
        self.engine = engine
        self._scratch = scratch
        self._memory = (scratch.address, scratch.array.nbytes) if scratch else (0, 0)
        self._profile = 0
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._warm: tuple[int, ...] | None = None
        self._before: np.ndarray | None = None
        self.profiler: FakeTensorRT.IProfiler | None = None
        engine.runtime.trt.live.add(self)

    def __del__(self) -> None:
        if self._scratch is not None:
            self._scratch.free()

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = memory, size

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._profile, self._shape, self._warm = index, None, None
        return index < len(self.engine.text.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        minimum, maximum = self.engine.text.profiles[self._profile]
        fits = all(low <= side <= high for low, side, high in zip(minimum, shape, maximum, strict=True))
        if name != self.engine.text.input or not fits:
            return self.engine.runtime.refuse(f"setInputShape: {shape} does not satisfy any optimization profiles")
        self._shape, self._warm = shape, None
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        enlarges = self.engine.text.enlarges if name == self.engine.text.output else 1
        return (*self._shape[:2], *(side * enlarges for side in self._shape[2:]))

    @property
    def has_shape(self) -> bool:
        return self._shape is not None

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in (self.engine.text.input, self.engine.text.output)

    def execute_async_v3(self, stream: int) -> bool:
        trt, text = self.engine.runtime.trt, self.engine.text
        queue = trt.cuda.streams[stream]
        if trt.fails:
            return self.engine.runtime.refuse(trt.fails)
        if self._shape is None or len(self._addresses) != 2 or self._memory[1] < self.engine.scratch_bytes:
            return self.engine.runtime.refuse("enqueueV3: shape, address or memory is not set")
        if queue.captured is not None and (self._warm != self._shape or not text.can_be_captured):
            return self.engine.runtime.refuse("operation not permitted when stream is capturing")
        self._warm = shape = self._shape
        source, target = self._addresses[text.input], self._addresses[text.output]
        memory = self._memory[0]  # a graph keeps it
        queue.put(lambda: self._compute(source, target, memory, shape))
        return True

    def _compute(self, source: int, target: int, memory: int, shape: tuple[int, ...]) -> None:
        trt, text = self.engine.runtime.trt, self.engine.text
        end = TensorFormat(text.dtype == "HALF", text.lanes)
        trt.cuda.at(memory, self.engine.scratch_bytes)[:] = 0x5A
        batch = end.unpacked(trt.cuda.at(source, end.nbytes(shape)), shape).astype(np.float32)
        if text.onnx:
            with OnnxRunner(Path(text.onnx), threads=1, graph_optimization=False) as runner:
                batch = runner.infer(batch)
            batch = batch + np.random.default_rng(7).normal(0, text.noise, shape).astype(np.float32)
        if text.stale:
            batch, self._before = self._before if self._before is not None else batch, batch.copy()
        restored = end.packed(np.float32(text.gain) * batch + np.float32(text.bias))
        trt.cuda.at(target, restored.nbytes)[:] = restored.reshape(-1).view(np.uint8)
        if self.profiler is not None:
            for name, ms in text.layer_ms.items():
                self.profiler.report_layer_time(name, ms * (1 + trt.executions % 3))
        trt.executions += 1
        trt.cuda.did("engine")
