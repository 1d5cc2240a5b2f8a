"""ONNX Runtime as a Runner: the default on every device, and the reference that engines are judged by."""

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import cast, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput, DeviceError, SpecMismatch
from unblur.runtime.frames import Batch, NetworkValues
from unblur.runtime.model.inspect_onnx import inspect_onnx
from unblur.runtime.model.onnx_session import ORT_ERRORS, OnnxDevice, first_line, open_session, session_options
from unblur.runtime.model.tiles import infer_fixed
from unblur.runtime.runner import InferenceTiming, check_batch
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision, SpecOverrides

_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

_log = logging.getLogger(__name__)


class OnnxRunner:
    """Runs an .onnx file, one that unblur wrote or one whose spec is found by inspection.

    threads: CPU threads for one inference; None leaves it to ONNX Runtime (one per physical core).
    graph_optimization: False evaluates the graph node by node as written. INT8 quality is judged so: Q/DQ pairs
        are then computed in float, which is what an engine computes, while a CPU's fused 8-bit products saturate.
    device: "cuda" and "ort-tensorrt" need the package onnxruntime-gpu; they are never chosen unless asked for.
    cache: where "ort-tensorrt" keeps what it builds.
    overrides: what the user states about the network; goes before what the file says or inspection finds.
    profile_to: a folder for the file in which ONNX Runtime's profiler notes every node it runs; `close` writes it.

    The input is read where the caller keeps it and the output buffer is kept for the next call of that shape, so
    that a video costs no allocation per frame.

    Raises BadInput if the file is missing, damaged or not executable here, SpecMismatch if it is not a network from
    an image to an image, DeviceError if the device is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        graph_optimization: bool = True,
        device: OnnxDevice = "cpu",
        profile_to: Path | None = None,
        cache: Path | None = None,
        overrides: SpecOverrides = SpecOverrides(),
    ) -> None:
        self.path, self.overrides = path, overrides
        self._device = device
        self._profiled = profile_to is not None
        options = session_options(threads, graph_optimization=graph_optimization, profile_to=profile_to)
        session = open_session(path, options, device, cache)
        self._spec, self._precision = _describe(session, path, overrides)
        self._input, self._output = _tensors(session, self._spec, path)
        self._values = NetworkValues(self._spec)
        self._dtype = _FLOAT_TYPES[self._input.type]
        self._is_direct = self._values.is_identity and self._input.type == self._output.type == "tensor(float)"
        self._binding = session.io_binding()
        self._session: onnxruntime.InferenceSession | None = session
        self._batch_shape: tuple[int, ...] = ()
        self._restored: Batch = np.empty((0, 3, 0, 0), np.float32)
        self._taken: NDArray[np.floating] = self._restored
        self._given: NDArray[np.floating] = self._restored

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def device(self) -> str:
        return f"{self._device} (onnxruntime {onnxruntime.__version__})"

    @property
    def precision(self) -> Precision:
        return self._precision

    def infer(self, batch: Batch) -> Batch:
        """See Runner. The result is overwritten by the next call with a batch of the same shape.

        A batch that is not of the only size that the network takes runs in tiles of it.
        """
        if self._spec.fixed_hw not in (None, batch.shape[2:]):
            return infer_fixed(self.infer, batch, self._spec)
        self._stage(batch)
        self._execute()
        self._finish(batch)
        return self._restored

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        """As `infer`, with its timing. On a GPU the copy of the result is part of the run, `device_ms`."""
        started = time.perf_counter()
        if self._spec.fixed_hw not in (None, batch.shape[2:]):
            return self.infer(batch), InferenceTiming(0.0, 0.0, (time.perf_counter() - started) * 1e3, 0.0)
        self._stage(batch)
        staged = time.perf_counter()
        self._execute()
        executed = time.perf_counter()
        self._finish(batch)
        binding, device, finish = (
            (end - begin) * 1e3
            for begin, end in ((started, staged), (staged, executed), (executed, time.perf_counter()))
        )
        host, copy_in = (binding, 0.0) if self._device == "cpu" else (0.0, binding)
        return self._restored, InferenceTiming(host + finish, copy_in, device, copy_out_ms=0.0)

    def _stage(self, batch: Batch) -> None:
        """Put the batch where the session reads it: where it lies already, unless it has to be converted."""
        self._opened()
        check_batch(batch, self._spec.multiple_of)
        if batch.shape != self._batch_shape:
            self._allocate(batch.shape)
        if self._is_direct:
            self._taken = np.ascontiguousarray(batch)
        else:
            self._values.from_rgb(batch, self._taken)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        count, _, height, width = shape
        scale = self._spec.scale
        self._restored = np.empty((count, 3, scale * height, scale * width), np.float32)
        self._taken = np.empty(shape, self._dtype)
        self._given = (
            self._restored if self._is_direct else np.empty(self._restored.shape, _FLOAT_TYPES[self._output.type])
        )
        self._batch_shape = shape

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise ValueError("the runner is closed")
        return self._session

    def _execute(self) -> None:
        """Run on what is staged, at once or in as many runs as the batch of the graph allows."""
        taken, given = self._values.planes(self._taken), self._values.planes(self._given)
        at_once = self._input.shape[0] if isinstance(self._input.shape[0], int) else len(taken)
        try:
            for start in range(0, len(taken), at_once):
                part, result = taken[start : start + at_once], given[start : start + at_once]
                # On a CPU this only notes the address; on a GPU it copies, so it has to be done for every frame.
                self._binding.bind_cpu_input(self._input.name, part)
                self._binding.bind_output(
                    self._output.name, "cpu", 0, result.dtype.type, result.shape, result.ctypes.data
                )
                self._opened().run_with_iobinding(self._binding)
                self._binding.synchronize_outputs()
        except ORT_ERRORS as error:
            size = " x ".join(map(str, self._batch_shape))
            raise DeviceError(f"{self.device} failed on a batch of {size}: {first_line(error)}") from error

    def _finish(self, batch: Batch) -> None:
        if not self._is_direct:
            self._values.to_rgb(self._given, batch, self._restored)

    def close(self) -> None:
        """Free the session and its memory; a second call does nothing."""
        if self._profiled and self._session is not None:
            self._session.end_profiling()
        self._session = None
        self._binding = None

    def __enter__(self) -> "OnnxRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def describe_onnx(path: Path, overrides: SpecOverrides = SpecOverrides()) -> tuple[ModelSpec, Precision]:
    """Spec and precision of an ONNX file: what unblur wrote into it, or what inspection finds.

    Raises BadInput if it does not load, SpecMismatch if it is not a network from an image to an image.
    """
    return _describe(open_session(path, session_options()), path, overrides)


def _describe(
    session: onnxruntime.InferenceSession, path: Path, overrides: SpecOverrides
) -> tuple[ModelSpec, Precision]:
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise BadInput(f"the metadata of {path} is not UTF-8 ({error}); export the file again") from error
    if SPEC_KEY in metadata:
        spec = ModelSpec.from_json(metadata[SPEC_KEY], where=str(path))
        return overrides.apply(spec), _read_precision(metadata, path)
    found = inspect_onnx(path, overrides)
    _log.info("%s has no model spec, so it was inspected: %s", path, "; ".join(found.lines))
    return found.spec, found.precision


def _read_precision(metadata: dict[str, str], path: Path) -> Precision:
    precision = metadata.get(PRECISION_KEY)
    if precision not in get_args(Precision):
        raise SpecMismatch(
            f"{path}: {PRECISION_KEY} is {precision!r}, expected one of {', '.join(get_args(Precision))}; "
            "export the model again"
        )
    return cast(Precision, precision)


def _tensors(
    session: onnxruntime.InferenceSession, spec: ModelSpec, path: Path
) -> tuple[onnxruntime.NodeArg, onnxruntime.NodeArg]:
    """The input and the output that the spec names, or the only ones."""
    inputs = [each for each in session.get_inputs() if spec.input_name in ("", each.name)]
    outputs = [each for each in session.get_outputs() if spec.output_name in ("", each.name)]
    if len(inputs) != 1 or len(outputs) != 1 or {inputs[0].type, outputs[0].type} - _FLOAT_TYPES.keys():
        found = [f"{each.name}: {each.type}" for each in (*session.get_inputs(), *session.get_outputs())]
        raise SpecMismatch(f"{path} has the tensors {found}, expected one float input and one float output")
    return inputs[0], outputs[0]
