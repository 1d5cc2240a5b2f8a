"""Each binding behind the seam of cuda.py, on a GPU: memory, streams, kernels, graphs, errors, threads."""

import ctypes
import threading
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import NetworkValues, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.spec import ModelSpec
from unblur.runtime.tensorrt.cuda import Cuda
from unblur.runtime.tensorrt.cuda_driver import call
from unblur.runtime.tensorrt.engine_buffers import HEADER_BYTES, Kernels
from unblur.runtime.tensorrt.trt import TensorFormat
from unblur.runtime.yuv import YuvFrame, YuvLayout, batch_from_yuv

MIB = 1 << 20
VALUES = NetworkValues(ModelSpec("lprn", "tiny", 1, 16, 1, "none"))


def free_bytes() -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def test_bytes_go_to_the_gpu_and_come_back(cuda: Cuda) -> None:
    stream, memory, other = cuda.stream(), cuda.alloc(MIB), cuda.alloc(MIB)
    source, target = cuda.alloc_host(MIB, mapped=False), cuda.alloc_host(MIB, mapped=False)
    source.array[:] = np.random.default_rng(1).integers(0, 256, MIB, np.uint8)
    target.array[:] = 0
    stream.copy_in(memory, source, MIB)
    stream.copy(other, memory, MIB)
    stream.copy_out(target, other, MIB // 2)
    stream.wait()
    np.testing.assert_array_equal(target.array[: MIB // 2], source.array[: MIB // 2])
    assert not target.array[MIB // 2 :].any()
    for thing in (source, target, memory, other, stream):
        thing.free()


@pytest.mark.parametrize("end", [TensorFormat(), *(TensorFormat(True, lanes) for lanes in (1, 2, 8))], ids=str)
@pytest.mark.parametrize("size_hw", [(96, 160), (45, 61)])
def test_the_kernels_compute_what_frames_does(cuda: Cuda, size_hw: tuple[int, int], end: TensorFormat) -> None:
    """On mapped memory, so that the GPU reads and writes what this CPU sees."""
    frame = np.random.default_rng(2).integers(0, 256, (*size_hw, 3), np.uint8)
    padding = Padding.to_multiple(size_hw, 16)
    batch = batch_from_frame(frame, padding)
    layout = YuvLayout.of("NV12", size_hw)
    yuv = YuvFrame(np.random.default_rng(4).integers(0, 256, layout.nbytes, np.uint8), layout)
    pixels = cuda.alloc_host(HEADER_BYTES + frame.nbytes, mapped=True)
    floats = cuda.alloc_host(end.nbytes(batch.shape), mapped=True)
    stream, kernels = cuda.stream(), Kernels(cuda, VALUES)
    pixels.array[: frame.nbytes] = frame.ravel()
    kernels.batch_from_frame(pixels.address, floats.address, padding, stream, end=end)
    stream.wait()
    np.testing.assert_array_equal(floats.array.view(end.dtype), end.packed(batch).ravel())
    pixels.array[: layout.nbytes] = yuv.pixels
    kernels.batch_from_frame(pixels.address, floats.address, padding, stream, end=end, yuv=layout)
    stream.wait()
    np.testing.assert_array_equal(floats.array.view(end.dtype), end.packed(batch_from_yuv(yuv, padding)).ravel())

    noise = np.random.default_rng(3).uniform(-0.2, 1.2, batch.shape).astype(end.dtype).astype(np.float32)
    floats.array[:] = end.packed(noise).reshape(-1).view(np.uint8)
    kernels.frame_from_batch(floats.address, pixels.address, padding, stream, end=end)
    stream.wait()
    np.testing.assert_array_equal(pixels.array[HEADER_BYTES:], frame_from_batch(noise, padding).ravel())
    for thing in (pixels, floats, kernels, stream):
        thing.free()


def test_an_event_ties_one_stream_to_another(cuda: Cuda) -> None:
    """Over and over: without the event the second copy might come first."""
    uploads, downloads = cuda.stream(), cuda.stream()
    memory = cuda.alloc(16 * MIB)
    source, target = cuda.alloc_host(16 * MIB, mapped=False), cuda.alloc_host(16 * MIB, mapped=False)
    uploaded, downloaded = uploads.record(), downloads.record()
    for level in range(1, 6):
        source.array[:] = level
        uploads.copy_in(memory, source, 16 * MIB)
        uploads.record(uploaded)
        downloads.wait_for(uploaded)
        downloads.copy_out(target, memory, 16 * MIB)
        downloads.record(downloaded)
        downloaded.wait()
        assert (target.array == level).all()
    for thing in (uploaded, downloaded, source, target, memory, uploads, downloads):
        thing.free()


def test_a_graph_repeats_what_was_captured(cuda: Cuda, frame: NDArray[np.uint8]) -> None:
    padding = Padding.to_multiple((96, 160), 16)
    nbytes = 4 * frame.size
    source, target = cuda.alloc_host(frame.size, mapped=False), cuda.alloc_host(nbytes, mapped=False)
    pixels, floats = cuda.alloc(frame.size), cuda.alloc(nbytes)
    stream, kernels = cuda.stream(), Kernels(cuda, VALUES)

    def enqueue() -> None:
        stream.copy_in(pixels, source, frame.size)
        kernels.batch_from_frame(pixels.address, floats.address, padding, stream)
        stream.copy_out(target, floats, nbytes)

    enqueue()  # loads the kernel, which cannot be captured
    stream.wait()
    target.array[:] = 0xFF
    graph = stream.capture(enqueue)
    stream.wait()
    assert (target.array == 0xFF).all(), "capturing must not execute"
    for brightness in (0, 40):
        source.array[:] = (frame // 2 + brightness).ravel()
        graph.launch()
        stream.wait()
        expected = batch_from_frame(frame // 2 + brightness, padding)
        np.testing.assert_array_equal(target.array.view(np.float32), expected.ravel())
    for thing in (graph, source, target, pixels, floats, kernels, stream):
        thing.free()


def test_a_capture_that_fails_leaves_the_stream_usable(cuda: Cuda) -> None:
    stream, memory, host = cuda.stream(), cuda.alloc(16), cuda.alloc_host(16, mapped=False)

    def refuse() -> None:
        stream.copy_in(memory, host, 16)
        raise DeviceError("TensorRT refused to execute")

    with pytest.raises(DeviceError, match="TensorRT refused"):
        stream.capture(refuse)
    with pytest.raises(DeviceError):
        stream.capture(stream.wait)
    stream.copy_in(memory, host, 16)
    stream.wait()
    for thing in (memory, host, stream):
        thing.free()


def test_events_tell_how_long_the_work_between_them_took(cuda: Cuda) -> None:
    stream, memory, host = cuda.stream(), cuda.alloc(64 * MIB), cuda.alloc_host(64 * MIB, mapped=False)
    before = stream.record()
    stream.copy_in(memory, host, 64 * MIB)
    between = stream.record()
    after = stream.record()
    stream.wait()
    copied_ms, idle_ms = between.elapsed_ms(before), after.elapsed_ms(between)
    assert 0 <= idle_ms < copied_ms < 10_000
    assert after.elapsed_ms(before) == pytest.approx(copied_ms + idle_ms, abs=0.01)
    with pytest.raises(TypeError, match="expected an event of"):
        after.elapsed_ms("an event")  # type: ignore[arg-type]
    for thing in (before, between, after, stream, memory, host):
        thing.free()


def test_too_much_memory_is_told_in_one_line(cuda: Cuda) -> None:
    with pytest.raises(DeviceError, match=r"has no \d+ MiB of GPU memory left; close other programs"):
        cuda.alloc(1 << 46)


def test_every_byte_comes_back(cuda: Cuda) -> None:
    def use_and_free() -> None:
        with ExitStack() as everything:
            for thing in (
                cuda.stream(),
                Kernels(cuda, VALUES),
                cuda.alloc(64 * MIB),
                cuda.alloc_host(MIB, mapped=True),
            ):
                everything.callback(thing.free)

    use_and_free()
    before = free_bytes()
    for _ in range(20):
        use_and_free()
    assert before - free_bytes() < 64 * MIB


def test_another_thread_may_take_over(cuda: Cuda) -> None:
    made: list[Callable[[], None]] = []

    def use_elsewhere() -> None:
        with cuda.current():
            memory, stream = cuda.alloc(MIB), cuda.stream()
            stream.wait()
            made.extend((memory.free, stream.free))

    thread = threading.Thread(target=use_elsewhere)
    thread.start()
    thread.join()
    assert len(made) == 2
    for free in made:
        free()
