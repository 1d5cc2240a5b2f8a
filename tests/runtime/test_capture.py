"""A capture holds the newest frame and comes back whatever happens to its source."""

import gc
import logging
import threading
import time
import weakref

import numpy as np
import pytest
from live_sources import FakeCamera, Opener

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.capture import CapturedFrame, Reconnect, ReconnectingCapture
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.media.open_media import open_source

pytestmark = pytest.mark.realtime

QUICK = Reconnect(stall_s=0.15, first_s=0.01, most_s=0.02)


def take_some(capture: ReconnectingCapture, count: int) -> list[CapturedFrame]:
    taken: list[CapturedFrame] = []
    deadline_s = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < deadline_s:
        captured = capture.take(timeout_s=0.1)
        if captured is not None:
            taken.append(captured)
    return taken


def test_a_slow_reader_gets_new_frames_and_the_rest_are_counted() -> None:
    stats = LoopStats()
    with ReconnectingCapture(Opener([FakeCamera(fps=500)]), stats, QUICK) as capture:
        for _ in range(5):
            began_s = time.monotonic()
            time.sleep(0.05)
            captured = capture.take(timeout_s=1)
            assert captured is not None
            assert captured.at_s > began_s  # not the oldest of those that came meanwhile
    assert stats.dropped > 20
    assert stats.captured >= stats.dropped + 5


@pytest.mark.parametrize("ends", ["stops", "fails"])
def test_a_source_that_ends_is_opened_again(ends: str, caplog: pytest.LogCaptureFixture) -> None:
    stats = LoopStats()
    opener = Opener([FakeCamera(frames=3, ends=ends, lost_frames=2), None, FakeCamera()])
    with caplog.at_level(logging.WARNING), ReconnectingCapture(opener, stats, QUICK) as capture:
        assert len(take_some(capture, 20)) == 20
    assert stats.reconnects == 2
    assert stats.lost == 2
    assert "fake://camera: nobody answers; opening it again (attempt 2)" in caplog.text


def test_a_source_that_hangs_is_left_behind_and_its_late_frames_are_not_wanted() -> None:
    stats = LoopStats()
    hanging = FakeCamera(frames=2, ends="hangs")
    with ReconnectingCapture(Opener([hanging, FakeCamera()]), stats, QUICK) as capture:
        assert len(take_some(capture, 20)) == 20
        assert stats.stalls == 1
        assert not hanging.closed.is_set()
        hanging.wake.set()
        assert hanging.closed.wait(5)
        assert len(take_some(capture, 5)) == 5
    assert stats.stalls == 1


def test_it_ends_when_the_retries_are_used_up() -> None:
    with (
        ReconnectingCapture(
            Opener([FakeCamera(frames=2), None]), LoopStats(), Reconnect(0.1, 0.01, 0.02, retries=2)
        ) as capture,
        pytest.raises(BadInput, match="nobody answers"),
    ):
        take_some(capture, 1000)


def test_it_ends_when_a_source_only_ever_stops() -> None:
    opener = Opener([FakeCamera(frames=1), FakeCamera(frames=0)])
    with (
        ReconnectingCapture(opener, LoopStats(), Reconnect(0.1, 0.01, 0.02, retries=3)) as capture,
        pytest.raises(BadInput, match="fake://camera: the stream ended, and 3 attempts did not bring it back"),
    ):
        take_some(capture, 1000)


def test_a_frame_that_comes_makes_up_for_earlier_failures() -> None:
    cameras = [FakeCamera(frames=2), None, FakeCamera(frames=2), None, FakeCamera(frames=2), None, FakeCamera()]
    reconnect = Reconnect(1, 0.01, 0.02, retries=2, steady_s=0)
    with ReconnectingCapture(Opener(cameras), LoopStats(), reconnect) as capture:
        assert len(take_some(capture, 10)) == 10


def test_a_wrong_address_is_told_at_once() -> None:
    with pytest.raises(BadInput, match="nobody answers"), ReconnectingCapture(Opener([None]), LoopStats(), QUICK):
        pass


