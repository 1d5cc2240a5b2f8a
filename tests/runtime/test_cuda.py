"""The calls of the CUDA driver, against a driver that is compiled for this CPU from tests/fakes/libcuda.cpp."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unblur.runtime.errors import DeviceError
from unblur.runtime.tensorrt import cuda_driver as libcuda
from unblur.runtime.tensorrt import engine_buffers as kernels
from unblur.runtime.tensorrt.cuda_ctypes import CtypesDevice
from unblur.runtime.tensorrt.cuda_driver import CapturedGraph, Device, call, multiprocessors_and_mhz, probe
from unblur.runtime.tensorrt.open_cuda import open_cuda

FAKES = Path(__file__).parents[1] / "fakes"
FAKE_GPU = Device(0, "Fake GPU", 87, integrated=True, memory_bytes=1 << 28, driver_cuda=(12, 6))


@pytest.fixture(scope="session")
def driver_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) to compile a CUDA driver with")
    folder = tmp_path_factory.mktemp("driver")
    kernel_source = Path(kernels.__file__).with_name("kernels.cu")
    (folder / "libcuda.cpp").write_text((FAKES / "libcuda.cpp").read_text().replace("KERNELS", str(kernel_source)))
    library = folder / "libcuda.so.1"
    command = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", library, "libcuda.cpp"]
    subprocess.run([*command, "-ldl"], cwd=folder, check=True)
    return library


@pytest.fixture
def driver(driver_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The driver of this process; whatever a test does, at its end every object is freed."""
    library = ctypes.CDLL(str(driver_file))
    monkeypatch.setattr(libcuda, "_library", lambda: library)
    yield library
    assert library.cuFakeLive() == 0


@pytest.fixture
def stream(driver: ctypes.CDLL) -> Iterator[int]:
    context, handle = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxPushCurrent_v2", context)
    call("cuStreamCreate", ctypes.byref(handle), 1)
    assert handle.value is not None
    yield handle.value
    call("cuStreamDestroy_v2", handle)
    call("cuCtxPopCurrent_v2", ctypes.byref(context))


def test_what_the_driver_says(driver: ctypes.CDLL) -> None:
    device = probe()
    assert device == FAKE_GPU
    assert str(device) == "cuda:0 Fake GPU"


def test_how_large_and_how_fast_the_gpu_is(driver: ctypes.CDLL) -> None:
    assert multiprocessors_and_mhz(probe()) == (8, 918.0)


def test_a_gpu_that_is_not_there(driver: ctypes.CDLL) -> None:
    with pytest.raises(DeviceError, match="there is no GPU 1, the driver has 1; see CUDA_VISIBLE_DEVICES"):
        probe(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FAKE_CUDA_INIT": "100"}, "the CUDA driver sees no GPU; check CUDA_VISIBLE_DEVICES"),
        ({"FAKE_CUDA_VERSION": "11020"}, r"too old: it knows CUDA 11\.2, expected 11\.4; update it"),
        (
            {"FAKE_CUDA_INIT": "35", "FAKE_CUDA_VERSION": "12020"},
            r"the CUDA driver is too old: it knows CUDA 12\.2",
        ),
        ({"FAKE_CUDA_INIT": "999"}, r"cuInit failed: an error \(CUDA error 999\)"),
    ],
)
def test_a_driver_that_does_not_start(
    driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=message):
        probe()


def test_no_driver_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    libcuda._library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DeviceError, match=r"there is no CUDA driver \(libcuda\.so\.1\); install NVIDIA's"):
        open_cuda()


def test_without_pycuda_the_driver_is_called_directly(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(open_cuda(), CtypesDevice)


def test_a_pycuda_that_cannot_be_imported_is_logged_and_not_used(
    driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delitem(sys.modules, "unblur.runtime.tensorrt.cuda_pycuda", raising=False)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert isinstance(open_cuda(), CtypesDevice)
    (line,) = caplog.messages
    assert line.startswith("pycuda cannot be imported, so the CUDA driver is called directly: ")


def _copy_to(target: ctypes.Array[ctypes.c_char], source: bytes, stream: int) -> Callable[[], None]:
    """Enqueues a copy of `source`, which lives as long as the function does."""
    kept = ctypes.create_string_buffer(source)
    return lambda: call(
        "cuMemcpyHtoDAsync_v2",
        ctypes.c_ulonglong(ctypes.addressof(target)),
        kept,
        ctypes.c_size_t(len(source)),
        ctypes.c_void_p(stream),
    )


def test_a_graph_repeats_what_was_captured(stream: int) -> None:
    target = ctypes.create_string_buffer(8)
    copy = _copy_to(target, b"sharp", stream)
    graph = CapturedGraph(stream, copy)
    assert target.value == b""
    for _ in range(2):
        target.value = b""
        graph.launch()
        assert target.value == b"sharp"
    graph.free()


def test_what_cannot_be_enqueued_ends_the_capture(stream: int) -> None:
    def refuse() -> None:
        raise DeviceError("TensorRT refused to execute")

    with pytest.raises(DeviceError, match="TensorRT refused"):
        CapturedGraph(stream, refuse)
    target = ctypes.create_string_buffer(8)
    _copy_to(target, b"sharp", stream)()
    assert target.value == b"sharp"


def test_waiting_spoils_a_capture(stream: int) -> None:
    event = ctypes.c_void_p()
    call("cuEventCreate", ctypes.byref(event), 3)

    def wait() -> None:
        libcuda._library().cuEventRecord(event, ctypes.c_void_p(stream))

    with pytest.raises(DeviceError, match="cuStreamEndCapture failed: an error"):
        CapturedGraph(stream, wait)
    call("cuEventDestroy_v2", event)


@pytest.mark.parametrize("binding", ["pycuda", "ctypes"])
def test_the_bindings_pass_the_gpu_tests_on_this_driver(driver_file: Path, binding: str) -> None:
    """tests/gpu/test_cuda_bindings.py, in a process of its own whose libcuda.so.1 is ours."""
    if binding == "pycuda" and importlib.util.find_spec("pycuda") is None:
        pytest.skip("not run, since the package pycuda is not installed")
    tests = Path(__file__).parents[1] / "gpu" / "test_cuda_bindings.py"
    # Lazily: pycuda names some hundred functions of the driver, of which ours has those that are called.
    run = "import os, pytest, sys; sys.setdlopenflags(os.RTLD_LAZY); sys.exit(pytest.main(sys.argv[1:]))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver_file.parent)}
    command = [sys.executable, "-c", run, "-q", "-k", binding, str(tests)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 passed" in done.stdout
