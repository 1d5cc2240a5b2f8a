"""ONNX Runtime as a Runner: the default on every device, and the reference that engines are judged by."""

import time
from pathlib import Path
from types import TracebackType
from typing import Literal, cast, get_args

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NotImplemented,
    RuntimeException,
)

from unblur.runtime.errors import BadInput, DeviceError, SpecMismatch
from unblur.runtime.frames import Batch
from unblur.runtime.runner import InferenceTiming, check_batch
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec, Precision

OnnxDevice = Literal["cpu", "cuda"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ORT_ERRORS = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NotImplemented,
    RuntimeException,
    RuntimeError,  # of pybind11: a C++ exception without a name, such as an output of another shape than bound
)
_LOG_ERRORS_ONLY = 3


class OnnxRunner:
    """Runs an .onnx file that unblur wrote.

    threads: CPU threads for one inference; None leaves it to ONNX Runtime (one per physical core).
    graph_optimization: False evaluates the graph node by node as written. INT8 quality is judged so: Q/DQ pairs
        are then computed in float, which is what an engine computes, while a CPU's fused 8-bit products saturate.
    device: "cuda" needs the package onnxruntime-gpu; it is never chosen unless asked for.
    profile_to: a folder for the file in which ONNX Runtime's profiler notes every node it runs; `close` writes it.

    The input is read where the caller keeps it and the output buffer is kept for the next call of that shape, so
    that a video costs no allocation per frame.

    Raises BadInput if the file is missing, damaged or not executable here, SpecMismatch if it is not ours,
    DeviceError if the device is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        graph_optimization: bool = True,
        device: OnnxDevice = "cpu",
        profile_to: Path | None = None,
    ) -> None:
        self.path = path
        self._device = device
        self._profiled = profile_to is not None
        session = _open_session(path, _options(threads, graph_optimization, profile_to), device)
        metadata = session.get_modelmeta().custom_metadata_map
        self._spec = _read_spec(metadata, path)
        self._precision = _read_precision(metadata, path)
        self._input, self._output = _tensor_names(session, path)
        self._binding = session.io_binding()
        self._session: onnxruntime.InferenceSession | None = session
        self._restored: Batch = np.empty((0, 3, 0, 0), np.float32)

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
        """See Runner. The result is overwritten by the next call with a batch of the same shape."""
        self._execute(self._bind(batch))
        return self._restored

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        """As `infer`, with its timing.

        Two parts can be told apart: handing over the batch, which is the host's work on a CPU and a copy
        on a GPU, and the run, which on a GPU includes the copy of the result.
        """
        started = time.perf_counter()
        bound_batch = self._bind(batch)
        bound = time.perf_counter()
        self._execute(bound_batch)
        device = (time.perf_counter() - bound) * 1e3
        binding = (bound - started) * 1e3
        if self._device == "cpu":
            return self._restored, InferenceTiming(
                host_ms=binding, copy_in_ms=0.0, device_ms=device, copy_out_ms=0.0
            )
        return self._restored, InferenceTiming(host_ms=0.0, copy_in_ms=binding, device_ms=device, copy_out_ms=0.0)

    def _bind(self, batch: Batch) -> Batch:
        """Tell the session where batch and result lie; returns what is to be kept until it has run."""
        self._opened()
        check_batch(batch, self._spec.multiple_of)
        batch = np.ascontiguousarray(batch)
        if batch.shape != self._restored.shape:
            self._restored = np.empty(batch.shape, np.float32)
            self._binding.bind_output(self._output, "cpu", 0, np.float32, batch.shape, self._restored.ctypes.data)
        # On a CPU this only notes the address; on a GPU it copies, so it has to be done for every frame.
        self._binding.bind_cpu_input(self._input, batch)
        return batch

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise ValueError("the runner is closed")
        return self._session

    def _execute(self, batch: Batch) -> None:
        """Run on the batch that is bound."""
        try:
            self._opened().run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except _ORT_ERRORS as error:
            size = " x ".join(str(side) for side in batch.shape)
            raise DeviceError(f"{self.device} failed on a batch of {size}: {_first_line(error)}") from error

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


def _options(threads: int | None, graph_optimization: bool, profile_to: Path | None) -> onnxruntime.SessionOptions:
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Else its threads spin for a while after each run, on cores that decode, encode and run other sessions: two
    # sessions in turn take twice as long each, on two cores. A session on its own is no slower without.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if not graph_optimization:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to / "profile")
        if not graph_optimization:  # weights in a kernel's own order are no inputs, and their shapes are not noted
            options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _open_session(
    path: Path, options: onnxruntime.SessionOptions, device: OnnxDevice
) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected an .onnx file")
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError(f"onnxruntime {onnxruntime.__version__} has no {provider}; install onnxruntime-gpu")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except _ORT_ERRORS as error:
        raise BadInput(f"{path} is damaged or not an ONNX file that runs here: {_first_line(error)}") from error
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise DeviceError(f"{provider} could not be started; check the driver and the CUDA libraries")
    return session


def _read_spec(metadata: dict[str, str], path: Path) -> ModelSpec:
    if SPEC_KEY not in metadata:
        raise SpecMismatch(
            f"{path} carries no model spec, so how to feed it is unknown; export the model with `unblur export`"
        )
    return ModelSpec.from_json(metadata[SPEC_KEY], where=str(path))


def _read_precision(metadata: dict[str, str], path: Path) -> Precision:
    precision = metadata.get(PRECISION_KEY)
    if precision not in get_args(Precision):
        raise SpecMismatch(
            f"{path}: {PRECISION_KEY} is {precision!r}, expected one of {', '.join(get_args(Precision))}; "
            "export the model again"
        )
    return cast(Precision, precision)


def _tensor_names(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, str]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [f"{tensor.name}: {tensor.type}" for tensor in (*inputs, *outputs)]
    if len(inputs) != 1 or len(outputs) != 1 or any(not text.endswith("tensor(float)") for text in found):
        raise SpecMismatch(f"{path} has the tensors {found}, expected one float input and one float output")
    return inputs[0].name, outputs[0].name


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
