"""Frames through an engine in memory: in its own type and format, as YUV, two under way, and its scratch memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_workshop import DYNAMIC, LARGE, SMALL, SPEC, Workshop
from fake_cuda import ADA, ORIN
from numpy.typing import NDArray

from tests.runtime.test_file_loop import ListSink, ListSource
from unblur.runtime.errors import DeviceError, SpecMismatch
from unblur.runtime.frames import Batch, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.loops.file_loop import run_file_loop
from unblur.runtime.loops.restorer import FixedSteps
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.tiles import plan_tiles_within
from unblur.runtime.tensorrt import engine_buffers
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_buffers import HEADER_BYTES
from unblur.runtime.tensorrt.engine_file import Profile
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.trt import TensorFormat
from unblur.runtime.yuv import YuvFrame, YuvLayout, batch_from_yuv

Frame = NDArray[np.uint8]
MakeFrame = Callable[[int, int], Frame]

devices = pytest.mark.parametrize("device", [ADA, ORIN], ids=["discrete", "integrated"])


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    assert workshop.leaks == 0


def through(end: TensorFormat, batch: Batch) -> Batch:
    """What the engine computes for a batch, rounded to its type before and after."""
    taken = batch.astype(end.dtype).astype(np.float32)
    return (np.float32(0.5) * taken + np.float32(0.25)).astype(end.dtype).astype(np.float32)


@devices
@pytest.mark.parametrize("end", [TensorFormat(), *(TensorFormat(True, lanes) for lanes in (1, 2, 8))], ids=str)
def test_an_engine_is_given_its_own_type_and_format(
    tmp_path: Path, make_frame: MakeFrame, device: Device, end: TensorFormat
) -> None:
    workshop = Workshop(tmp_path, device)
    frame, padding = make_frame(45, 61), Padding((45, 61), (48, 64))
    batch, out = batch_from_frame(frame, padding), np.empty_like(frame)
    two = np.concatenate([batch, 1 - batch])
    with workshop.open(workshop.build(dtype="HALF" if end.half else "FLOAT", lanes=end.lanes)) as runner:
        for _ in range(3):
            np.testing.assert_array_equal(runner.infer(two), through(end, two))
            np.testing.assert_array_equal(runner.timed_infer(two)[0], through(end, two))
            runner.infer_frame(frame, out)
            np.testing.assert_array_equal(out, frame_from_batch(through(end, batch), padding))
    assert workshop.leaks == 0


@devices
def test_memory_is_of_the_size_that_is_used(tmp_path: Path, device: Device) -> None:
    """Two frames of 8 bits before and after, each twice on a discrete GPU; tensors of two batches of 16 bits."""
    workshop, pixels = Workshop(tmp_path, device), 64 * 96
    with workshop.open(workshop.build(dtype="HALF", scratch=1000)):
        copies = 1 if device.integrated else 2
        frames = 2 * copies * (3 * pixels + HEADER_BYTES + 3 * pixels)
        assert workshop.cuda.used == frames + 2 * 2 * (2 * 3 * pixels) + 1000


@devices
@pytest.mark.parametrize("pixels", ["NV12", "I420"])
def test_yuv_goes_to_the_gpu_as_it_is(tmp_path: Path, device: Device, pixels: str) -> None:
    workshop = Workshop(tmp_path, device)
    layout = YuvLayout.of(pixels, (45, 61), "601", full_range=True)  # type: ignore[arg-type]
    data = np.random.default_rng(1).integers(0, 256, layout.nbytes, np.uint8)
    padding = Padding((45, 61), (48, 64))
    frame, out = YuvFrame(data, layout), np.empty((45, 61, 3), np.uint8)
    expected = frame_from_batch(through(TensorFormat(), batch_from_yuv(frame, padding)), padding)
    with workshop.open() as runner:
        for _ in range(3):
            runner.infer_yuv(frame, out)
            np.testing.assert_array_equal(out, expected)
    assert workshop.leaks == 0


def restored(runner: EngineRunner, frames: list[Frame]) -> list[Frame]:
    """All frames, two under way, each overwritten as soon as it was begun."""
    outs = [np.zeros_like(frame) for frame in frames]
    for index, (frame, out) in enumerate(zip(frames, outs, strict=True)):
        given = frame.copy()
        runner.begin_frame(given, out)
        given[:] = 0
        if index:
            runner.end_frame()
    runner.end_frame()
    return outs


def expected_of(frames: list[Frame]) -> list[Frame]:
    found = []
    for frame in frames:
        padding = Padding.to_multiple((frame.shape[0], frame.shape[1]), SPEC.multiple_of)
        found.append(frame_from_batch(through(TensorFormat(), batch_from_frame(frame, padding)), padding))
    return found


def frames_of(make_frame: MakeFrame) -> list[Frame]:
    sizes = [(32, 48)] * 5 + [(45, 61), (32, 48), (32, 48)]
    return [make_frame(*size_hw) // 8 + 16 * index for index, size_hw in enumerate(sizes)]


@devices
@pytest.mark.parametrize("seed", [None, *range(12)])
def test_frames_under_way_do_not_meet(
    tmp_path: Path, make_frame: MakeFrame, device: Device, seed: int | None
) -> None:
    """Whenever the GPU does what the streams and events let it do."""
    frames = frames_of(make_frame)
    with Workshop(tmp_path, device, seed).open() as runner:
        for out, expected in zip(restored(runner, frames), expected_of(frames), strict=True):
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("left_out", ["uploaded", "computed", "downloaded"])
def test_without_one_of_the_waits_they_do(
    tmp_path: Path, make_frame: MakeFrame, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """So that the test above is worth what it looks for."""
    frames, workshop = frames_of(make_frame), Workshop(tmp_path)
    with workshop.open() as runner:
        events = {getattr(slot, left_out) for slot in runner._buffers.slots}
        for stream, name in ((type(runner._buffers.stream), "wait_for"), (type(next(iter(events))), "wait")):
            does = getattr(stream, name)
            monkeypatch.setattr(stream, name, lambda *given, does=does: None if events & {*given} else does(*given))
        with pytest.raises((AssertionError, DeviceError)):
            np.testing.assert_array_equal(np.stack(restored(runner, frames[:5])), np.stack(expected_of(frames[:5])))
        monkeypatch.undo()


def test_copies_of_two_frames_overlap_with_the_network_of_another(workshop: Workshop, frame: Frame) -> None:
    """Ten frames take ten networks and a copy in and out, not ten of each."""
    out = np.empty_like(frame)
    with workshop.open() as runner:
        runner.infer_frame(frame, out)
        began_ms = workshop.cuda.now_ms
        runner.infer_frame(frame, out)
        alone_ms = workshop.cuda.now_ms - began_ms
        began_ms = workshop.cuda.now_ms
        restored(runner, [frame] * 10)
        together_ms = workshop.cuda.now_ms - began_ms
    assert alone_ms == 2 * 0.5 + 2.0 + 0.25
    assert together_ms == 10 * 2.0 + 2 * 0.5 + 0.25


def test_what_may_not_be_asked_for_while_frames_are_under_way(workshop: Workshop, frame: Frame) -> None:
    outs = [np.empty_like(frame) for _ in range(3)]
    runner = workshop.open()
    runner.begin_frame(frame, outs[0])
    for ask in (
        lambda: runner.infer_frame(frame, outs[2]),
        lambda: runner.infer(np.zeros(SMALL, np.float32)),
        lambda: runner.timed_infer_frame(frame, outs[2]),
    ):
        with pytest.raises(ValueError, match="1 frames are under way, end them first"):
            ask()
    runner.begin_frame(frame, outs[1])
    with pytest.raises(ValueError, match="2 frames are under way"):
        runner.begin_frame(frame, outs[2])
    runner.end_frame()
    np.testing.assert_array_equal(outs[0], expected_of([frame])[0])
    runner.close()


@pytest.mark.parametrize("larger_first", [True, False])
def test_engines_of_a_ladder_share_the_larger_scratch_memory(
    workshop: Workshop, frame: Frame, larger_first: bool
) -> None:
    engines = [workshop.build(DYNAMIC, steps=steps, scratch=1000 * steps) for steps in (1, 2)]
    out = np.empty_like(frame)
    first, second = (workshop.open(engine) for engine in (engines[::-1] if larger_first else engines))
    for runner in (first, second, first):  # a graph is captured before
        runner.infer_frame(frame, out)
        runner.infer_frame(frame, out)
    before = workshop.cuda.used
    second.share_memory(first)
    assert before - workshop.cuda.used == 1000
    for runner in (first, second, first, second):
        for _ in range(3):
            out[:] = 0
            runner.infer_frame(frame, out)
            np.testing.assert_array_equal(out, expected_of([frame])[0])
    first.close()
    second.infer(np.zeros(LARGE, np.float32))
    second.close()


def test_before_10_1_scratch_memory_is_tensorrts_own(tmp_path: Path, frame: Frame) -> None:
    workshop, out = Workshop(tmp_path, version="10.0.1"), np.empty_like(frame)
    with workshop.open() as first, workshop.open() as second:
        before = workshop.cuda.used
        second.share_memory(first)
        assert workshop.cuda.used == before
        second.infer_frame(frame, out)
    np.testing.assert_array_equal(out, expected_of([frame])[0])


def test_the_header_is_that_of_the_kernels() -> None:
    assert (
        f"frame + {engine_buffers.HEADER_BYTES} + 3"
        in Path(engine_buffers.__file__).with_name("kernels.cu").read_text()
    )


def test_a_frame_beyond_the_profile_is_tiled_into_it(workshop: Workshop, make_frame: MakeFrame) -> None:
    """The halo is 16 pixels, the largest size 64 x 96; if that is the only one, smaller frames are padded to it."""
    spec = replace(SPEC, receptive_field=16)
    for profile in (DYNAMIC, Profile(LARGE, LARGE, LARGE)):
        with workshop.open(workshop.build(profile, spec=spec)) as runner:
            deblurrer = Deblurrer(runner)
            for size_hw in ((150, 170), (64, 200), (70, 96), (5, 7), (64, 96)):
                frame = make_frame(*size_hw)
                np.testing.assert_array_equal(deblurrer(frame), expected_of([frame])[0])
            with pytest.raises(SpecMismatch, match=r"at most 64x96, .* no room for a halo of 64 .* --size 65x97"):
                plan_tiles_within((65, 97), replace(SPEC, receptive_field=60), runner.sizes)


def test_a_deblurrer_passes_yuv_on_and_overlaps_frames(workshop: Workshop, frame: Frame) -> None:
    layout = YuvLayout.of("NV12", (64, 96))
    yuv = YuvFrame(np.random.default_rng(1).integers(0, 256, layout.nbytes, np.uint8), layout)
    out = np.empty_like(frame)
    with workshop.open(workshop.build(spec=replace(SPEC, receptive_field=16))) as runner:
        deblurrer = Deblurrer(runner)
        assert deblurrer.begin(frame, out)
        deblurrer.end()
        np.testing.assert_array_equal(out, expected_of([frame])[0])
        padding = Padding((64, 96), (64, 96))
        expected = frame_from_batch(through(TensorFormat(), batch_from_yuv(yuv, padding)), padding)
        np.testing.assert_array_equal(deblurrer(yuv), expected)
        assert not deblurrer.begin(np.zeros((70, 97, 3), np.uint8), np.zeros((70, 97, 3), np.uint8))


def test_the_file_loop_overlaps_frames_and_keeps_their_order(workshop: Workshop) -> None:
    """A frame in between that has to be tiled waits for those under way."""
    source, sink = ListSource(9, sizes_hw=((64, 96), (64, 96), (64, 96), (70, 96))), ListSink()
    frames = [frame.rgb for frame in ListSource(9, sizes_hw=source._sizes_hw)]
    with workshop.open(workshop.build(spec=replace(SPEC, receptive_field=16))) as runner:
        assert run_file_loop(source, FixedSteps(Deblurrer(runner)), sink).frames == 9
        for frame, expected in zip(sink.frames, expected_of(frames), strict=True):
            np.testing.assert_array_equal(frame.rgb, expected)
        began_ms = workshop.cuda.now_ms
        run_file_loop(ListSource(10, sizes_hw=((64, 96),)), FixedSteps(Deblurrer(runner)), ListSink())
        assert workshop.cuda.now_ms - began_ms == 10 * 2.0 + 2 * 0.5 + 0.25


def test_the_largest_of_three_is_shared_in_whatever_order(workshop: Workshop) -> None:
    runners = [workshop.open(workshop.build(steps=steps, scratch=1000 * steps)) for steps in (1, 3, 2)]
    before = workshop.cuda.used
    for runner in 2 * runners[:2]:  # as a ladder does
        runner.share_memory(runners[2])
    assert before - workshop.cuda.used == 1000 + 2000
    for runner in runners:
        runner.infer(np.zeros(SMALL, np.float32))
        runner.close()
