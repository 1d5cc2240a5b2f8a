"""Engines that are built and executed here, by TensorRT or TensorRT-RTX, whichever can be imported."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.errors import EngineMismatch, MissingExtra
from unblur.runtime.frames import Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import psnr_float_db
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.profile.layers_tensorrt import profile_engine_layers
from unblur.runtime.quality.tolerances import TOLERANCES
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_file import Flavour
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.open_cuda import open_cuda
from unblur.runtime.tensorrt.trt import MODULES
from unblur.runtime.yuv import YuvFrame, YuvLayout

SIZES = ("96x160", "32x48:96x160:128x192")

Build = Callable[[Precision, str], tuple[Path, Path]]


@pytest.fixture(params=["tensorrt", "rtx"])
def build(
    request: pytest.FixtureRequest, device: Device, make_onnx: Callable[[Precision], Path], tmp_path: Path
) -> Build:
    """`build("fp16", "96x160")` -> the engine of this GPU and the ONNX file it was made of."""
    flavour: Flavour = request.param
    if importlib.util.find_spec(MODULES[flavour]) is None:
        pytest.skip(f"not run, since {MODULES[flavour]} is not installed")
    pytest.importorskip("onnx", reason="not run, since building needs the extra [tensorrt] or [rtx]")
    try:
        open_cuda()
    except MissingExtra as error:
        pytest.skip(f"not run: {error}")

    def built(precision: Precision, size: str) -> tuple[Path, Path]:
        from unblur.export.build import BuildRequest, build_engines, find_sources
        from unblur.export.engine_from_onnx import targets_from_text

        onnx = make_onnx(precision)
        targets = targets_from_text("tensorrt" if flavour == "tensorrt" else f"rtx-sm{device.sm}")
        request = BuildRequest(find_sources(onnx)[0], targets, tmp_path / "engines", (size,), detailed=True)
        try:
            (stored,) = build_engines(request)
        except EngineMismatch as error:
            pytest.skip(f"not run, since this GPU is not one of its targets: {error}")
        return stored.path, onnx

    return built


@pytest.mark.parametrize("size", SIZES, ids=["fixed", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_computes_what_its_onnx_file_does(
    build: Build, frame: NDArray[np.uint8], precision: Precision, size: str
) -> None:
    engine, onnx = build(precision, size)
    batch = batch_from_frame(frame, Padding((96, 160), (96, 160)))
    with OnnxRunner(onnx, graph_optimization=False) as reference, EngineRunner(engine) as runner:
        expected = reference.infer(batch)
        results = [runner.infer(batch).copy() for _ in range(4)]  # enqueued, captured, launched, launched
    assert psnr_float_db(results[0], expected) >= TOLERANCES["engine"][precision].floor_db
    for result in results[1:]:
        assert psnr_float_db(result, results[0]) >= 90


def test_frames_equal_batches(build: Build, frame: NDArray[np.uint8]) -> None:
    engine, _ = build("fp16", "96x160")
    padding = Padding((96, 160), (96, 160))
    out = np.empty_like(frame)
    with EngineRunner(engine) as runner:
        expected = frame_from_batch(runner.infer(batch_from_frame(frame, padding)).copy(), padding)
        for _ in range(3):
            out[:] = 0
            runner.infer_frame(frame, out)
            assert np.abs(out.astype(int) - expected).max() <= 1


def test_the_parts_of_the_time_add_up(build: Build, frame: NDArray[np.uint8], device: Device) -> None:
    engine, _ = build("fp16", "96x160")
    batch = batch_from_frame(frame, Padding((96, 160), (96, 160)))
    with EngineRunner(engine) as runner:
        expected = runner.infer(batch).copy()
        for _ in range(3):  # enqueued, captured, launched
            started = time.perf_counter()
            restored, parts = runner.timed_infer(batch)
            whole_ms = (time.perf_counter() - started) * 1e3
            assert psnr_float_db(restored, expected) >= 90
            assert parts.device_ms > 0
            assert min(parts.copy_in_ms, parts.copy_out_ms) > 0
        assert sum(vars(parts).values()) <= whole_ms + 0.01


def test_frames_that_overlap_equal_frames_alone(build: Build, frame: NDArray[np.uint8]) -> None:
    engine, _ = build("int8", "96x160")
    frames = [np.roll(frame, 7 * shift, axis=1) for shift in range(20)]
    outs, alone = [np.empty_like(frame) for _ in frames], np.empty_like(frame)
    with EngineRunner(engine) as runner:
        for index, (given, out) in enumerate(zip(frames, outs, strict=True)):
            runner.begin_frame(given, out)
            if index:
                runner.end_frame()
        runner.end_frame()
        for given, out in zip(frames, outs, strict=True):
            runner.infer_frame(given, alone)
            np.testing.assert_array_equal(out, alone)


def test_yuv_equals_the_rgb_that_it_is(build: Build) -> None:
    engine, _ = build("fp16", "96x160")
    layout = YuvLayout.of("NV12", (96, 160))
    yuv = YuvFrame(np.random.default_rng(1).integers(60, 190, layout.nbytes, np.uint8), layout)
    direct, converted = np.empty((2, *yuv.shape), np.uint8)
    with EngineRunner(engine) as runner:
        for _ in range(3):
            runner.infer_yuv(yuv, direct)
            runner.infer_frame(yuv.rgb(), converted)
            assert np.abs(direct.astype(int) - converted).max() <= 3  # not rounded to levels before


def test_two_engines_in_one_scratch_memory(build: Build, frame: NDArray[np.uint8]) -> None:
    engines = [build(precision, "96x160")[0] for precision in ("fp32", "fp16")]
    with EngineRunner(engines[0]) as first, EngineRunner(engines[1]) as second:
        expected, found = np.empty((2, *frame.shape), np.uint8), np.empty_like(frame)
        for runner, out in zip((first, second), expected, strict=True):
            runner.infer_frame(frame, out)
        second.share_memory(first)
        for _ in range(3):
            for runner, out in zip((first, second), expected, strict=True):
                runner.infer_frame(frame, found)
                np.testing.assert_array_equal(found, out)


@pytest.mark.parametrize("size", SIZES, ids=["fixed", "dynamic"])
def test_every_layer_has_a_time(build: Build, size: str) -> None:
    engine, _ = build("int8", size)
    layers = profile_engine_layers(engine, (1, 3, 96, 160), runs=3)
    assert sum(layer.ms or 0.0 for layer in layers) > 0
    assert all(layer.operator for layer in layers), "a time that no layer of the inspector's report explains"
    convolutions = [layer for layer in layers if layer.operator == "Conv"]
    assert convolutions
    assert all(layer.flops > 0 for layer in convolutions)


def test_sizes_may_change_and_come_back(build: Build, frame: NDArray[np.uint8]) -> None:
    engine, _ = build("fp32", SIZES[1])
    with EngineRunner(engine) as runner:
        outs = []
        for window in (frame, frame[:50, :70], frame[:50, :70], frame, frame):
            out = np.empty_like(window, order="C")
            runner.infer_frame(np.ascontiguousarray(window), out)
            outs.append(out)
        with pytest.raises(EngineMismatch, match="the engine takes batches"):
            runner.infer_frame(np.zeros((500, 500, 3), np.uint8), np.zeros((500, 500, 3), np.uint8))
    assert np.abs(outs[1].astype(int) - outs[2]).max() <= 1
    assert np.abs(outs[0].astype(int) - outs[4]).max() <= 1


def test_a_damaged_engine_never_reaches_tensorrt(build: Build) -> None:
    engine, _ = build("fp32", "96x160")
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 0xFF
    engine.write_bytes(data)
    with pytest.raises(EngineMismatch, match="is altered"):
        EngineRunner(engine)


def test_opening_and_closing_again_and_again(build: Build, frame: NDArray[np.uint8]) -> None:
    engine, _ = build("fp16", "96x160")
    for _ in range(5):
        with EngineRunner(engine) as runner:
            runner.infer_frame(frame, np.empty_like(frame))
