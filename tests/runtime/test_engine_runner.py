"""The engine runner on a GPU and a TensorRT in memory: what it computes and refuses, and that it leaves nothing."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_workshop import LARGE, SMALL, SPEC, Workshop
from fake_cuda import ADA, COST_MS, ORIN
from fake_tensorrt import EngineText, FakeTensorRT
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError, EngineMismatch
from unblur.runtime.frames import Padding, batch_from_frame, frame_from_batch
from unblur.runtime.runner import TimedFrameRunner, TimedRunner
from unblur.runtime.tensorrt import engine_timing
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_file import BuildOptions, Profile, record_path
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.trt import TensorRT


@pytest.fixture(params=[ADA, ORIN], ids=["discrete", "integrated"])
def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workshop]:
    """On a discrete and on an integrated GPU. Whatever a test does, at its end nothing may be left on the GPU."""
    workshop = Workshop(tmp_path, request.param)
    yield workshop
    assert workshop.leaks == 0


@pytest.fixture
def discrete(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    assert workshop.leaks == 0


def batch_of(shape: tuple[int, ...], seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, np.float32)


def computed(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(0.5) * batch + np.float32(0.25)


def computed_frame(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padding = Padding.to_multiple(frame.shape[:2], SPEC.multiple_of)  # type: ignore[arg-type]
    return frame_from_batch(computed(batch_from_frame(frame, padding)), padding)


def test_a_batch(workshop: Workshop) -> None:
    with workshop.open() as runner:
        for seed in range(4):  # enqueued, captured, launched, launched
            batch = batch_of(SMALL, seed)
            np.testing.assert_array_equal(runner.infer(batch), computed(batch))


def test_it_tells_what_it_runs(workshop: Workshop) -> None:
    with workshop.open() as runner:
        assert runner.spec == SPEC
        assert runner.precision == "fp16"
        assert runner.device == f"cuda:0 {workshop.device.name} (TensorRT 10.3.0)"


def test_a_frame_of_any_size_is_padded_and_cut_on_the_gpu(
    workshop: Workshop, make_frame: Callable[[int, int], NDArray[np.uint8]]
) -> None:
    frame = make_frame(45, 61)
    out = np.zeros_like(frame)
    with workshop.open() as runner:
        for _ in range(3):
            out[:] = 0
            runner.infer_frame(frame, out)
            np.testing.assert_array_equal(out, computed_frame(frame))


def test_a_frame_in_place_and_out_of_a_larger_picture(
    workshop: Workshop, make_frame: Callable[[int, int], NDArray[np.uint8]]
) -> None:
    picture = make_frame(64, 96)
    window = picture[5:37, 7:55]
    expected = computed_frame(window.copy())
    with workshop.open() as runner:
        runner.infer_frame(window, window)
    np.testing.assert_array_equal(window, expected)


def test_frames_and_batches_take_turns(workshop: Workshop, frame: NDArray[np.uint8]) -> None:
    batch, out = batch_of((2, 3, 16, 32)), np.empty_like(frame)
    with workshop.open() as runner:
        for _ in range(3):
            runner.infer_frame(frame, out)
            np.testing.assert_array_equal(out, computed_frame(frame))
            np.testing.assert_array_equal(runner.infer(batch), computed(batch))


def test_the_second_frame_of_a_size_is_captured(discrete: Workshop) -> None:
    with discrete.open() as runner:
        for _ in range(3):
            runner.infer(batch_of(SMALL))
        runner.infer(batch_of(LARGE))
    one = ["copy in", "engine", "copy out"]
    assert discrete.cuda.done == [*one, "graph", *one, "graph", *one, *one]


def test_the_parts_of_the_time_of_a_batch(discrete: Workshop) -> None:
    with discrete.open() as runner:
        assert isinstance(runner, TimedRunner)
        for seed in range(4):  # enqueued, captured, launched, launched
            batch = batch_of(SMALL, seed)
            restored, timing = runner.timed_infer(batch)
            np.testing.assert_array_equal(restored, computed(batch))
            assert (timing.copy_in_ms, timing.device_ms, timing.copy_out_ms) == tuple(COST_MS.values())
            assert timing.host_ms >= 0
    one = ["copy in", "engine", "copy out"]
    assert discrete.cuda.done == [*one, *(["copy in", "graph", "engine", "copy out"] * 3)]


def test_host_time_is_what_the_gpu_does_not_explain(discrete: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_ms = sum(COST_MS.values())
    seconds = iter([7.0, 7.0 + (gpu_ms + 1.5) / 1e3])
    monkeypatch.setattr(engine_timing.time, "perf_counter", lambda: next(seconds))
    with discrete.open() as runner:
        _, timing = runner.timed_infer(batch_of(SMALL))
    assert timing.host_ms == pytest.approx(1.5)


@pytest.mark.parametrize(("device", "copies"), [(ADA, 1), (ORIN, 0)], ids=["discrete", "integrated"])
def test_the_parts_of_the_time_of_a_frame(
    tmp_path: Path, frame: NDArray[np.uint8], device: Device, copies: int
) -> None:
    workshop, out = Workshop(tmp_path, device), np.empty_like(frame)
    with workshop.open() as runner:
        assert isinstance(runner, TimedFrameRunner)
        for _ in range(4):
            timing = runner.timed_infer_frame(frame, out)
            np.testing.assert_array_equal(out, computed_frame(frame))
            parts = (timing.copy_in_ms, timing.device_ms, timing.copy_out_ms)
            # 16 bytes before the frame are copied too
            assert parts == (2 * copies * COST_MS["copy in"], COST_MS["engine"], copies * COST_MS["copy out"])


def test_timed_and_untimed_batches_take_turns(workshop: Workshop) -> None:
    batch = batch_of(SMALL)
    with workshop.open() as runner:
        for _ in range(3):
            np.testing.assert_array_equal(runner.infer(batch), computed(batch))
            np.testing.assert_array_equal(runner.timed_infer(batch)[0], computed(batch))


@pytest.mark.parametrize("runs", [0, 2])
def test_a_gpu_lost_in_a_timed_batch_leaves_nothing_behind(discrete: Workshop, runs: int) -> None:
    with discrete.open() as runner:
        for _ in range(runs):
            runner.timed_infer(batch_of(SMALL))
        discrete.module.fails = "Error Code 1: Cask (Cask convolution execution)"
        with pytest.raises(DeviceError, match="Cask conv"):
            runner.timed_infer(batch_of(LARGE))


def test_nothing_is_copied_on_an_integrated_gpu(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    workshop = Workshop(tmp_path, ORIN)
    with workshop.open(graph=False) as runner:
        runner.infer_frame(frame, np.empty_like(frame))
    assert workshop.cuda.done == ["batch from frame", "engine", "frame from batch"]


def test_frames_allocate_nothing_after_opening(workshop: Workshop, frame: NDArray[np.uint8]) -> None:
    """Batches need page-locked memory of their own, once."""
    with workshop.open(graph=False) as runner:
        before = set(workshop.cuda.live)
        runner.infer_frame(frame, np.empty_like(frame))
        assert workshop.cuda.live == before
        runner.infer(batch_of(SMALL))
        with_batches = set(workshop.cuda.live)
        runner.infer(batch_of(LARGE))
        assert workshop.cuda.live == with_batches


def test_a_result_outlives_the_runner(workshop: Workshop) -> None:
    with workshop.open() as runner:
        result = runner.infer(batch_of(SMALL))
    np.testing.assert_array_equal(result, computed(batch_of(SMALL)))


def test_the_profile_that_holds_a_size_is_chosen(workshop: Workshop) -> None:
    fixed = [Profile(shape, shape, shape) for shape in (SMALL, LARGE)]
    with workshop.open(workshop.build(*fixed)) as runner:
        for shape in (LARGE, SMALL, LARGE):
            np.testing.assert_array_equal(runner.infer(batch_of(shape)), computed(batch_of(shape)))


def test_a_size_outside_the_profile_is_refused_and_the_next_one_runs(workshop: Workshop) -> None:
    with workshop.open() as runner:
        runner.infer(batch_of(SMALL))
        with pytest.raises(EngineMismatch, match=r"of 1x16x16\.\.2x64x96, got 1x128x96; build one"):
            runner.infer(batch_of((1, 3, 128, 96)))
        np.testing.assert_array_equal(runner.infer(batch_of(SMALL)), computed(batch_of(SMALL)))


def test_an_engine_that_cannot_be_captured_runs_all_the_same(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    with workshop.open(workshop.build(can_be_captured=False)) as runner:
        for seed in range(3):
            batch = batch_of(SMALL, seed)
            np.testing.assert_array_equal(runner.infer(batch), computed(batch))
    assert [record.message for record in caplog.records] == [
        "the engine cannot be captured as a CUDA graph, so every frame is enqueued: "
        "TensorRT 10.3.0 refused to execute: operation not permitted when stream is capturing"
    ]


def test_a_failed_enqueue_is_told_and_no_stale_frame_is_shown(workshop: Workshop, frame: NDArray[np.uint8]) -> None:
    with workshop.open() as runner:
        workshop.module.fails = "Error Code 1: Cask (Cask convolution execution)\n"
        out = np.full_like(frame, 7)
        with pytest.raises(DeviceError, match=r"10\.3\.0 refused to execute: Error Code 1: Cask \(Cask conv"):
            runner.infer_frame(frame, out)
        assert (out == 7).all()
        workshop.module.fails = ""
        with pytest.raises(DeviceError, match=r"the engine failed before: .*Cask.*; open it again"):
            runner.infer_frame(frame, out)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_lost_gpu_is_told_once_more_and_closes_quietly(discrete: Workshop, frames: int) -> None:
    runner = discrete.open()
    for _ in range(frames):
        runner.infer(batch_of(SMALL))
    discrete.cuda.lost = "cuEventSynchronize failed: an illegal memory access was encountered (CUDA error 700)"
    with pytest.raises(DeviceError, match="illegal memory access"):
        runner.infer(batch_of(SMALL))
    discrete.cuda.lost = ""  # so that the fake driver can tell what is freed
    with pytest.raises(DeviceError, match=r"the engine failed before: .*illegal memory access"):
        runner.infer(batch_of(SMALL))
    runner.close()


def test_too_little_memory_leaves_nothing_behind(workshop: Workshop) -> None:
    engine = workshop.build()
    with workshop.open(engine):
        needed = workshop.cuda.used
    for share in range(8):
        workshop.cuda.capacity = needed * share // 8
        with pytest.raises(DeviceError, match="no memory"):
            workshop.open(engine)
        assert workshop.leaks == 0
    workshop.cuda.capacity = needed
    workshop.open(engine).close()


def test_no_memory_for_the_execution_context(tmp_path: Path) -> None:
    """Which TensorRT allocates itself before 10.1."""
    discrete = Workshop(tmp_path, version="10.0.1")
    engine = discrete.build()
    discrete.cuda.capacity = 0
    with pytest.raises(DeviceError, match=r"TensorRT 10\.0\.1 has no memory to execute .*OutOfMemory"):
        discrete.open(engine)


def test_a_second_thread_is_refused_while_the_first_is_in_there(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on, results = threading.Event(), threading.Event(), []
    with workshop.open() as runner:
        stream = next(iter(workshop.cuda.streams.values()))
        wait = stream.wait

        def slow_wait() -> None:
            inside.set()
            go_on.wait(10)
            wait()

        monkeypatch.setattr(stream, "wait", slow_wait)
        thread = threading.Thread(target=lambda: results.append(runner.infer(batch_of(SMALL)).copy()))
        thread.start()
        assert inside.wait(10)
        with pytest.raises(DeviceError, match="busy in another thread; open one runner for each thread"):
            runner.infer(batch_of(SMALL))
        go_on.set()
        thread.join()
        np.testing.assert_array_equal(results[0], computed(batch_of(SMALL)))
        np.testing.assert_array_equal(runner.infer(batch_of(SMALL)), results[0])


def test_it_may_be_opened_used_and_closed_in_three_threads(workshop: Workshop) -> None:
    engine = workshop.build()
    box: list[EngineRunner] = []
    results: list[NDArray[np.float32]] = []
    for work in (
        lambda: box.append(workshop.open(engine)),
        lambda: results.append(box[0].infer(batch_of(SMALL))),
        lambda: box[0].close(),
    ):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(results[0], computed(batch_of(SMALL)))


def test_after_close_it_says_so(workshop: Workshop) -> None:
    runner = workshop.open()
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.infer(batch_of(SMALL))


def test_wrong_arguments(discrete: Workshop, frame: NDArray[np.uint8]) -> None:
    with discrete.open() as runner:
        with pytest.raises(ValueError, match="multiples of 16, got"):
            runner.infer(batch_of((1, 3, 30, 32)))
        for wrong in (np.float32, np.uint16):
            with pytest.raises(TypeError, match=f"frames of uint8, got {wrong.__name__}"):
                runner.infer_frame(frame.astype(wrong), frame)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=f"frames of uint8, got {wrong.__name__}"):
                runner.infer_frame(frame, frame.astype(wrong))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"out is \(32, 96, 3\), expected \(64, 96, 3\)"):
            runner.infer_frame(frame, np.empty((32, 96, 3), np.uint8))


def test_an_engine_without_its_record(discrete: Workshop) -> None:
    engine = discrete.build()
    record_path(engine).unlink()
    with pytest.raises(EngineMismatch, match=r"has no .*json beside it"):
        discrete.open(engine)


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_engine_never_reaches_tensorrt(discrete: Workshop, keep: int) -> None:
    engine = discrete.build()
    engine.write_bytes(engine.read_bytes()[:keep])
    with pytest.raises(EngineMismatch, match=r"has \d+ bytes, expected \d+; build it again"):
        discrete.open(engine)


def test_an_engine_of_another_gpu(discrete: Workshop, tmp_path: Path) -> None:
    engine = Workshop(tmp_path, replace(ADA, name="NVIDIA RTX 3060", sm=86)).build()
    with pytest.raises(EngineMismatch, match="architecture differs: the engine is for SM86, this device has SM89"):
        discrete.open(engine)


def test_an_engine_of_another_version(discrete: Workshop) -> None:
    engine = discrete.build()
    discrete.module.__version__ = "10.7.0"
    discrete.trt = TensorRT(discrete.module, "tensorrt")
    with pytest.raises(EngineMismatch, match=r"version differs: the engine is for 10\.3\.0, this device has 10\.7"):
        discrete.open(engine)


def test_an_engine_that_tensorrt_refuses(discrete: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineText, "to_bytes", lambda self: b"a file of another kind")
    with pytest.raises(EngineMismatch, match=r"10\.3\.0 refused the engine \(Error Code 1: Serialization \(Seri"):
        discrete.open(discrete.build())


@pytest.mark.parametrize("text", [{"input": "image"}, {"dtype": "INT8"}])
def test_an_engine_with_other_tensors(discrete: Workshop, text: dict[str, str]) -> None:
    with pytest.raises(EngineMismatch, match=r"has the tensors .*, expected blurred and restored in float or half"):
        discrete.open(discrete.build(**text))


def test_an_engine_that_changes_the_size(discrete: Workshop) -> None:
    with (
        discrete.open(discrete.build(enlarges=2)) as runner,
        pytest.raises(EngineMismatch, match=r"makes \(1, 3, 64, 96\) of \(1, 3, 32, 48\), expected \(1, 3, 32"),
    ):
        runner.infer(batch_of(SMALL))


def test_a_version_compatible_engine_may_bring_its_own_runtime(
    discrete: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(discrete.module, "Runtime", lambda logger: opened.append(_runtime(logger)) or opened[-1])
    _runtime = FakeTensorRT(discrete.cuda).Runtime
    discrete.open(discrete.build(options=BuildOptions(version_compatible=True))).close()
    discrete.open(discrete.build()).close()
    assert [runtime.engine_host_code_allowed for runtime in opened] == [True, False]
