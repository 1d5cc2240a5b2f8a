"""A capture holds the newest frame and comes back whatever happens to its source."""

import logging
import time

import pytest
from live_sources import FakeCamera, Opener

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.capture import CapturedFrame, Reconnect, ReconnectingCapture
from unblur.runtime.loops.stats import LoopStats

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
            time.sleep(0.05)
            captured = capture.take(timeout_s=1)
            assert captured is not None
            assert time.monotonic() - captured.at_s < 0.03
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
    with ReconnectingCapture(Opener(cameras), LoopStats(), Reconnect(1, 0.01, 0.02, retries=2)) as capture:
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
