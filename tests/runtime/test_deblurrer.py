"""The public functions: any size, no allocation for a repeated one, clear refusals."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.frames import Frame
from unblur.runtime.model import open_model as runner_module
from unblur.runtime.model.deblurrer import Deblurrer, deblur
from unblur.runtime.runner import Runner, RunnerOptions


def whole_picture(onnx: Path, frame: Frame) -> Frame:
    with Deblurrer(onnx, tile=1 << 30) as deblurrer:
        return deblurrer(frame)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (33, 2), (15, 17), (64, 96), (200, 211)])
def test_any_size_keeps_its_size(
    tiny_onnx: Path, make_frame: Callable[..., Frame], size_hw: tuple[int, int]
) -> None:
    frame = make_frame(*size_hw)
    restored = deblur(frame, tiny_onnx)
    assert (restored.shape, restored.dtype) == (frame.shape, np.uint8)
    assert not np.array_equal(restored, frame)


def test_large_frames_are_tiled_without_a_seam(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    frame = make_frame(200, 300)
    with Deblurrer(tiny_onnx, tile=128 * 128) as deblurrer:
        assert deblurrer.plan((200, 300)).count > 1
        tiled = deblurrer(frame)
    assert np.abs(tiled.astype(int) - whole_picture(tiny_onnx, frame)).max() <= 1


def test_sizes_may_alternate(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    with Deblurrer(tiny_onnx) as deblurrer:
        first = deblurrer(make_frame(40, 50))
        deblurrer(make_frame(33, 120))
        np.testing.assert_array_equal(deblurrer(make_frame(40, 50)), first)


def test_out_is_filled_and_may_be_the_frame(tiny_onnx: Path, frame: Frame) -> None:
    with Deblurrer(tiny_onnx) as deblurrer:
        expected = deblurrer(frame)
        out = np.empty_like(frame)
        assert deblurrer(frame, out=out) is out
        np.testing.assert_array_equal(out, expected)
        deblurrer(frame, out=frame)
        np.testing.assert_array_equal(frame, expected)


def test_a_view_of_a_larger_frame(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    wide = make_frame(64, 200)
    with Deblurrer(tiny_onnx) as deblurrer:
        np.testing.assert_array_equal(deblurrer(wide[:, 20:110]), deblurrer(wide[:, 20:110].copy()))


def test_nothing_is_allocated_for_a_repeated_size(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    frame = make_frame(512, 640)  # so that the fixed buffers of numpy do not count
    out = np.empty_like(frame)
    with Deblurrer(tiny_onnx) as deblurrer:
        deblurrer(frame, out=out)
        tracemalloc.start()
        try:
            deblurrer(frame, out=out)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < frame.nbytes / 4


def test_a_runner_of_the_caller_stays_open(fake_runner: Callable[..., Runner], frame: Frame) -> None:
    closed: list[bool] = []
    runner = fake_runner(lambda batch: batch)
    runner.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with Deblurrer(runner) as deblurrer:
        np.testing.assert_array_equal(deblurrer(frame), frame)
        assert deblurrer.runner is runner
        assert deblurrer.spec.preset == "tiny"
    assert not closed


def test_a_runner_opened_by_name_is_closed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, frame: Frame
) -> None:
    monkeypatch.setattr(runner_module, "_SHIPPED", tiny_bundle.parent)
    with Deblurrer("tiny", RunnerOptions(steps=1)) as deblurrer:
        assert deblurrer.spec.steps == 1
    with pytest.raises(ValueError, match="the runner is closed"):
        deblurrer(frame)


def test_wrong_arguments(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    frame = make_frame(200, 300)
    with Deblurrer(tiny_onnx, tile=128 * 128) as deblurrer:
        with pytest.raises(TypeError, match="a frame is a uint8 or uint16 array, got float64"):
            deblurrer(frame / 255)
        with pytest.raises(ValueError, match=r"the shape \(H, W, 3\)"):
            deblurrer(frame[..., 0])
        with pytest.raises(ValueError, match=r"out is uint8 \(10, 300, 3\), expected uint8 \(200, 300, 3\)"):
            deblurrer(frame, out=frame[:10])
        with pytest.raises(ValueError, match="out shares memory with a frame that needs 9 tiles"):
            deblurrer(frame, out=frame)
