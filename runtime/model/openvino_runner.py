"""OpenVINO as a Runner: often the fastest on x86-64 and ARM64 CPUs. Needs the extra [openvino].

    with OpenVinoRunner(Path("lprn-s.unblur/fp32.onnx"), threads=4) as runner:
        runner.infer_frame(frame_rgb, out)

A whole frame is converted, padded, restored, cropped and rounded in one graph, so that nothing but uint8 is copied.
"""

import functools
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import openvino
from openvino import opset13 as ops

from unblur.runtime.errors import DeviceError, SpecMismatch
from unblur.runtime.frames import Batch, Frame, check_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.runner import InferenceTiming, check_batch
from unblur.runtime.spec import ModelSpec, Precision, SpecOverrides

_DEVICE = "CPU"
_AXES_HW_OF_FRAME, _AXES_HW = np.array([1, 2]), np.array([2, 3])


class OpenVinoRunner:
    """Runs an .onnx file that unblur wrote, with free height and width.

    threads: CPU threads for one inference; None leaves it to OpenVINO (one per physical core).
    exact: compute in float32 even where the CPU has bfloat16, which is faster and costs about 64 dB.
    cache: a folder for compiled networks, which makes opening one again much faster; None for no cache.
    overrides: see OnnxRunner.

    Raises BadInput if the file is missing or damaged, SpecMismatch if it is not ours or needs another conversion of
    frames, DeviceError if OpenVINO cannot compile it.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        exact: bool = False,
        cache: Path | None = None,
        overrides: SpecOverrides = SpecOverrides(),
    ) -> None:
        self.path = path
        with OnnxRunner(path, threads=1, graph_optimization=False, overrides=overrides) as file:
            self._spec, self._precision = file.spec, file.precision
        if not _is_plain(self._spec):
            raise SpecMismatch(f"{path} does not take RGB in [0, 1]; run it with --device cpu")
        self._arithmetic = "f32" if exact else _arithmetic()
        self._config: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._arithmetic,
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
            **({} if cache is None else {"CACHE_DIR": str(cache)}),
        }
        self._batches: openvino.InferRequest | None = None
        self._frames: openvino.InferRequest | None = None
        self._restored: Batch = np.empty((0, 3, 0, 0), np.float32)
        self._is_open = True

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def device(self) -> str:
        kind = "bf16" if self._arithmetic == "bf16" else "fp32"
        return f"cpu (openvino {openvino.__version__.partition('-')[0]}, {kind})"

    @property
    def precision(self) -> Precision:
        return self._precision

    @property
    def is_bf16(self) -> bool:
        """Whether what is not INT8 is computed in bfloat16."""
        return self._arithmetic == "bf16"

    def infer(self, batch: Batch) -> Batch:
        """See Runner. The result is overwritten by the next call with a batch of the same shape."""
        check_batch(batch, self._spec.multiple_of)
        if batch.shape != self._restored.shape:
            self._restored = np.empty(batch.shape, np.float32)
        if self._batches is None:
            self._batches = self._compile(self._read())
        self._run(self._batches, np.ascontiguousarray(batch), self._restored)
        return self._restored

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        """As `infer`, with its timing: all of it is the network's."""
        started = time.perf_counter()
        restored = self.infer(batch)
        return restored, InferenceTiming(0.0, 0.0, (time.perf_counter() - started) * 1e3, 0.0)

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        """See FrameRunner."""
        check_frame(frame_rgb)
        if self._frames is None:
            self._frames = self._compile(_frames_from_batches(self._read(), self._spec.multiple_of))
        restored = out if out.flags.c_contiguous and out is not frame_rgb else np.empty(frame_rgb.shape, np.uint8)
        source = np.require(frame_rgb, requirements=["C", "W"])  # OpenVINO takes no read-only memory
        self._run(self._frames, source[None], restored[None])
        if restored is not out:
            out[...] = restored

    def timed_infer_frame(self, frame_rgb: Frame, out: Frame) -> InferenceTiming:
        """As `infer_frame`; conversions are part of the graph."""
        started = time.perf_counter()
        self.infer_frame(frame_rgb, out)
        return InferenceTiming(0.0, 0.0, (time.perf_counter() - started) * 1e3, 0.0)

    def close(self) -> None:
        """Free the network and its memory; a second call does nothing."""
        self._is_open = False
        self._batches = self._frames = None

    def __enter__(self) -> "OpenVinoRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> openvino.Model:
        if not self._is_open:
            raise ValueError("the runner is closed")
        return _core().read_model(self.path)

    def _compile(self, model: openvino.Model) -> openvino.InferRequest:
        try:
            return _core().compile_model(model, _DEVICE, self._config).create_infer_request()
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO cannot compile {self.path}: {_first_line(error)}") from error

    def _run(self, request: openvino.InferRequest, source: np.ndarray, target: np.ndarray) -> None:
        """Read from and write to the caller's memory."""
        try:
            request.set_input_tensor(openvino.Tensor(source, shared_memory=True))
            request.set_output_tensor(openvino.Tensor(target, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            size = " x ".join(map(str, source.shape))
            raise DeviceError(f"{self.device} failed on an input of {size}: {_first_line(error)}") from error


def _is_plain(spec: ModelSpec) -> bool:
    """Whether the network takes and gives RGB in [0, 1] of any size."""
    plain = ModelSpec(spec.system, spec.preset, spec.steps, spec.multiple_of, spec.receptive_field, spec.pooling)
    names = ("value_range", "colour", "mean", "std", "output", "scale", "fixed_hw")
    return all(getattr(spec, name) == getattr(plain, name) for name in names)


@functools.cache
def _core() -> openvino.Core:
    """One for the process, which lives as long as it does.

    The CPU plugin of OpenVINO (2026.4) gives the thread that loads it a stack for signals, and unmaps it where the
    core is freed. After two cores freed in the order they were made, or one in another thread, the next signal that
    has a handler (a child that ended, Ctrl-C) would be a segmentation fault.
    """
    return openvino.Core()


def _arithmetic() -> str:
    return "bf16" if "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES") else "f32"


def _frames_from_batches(model: openvino.Model, multiple_of: int) -> openvino.Model:
    """A network of float32 (1, 3, H', W') in [0, 1] -> one of uint8 (1, H, W, 3), any size, padded by its edges."""
    frame = ops.parameter([1, -1, -1, 3], openvino.Type.u8, name="frame")
    size_hw = ops.gather(ops.shape_of(frame, "i64"), _AXES_HW_OF_FRAME, np.int64(0))
    padding_hw = ops.floor_mod(ops.negative(size_hw), np.array([multiple_of]))
    values = ops.multiply(ops.convert(frame, "f32"), np.float32(1 / 255))
    planes = ops.transpose(values, np.array([0, 3, 1, 2]))
    none = np.array([0, 0])
    padded = ops.pad(planes, np.array([0, 0, 0, 0]), ops.concat([none, padding_hw], 0), "edge")
    for consumer in model.inputs[0].get_target_inputs():
        consumer.replace_source_output(padded.output(0))
    restored = model.outputs[0].get_node().input(0).get_source_output()
    cropped = ops.slice(restored, none, size_hw, np.array([1, 1]), _AXES_HW)
    levels = ops.clamp(ops.round(ops.multiply(cropped, np.float32(255)), "half_to_even"), 0.0, 255.0)
    result = ops.result(ops.convert(ops.transpose(levels, np.array([0, 2, 3, 1])), "u8"))
    return openvino.Model([result], [frame], "frames")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