def test_leaving_closes_the_source() -> None:
    camera = FakeCamera()
    with ReconnectingCapture(Opener([camera]), LoopStats(), QUICK) as capture:
        take_some(capture, 1)
    assert camera.closed.wait(5)
    assert capture.take(timeout_s=0) is None


def test_stopping_does_not_wait_for_the_next_attempt() -> None:
    with ReconnectingCapture(
        Opener([FakeCamera(frames=1), None]), LoopStats(), Reconnect(5, first_s=60, most_s=60)
    ) as capture:
        take_some(capture, 1)
        time.sleep(0.05)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1.5


def test_waits_double_up_to_the_most() -> None:
    reconnect = Reconnect(first_s=0.5, most_s=5)
    assert [reconnect.wait_s(failures) for failures in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1, 2, 4, 5, 5]


def test_the_source_is_described_once_it_is_open() -> None:
    capture = ReconnectingCapture(Opener([FakeCamera()]), LoopStats())
    with pytest.raises(ValueError, match="the capture is not open yet"):
        _ = capture.info
    with capture:
        assert capture.info.name == "fake://camera"


def test_a_thousand_failures_leave_nothing_behind() -> None:
    """Without the garbage collector: the error that ended a source must not keep it."""
    cameras: list[weakref.ref[FakeCamera]] = []

    def open_camera() -> FakeCamera:
        camera = FakeCamera(frames=1, fps=1e6, ends="fails")
        cameras.append(weakref.ref(camera))
        return camera

    stats, threads = LoopStats(), threading.active_count()
    gc.collect()
    gc.disable()
    try:
        with ReconnectingCapture(open_camera, stats, Reconnect(10, first_s=1e-5, most_s=1e-4)) as capture:
            while stats.reconnects < 1000:
                capture.take(0.1)
            assert sum(camera() is not None for camera in cameras) <= 3
            assert threading.active_count() == threads + 1
    finally:
        gc.enable()


def test_a_thousand_stalls_leave_nothing_behind() -> None:
    cameras: list[weakref.ref[FakeCamera]] = []

    def open_camera() -> FakeCamera:
        camera = FakeCamera(frames=1, fps=1e6, ends="hangs")
        threading.Timer(0.02, camera.wake.set).start()  # FFmpeg gives up by itself, somewhat later
        cameras.append(weakref.ref(camera))
        return camera

    stats, threads = LoopStats(), threading.active_count()
    with ReconnectingCapture(open_camera, stats, Reconnect(0.005, first_s=1e-5, most_s=1e-4)) as capture:
        while len(cameras) < 1000:
            capture.take(0.1)
    give_up_s = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert sum(camera() is not None for camera in cameras) <= 3


def test_a_source_of_one_frame_at_a_time_is_given_up() -> None:
    """Each attempt brings a frame and ends: the wait doubles all the same, and the retries are used up."""
    opened_s: list[float] = []

    def open_camera() -> FakeCamera:
        opened_s.append(time.monotonic())
        return FakeCamera(frames=1, fps=1e6)

    reconnect = Reconnect(stall_s=10, first_s=0.05, most_s=60, retries=4)
    with (
        ReconnectingCapture(open_camera, LoopStats(), reconnect) as capture,
        pytest.raises(BadInput, match="the stream ended, and 4 attempts did not bring it back"),
    ):
        take_some(capture, 100)
    waits_s = np.diff(opened_s)
    assert len(waits_s) == 4
    assert waits_s[3] > 2 * waits_s[0]  # 0.4 s and 0.05 s, each with half of jitter


def test_a_source_that_says_how_many_frames_it_has_ends_with_them() -> None:
    stats = LoopStats()
    with ReconnectingCapture(lambda: open_source("test://moving?size=8x8&frames=3&fps=100"), stats) as capture:
        while not capture.ended:
            capture.take(1)
    assert (stats.captured, stats.reconnects) == (3, 0)
