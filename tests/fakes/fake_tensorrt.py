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


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


@dataclass(frozen=True)
class EngineText:
    """What is in a fake engine file. profiles: (minimum, maximum) shapes. onnx: path of a file to execute.

    noise: standard deviation of what is added to the output of the ONNX file. stale: every output is that of the
    execution before.
    """

    profiles: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    input: str = "blurred"
    output: str = "restored"
    dtype: str = "FLOAT"
    gain: float = 0.5
    bias: float = 0.25
    enlarges: int = 1
    onnx: str = ""
    noise: float = 1e-5
    stale: bool = False
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

    def create_execution_context(self) -> "_Context | None":
        largest = max(math.prod(maximum) for _, maximum in self.text.profiles)
        try:
            return _Context(self, self.runtime.trt.cuda.alloc(4 * largest))
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
        self._profile = 0
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._warm: tuple[int, ...] | None = None
        self._before: np.ndarray | None = None
        self.profiler: FakeTensorRT.IProfiler | None = None
        engine.runtime.trt.live.add(self)

    def __del__(self) -> None:
        self._scratch.free()

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
        if self._shape is None or len(self._addresses) != 2:
            return self.engine.runtime.refuse("enqueueV3: shape or address is not set")
        if queue.captured is not None and (self._warm != self._shape or not text.can_be_captured):
            return self.engine.runtime.refuse("operation not permitted when stream is capturing")
        self._warm = shape = self._shape
        source, target = self._addresses[text.input], self._addresses[text.output]
        queue.put(lambda: self._compute(source, target, shape))
        return True

    def _compute(self, source: int, target: int, shape: tuple[int, ...]) -> None:
        trt, text = self.engine.runtime.trt, self.engine.text
        nbytes = 4 * math.prod(shape)
        batch = trt.cuda.at(source, nbytes).view(np.float32).reshape(shape)
        restored = trt.cuda.at(target, nbytes).view(np.float32).reshape(shape)
        if text.onnx:
            with OnnxRunner(Path(text.onnx), threads=1, graph_optimization=False) as runner:
                batch = runner.infer(batch)
            batch = batch + np.random.default_rng(7).normal(0, text.noise, shape).astype(np.float32)
        if text.stale:
            batch, self._before = self._before if self._before is not None else batch, batch.copy()
        restored[:] = np.float32(text.gain) * batch + np.float32(text.bias)
        if self.profiler is not None:
            for name, ms in text.layer_ms.items():
                self.profiler.report_layer_time(name, ms * (1 + trt.executions % 3))
        trt.executions += 1
        trt.cuda.did("engine")
