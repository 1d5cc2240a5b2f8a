"""Opening ONNX files in ONNX Runtime, every way in which that fails said in one line."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

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

from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.model.onnx_header import missing_data

OnnxDevice = Literal["cpu", "cuda", "ort-tensorrt"]

ORT_ERRORS = (
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

PROVIDERS: Mapping[OnnxDevice, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
LOG_NOTHING = 4  # what fails is an error here, and says why
_MAX_BYTES = 2 << 30  # of a protobuf message


def session_options(
    threads: int | None = None,
    *,
    graph_optimization: bool = True,
    profile_to: Path | None = None,
) -> onnxruntime.SessionOptions:
    """Options of a session. profile_to: see OnnxRunner."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
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


def open_session(
    path: Path, options: onnxruntime.SessionOptions, device: OnnxDevice = "cpu", cache: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load an ONNX file. cache: the folder in which TensorRT keeps what it builds, so that it does so once.

    Raises BadInput if it is missing, too large, damaged, lacks its external data or has an operator that is not
    known here, DeviceError if ONNX Runtime has no such device.
    """
    check_onnx_file(path)
    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError(f"onnxruntime {onnxruntime.__version__} has no {provider}; {_remedy()}")
    providers: list[str | tuple[str, dict[str, object]]] = [provider]
    if device == "ort-tensorrt":
        asked: dict[str, object] = {"trt_fp16_enable": True, "trt_int8_enable": True}
        if cache is not None:
            asked |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
        providers = [(provider, asked), PROVIDERS["cuda"]]
    fallback = {"enable_fallback": 0} if device == "cpu" else {}  # to the CPU again, and told on stdout
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers, **fallback)
    except ORT_ERRORS as error:
        raise BadInput(f"{path} is damaged or not an ONNX file that runs here: {first_line(error)}") from error
    except UnicodeDecodeError as error:  # of what ONNX Runtime says about a name that is not UTF-8
        raise BadInput(f"{path} is damaged: a name in it is not UTF-8") from error
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise DeviceError(f"{provider} could not be started; check the driver and the CUDA libraries")
    return session


def _remedy() -> str:
    """What to do about a provider that is missing."""
    if all(_is_installed(package) for package in ("onnxruntime", "onnxruntime-gpu")):
        return "onnxruntime and onnxruntime-gpu overwrite each other: uninstall both, then install onnxruntime-gpu"
    return "install onnxruntime-gpu"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, in one line."""
    return str(error).partition("\n")[0]


def check_onnx_file(path: Path) -> None:
    """BadInput if there is no such file, if it is too large for ONNX, or if a file with its weights is missing."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected an .onnx file")
    size = path.stat().st_size
    if size >= _MAX_BYTES:
        raise BadInput(
            f"{path} has {size / 2**30:.1f} GiB, an ONNX file holds less than 2; save its weights as external data"
        )
    missing = missing_data(path)
    if missing is not None:
        raise BadInput(f"{path} keeps its weights in {missing}, which is not there; copy that file beside it")
