"""The loop: every frame once and in order, one error from wherever it came, an end when asked."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from timed_runner import HandClock, TimedRunner

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.loops.file_loop import run_file_loop
from unblur.runtime.loops.restorer import RestoredFrame
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.runner import Runner


class ListSource:
    """Frames made on demand, each filled with its index; `fails_at` raises there."""

    def __init__(
        self, count: int, *, fails_at: int | None = None, sizes_hw: tuple[tuple[int, int], ...] = ((8, 8),)
    ):
        self.info = MediaInfo(Path("list"), "video", size_hw=None, frames=count)
        self.lost_frames = 0
        self.taken = 0
        self._fails_at = fails_at
        self._sizes_hw = sizes_hw

    def __iter__(self) -> Iterator[TimedFrame]:
        for index in range(self.info.frames or 0):
            if index == self._fails_at:
                raise BadInput("the source failed")
            size_hw = self._sizes_hw[index % len(self._sizes_hw)]
            self.taken += 1
            yield TimedFrame(np.full((*size_hw, 3), index, np.uint8), Fraction(index, 25))

    def __enter__(self) -> "ListSource":
        return self

    def __exit__(self, *error: object) -> None: ...


class ListSink:
    def __init__(self, *, fails_at: int | None = None) -> None:
        self.frames: list[TimedFrame] = []
        self.complete: bool | None = None
        self._fails_at = fails_at

    def write(self, frame: TimedFrame) -> None:
        if len(self.frames) == self._fails_at:
            raise BadInput("the sink failed")
        self.frames.append(dataclasses.replace(frame, rgb=frame.rgb.copy()))

    def finish(self, *, complete: bool) -> None:
        self.complete = complete

    def __enter__(self) -> "ListSink":
        return self

    def __exit__(self, *error: object) -> None: ...


def add_one(frame_rgb: Frame, out: Frame | None = None) -> Frame:
    return np.add(frame_rgb, 1, out=out)


class Restoring:
    """A function as a restorer."""

    def __init__(self, restore: Callable[..., Frame]) -> None:
        self._restore = restore

    @property
    def runner(self) -> Runner:
        return TimedRunner(2, HandClock())

    @property
    def rung_names(self) -> tuple[str, ...]:
        return ("add one",)

    def restore(
        self, frame_rgb: Frame, out: Frame, *, deadline_ms: float | None = None, highest_rung: int | None = None
    ) -> RestoredFrame:
        began_s = time.perf_counter()
        rgb = self._restore(frame_rgb, out)
        return RestoredFrame(rgb, 1, (time.perf_counter() - began_s) * 1e3, late=False)


def failing(at: int, error: BaseException) -> Callable[..., Frame]:
    def restore(frame_rgb: Frame, out: Frame | None = None) -> Frame:
        if frame_rgb[0, 0, 0] == at:
            raise error
        return add_one(frame_rgb, out)

    return restore


def test_every_frame_once_in_order_at_its_time() -> None:
    sink = ListSink()
    summary = run_file_loop(ListSource(60), Restoring(add_one), sink)
    assert [int(frame.rgb.max()) for frame in sink.frames] == list(range(1, 61))
    assert [int(frame.rgb.min()) for frame in sink.frames] == list(range(1, 61))
    assert [frame.time_s for frame in sink.frames] == [Fraction(index, 25) for index in range(60)]
    assert (summary.frames, summary.dropped, summary.lost, summary.stopped) == (60, 0, 0, False)
    assert (summary.rungs, summary.late) == ({"add one": 60}, 0)
    assert sink.complete is True


def test_the_summary_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run_file_loop(ListSource(20), Restoring(add_one), ListSink())
    assert summary.fps == pytest.approx(20 / summary.seconds)
    latency = summary.latency_ms
    assert set(latency) == {"p50", "p90", "p99", "mean", "max"}
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"] < 1e3 * summary.seconds


def test_lost_frames_are_the_sources() -> None:
    source = ListSource(3)
    source.lost_frames = 7
    assert run_file_loop(source, Restoring(add_one), ListSink()).lost == 7


def test_sizes_may_change_from_frame_to_frame() -> None:
    sizes = ((8, 8), (5, 9), (1, 1))
    sink = ListSink()
    run_file_loop(ListSource(12, sizes_hw=sizes), Restoring(add_one), sink)
    assert [frame.rgb.shape for frame in sink.frames] == [(*sizes[i % 3], 3) for i in range(12)]
    assert [int(frame.rgb.max()) for frame in sink.frames] == list(range(1, 13))


def test_output_buffers_are_used_again() -> None:
    buffers: set[int] = set()

    def restore(frame_rgb: Frame, out: Frame | None = None) -> Frame:
        assert out is not None
        buffers.add(out.ctypes.data)
        return add_one(frame_rgb, out)

    run_file_loop(ListSource(50), Restoring(restore), ListSink())
    assert len(buffers) <= 5


def test_a_callable_may_return_its_own_array() -> None:
    sink = ListSink()
    run_file_loop(ListSource(30), Restoring(lambda frame_rgb, out=None: frame_rgb + 1), sink)
    assert [int(frame.rgb.max()) for frame in sink.frames] == list(range(1, 31))


def test_decoding_and_encoding_overlap_inference() -> None:
    """Each waits until the other two are at work on other frames: in one thread this would never end."""
    meeting = threading.Barrier(3, timeout=10)

    class Source(ListSource):
        def __iter__(self) -> Iterator[TimedFrame]:
            for index, frame in enumerate(super().__iter__()):
                if index == 2:
                    meeting.wait()
                yield frame

    class Sink(ListSink):
        def write(self, frame: TimedFrame) -> None:
            if not self.frames:
                meeting.wait()
            super().write(frame)

    def restore(frame_rgb: Frame, out: Frame | None = None) -> Frame:
        if frame_rgb[0, 0, 0] == 1:
            meeting.wait()
        return add_one(frame_rgb, out)

    assert run_file_loop(Source(10), Restoring(restore), Sink()).frames == 10


@pytest.mark.parametrize("at", [0, 1, 30])
def test_an_error_of_the_source_stops_all_and_leaves_the_sink_unfinished(at: int) -> None:
    sink = ListSink()
    with pytest.raises(BadInput, match="the source failed"):
        run_file_loop(ListSource(60, fails_at=at), Restoring(add_one), sink)
    assert sink.complete is None
    assert_no_threads_left()


@pytest.mark.parametrize("at", [0, 1, 30])
def test_an_error_of_the_sink_stops_all(at: int) -> None:
    source, sink = ListSource(60), ListSink(fails_at=at)
    with pytest.raises(BadInput, match="the sink failed"):
        run_file_loop(source, Restoring(add_one), sink)
    assert sink.complete is None
    assert source.taken < at + 10
    assert_no_threads_left()


@pytest.mark.parametrize("error", [RuntimeError("the device failed"), KeyboardInterrupt()])
def test_an_error_of_the_network_stops_all(error: BaseException) -> None:
    source, sink = ListSource(60), ListSink()
    with pytest.raises(type(error)):
        run_file_loop(source, Restoring(failing(5, error)), sink)
    assert (sink.complete, len(sink.frames)) == (None, 5)
    assert source.taken < 15
    assert_no_threads_left()


def test_stop_writes_what_was_restored_and_finishes() -> None:
    source, sink, stop = ListSource(1000), ListSink(), threading.Event()
    summary = run_file_loop(
        source, Restoring(add_one), sink, stop=stop, on_frame=lambda: len(sink.frames) > 5 and stop.set()
    )
    assert summary.stopped
    assert summary.frames == len(sink.frames) < 20
    assert sink.complete is False
    assert_no_threads_left()


def test_stop_before_the_first_frame_finishes_nothing() -> None:
    sink, stop = ListSink(), threading.Event()
    stop.set()
    summary = run_file_loop(ListSource(5), Restoring(add_one), sink, stop=stop)
    assert (summary.frames, summary.stopped, summary.latency_ms, sink.complete) == (0, True, {}, None)


def assert_no_threads_left() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unblur")]


def test_a_frame_that_takes_too_long_ends_the_process_with_one_line() -> None:
    code = """
import time
from unblur.runtime.loops.restorer import InferenceTimeout
with InferenceTimeout(0.3) as timeout:
    for _ in range(3):
        with timeout.frame():
            time.sleep(0.15)
    print("in time", flush=True)
    with timeout.frame():
        time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    expected = "unblur: a frame took more than 0.3 s, the limit of --inference-timeout; "
    assert (done.returncode, done.stdout) == (2, "in time\n")
    assert done.stderr == f"{expected}does the model loop, or the device hang?\n"
