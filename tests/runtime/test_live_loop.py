"""The live loop: newest frame wins, one error from wherever it came, nothing allocated per frame."""

import threading
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from live_sources import SIZE_HW, FakeCamera, FakeSink, Opener
from timed_runner import HandClock, TimedRunner

from unblur.runtime.blur import BlurGate
from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.frames import Batch, FramePool
from unblur.runtime.loops.capture import Reconnect, ReconnectingCapture
from unblur.runtime.loops.ladder import Ladder
from unblur.runtime.loops.live_loop import FrameResult, LiveControls, run_live_loop
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.model.deblurrer import Deblurrer

pytestmark = pytest.mark.realtime

QUICK = Reconnect(stall_s=0.2, first_s=0.01, most_s=0.02, retries=0)


class SleepyRunner(TimedRunner):
    """Takes real time."""

    def infer(self, batch: Batch) -> Batch:
        time.sleep(self.steps * self.ms_per_step / 1e3)
        return super().infer(batch)


def ladder_of(*steps: int, ms_per_step: float = 0.0, size_hw: tuple[int, int] = SIZE_HW) -> Ladder:
    rungs = [Deblurrer(SleepyRunner(count, HandClock(), ms_per_step)) for count in steps]
    return Ladder(rungs, size_hw)


def run(
    camera: FakeCamera,
    sink: FakeSink,
    ladder: Ladder,
    *,
    frames: int = 10,
    controls: LiveControls | None = None,
    on_result: Callable[[FrameResult], None] = lambda result: None,
    stats: LoopStats | None = None,
) -> RunSummary:
    """Runs until the sink has had `frames`."""
    stop, stats = threading.Event(), stats or LoopStats()
    sink.on_write = lambda: stop.set() if len(sink.frames) >= frames else None
    with ReconnectingCapture(Opener([camera]), stats, QUICK) as capture:
        return run_live_loop(capture, ladder, sink, stats, controls=controls, stop=stop, on_result=on_result)


def test_a_slow_network_drops_frames_and_stays_current() -> None:
    sink = FakeSink()
    summary = run(FakeCamera(fps=200), sink, ladder_of(1, ms_per_step=50), frames=12)
    assert summary.frames >= 12
    assert summary.dropped >= 60
    frame_ms = 5
    assert summary.latency_ms["p99"] <= 2 * frame_ms + summary.stages_ms["restore"]["p99"] + 5
    assert sink.finished
    levels = [int(frame.rgb[0, 0, 0]) for frame in sink.frames]
    assert levels == sorted(levels)


def test_a_slow_sink_costs_frames_and_not_latency() -> None:
    summary = run(FakeCamera(fps=200), FakeSink(seconds=0.04), ladder_of(1), frames=10)
    assert summary.counters["dropped_at_sink"] > 20
    assert summary.latency_ms["p99"] < 100


def test_every_frame_is_restored_and_keeps_its_time() -> None:
    sink = FakeSink()
    results: list[FrameResult] = []
    run(FakeCamera(fps=50), sink, ladder_of(3), frames=5, on_result=results.append)
    for result in results:
        assert (result.after.rgb == result.before.rgb + 3).all()
        assert result.restored.rung == 1
        assert result.after.time_s == result.before.time_s
    times_s = [result.before.time_s for result in results]
    assert [frame.time_s for frame in sink.frames] == times_s[: len(sink.frames)]


def test_the_deadline_and_the_limit_choose_the_rung() -> None:
    controls = LiveControls(deadline_ms=1000, highest_rung=2)
    summary = run(FakeCamera(fps=50), FakeSink(), ladder_of(1, 2, 6), frames=5, controls=controls)
    assert set(summary.rungs) == {"timed, 2 steps"}
    late = run(FakeCamera(fps=50), FakeSink(), ladder_of(1, ms_per_step=5), controls=LiveControls(deadline_ms=1))
    assert late.counters["late"] == sum(late.rungs.values())


def test_controls_may_change_on_the_way() -> None:
    controls = LiveControls()
    seen: list[int] = []

    def watch(result: FrameResult) -> None:
        seen.append(result.restored.rung)
        controls.highest_rung = 1

    run(FakeCamera(fps=50), FakeSink(), ladder_of(1, 6), frames=4, controls=controls, on_result=watch)
    assert seen[0] == 2
    assert set(seen[1:]) == {1}


def test_sharp_frames_are_passed_on() -> None:
    """A frame of one level shows no detail, scores 1, and passes a gate that takes everything."""
    sink = FakeSink()
    summary = run(FakeCamera(fps=50), sink, ladder_of(1), frames=3, controls=LiveControls(gate=BlurGate(sharp=1)))
    assert summary.rungs == {"passed on": summary.counters["passed"]}


def test_mildly_blurred_frames_get_the_lowest_rung() -> None:
    controls = LiveControls(gate=BlurGate(sharp=0, mild=1))
    assert set(run(FakeCamera(fps=50), FakeSink(), ladder_of(2, 6), frames=3, controls=controls).rungs) == {
        "timed, 2 steps"
    }


def test_a_sink_that_fails_ends_the_loop() -> None:
    sink = FakeSink(fails_at=3)
    with pytest.raises(BadInput, match="the disk is full"):
        run(FakeCamera(fps=100), sink, ladder_of(1), frames=50)
    assert len(sink.frames) == 3
    assert not sink.finished


def test_a_network_that_fails_ends_the_loop() -> None:
    class Broken(TimedRunner):
        def infer(self, batch: Batch) -> Batch:
            if self.clock.now_s > 0.2:  # after the ladder has timed its rungs
                raise DeviceError("the device is lost")
            return super().infer(batch)

    ladder = Ladder([Deblurrer(Broken(1, HandClock()))], SIZE_HW)
    with pytest.raises(DeviceError, match="the device is lost"):
        run(FakeCamera(fps=100), FakeSink(), ladder, frames=50)


def test_a_feed_that_ends_ends_the_loop_with_its_error() -> None:
    sink = FakeSink()
    with pytest.raises(BadInput, match="the cable was pulled"):
        run(FakeCamera(frames=3, ends="fails"), sink, ladder_of(1), frames=50)
    assert sink.finished, "what was recorded is kept"


def test_a_stream_that_changes_size_goes_on() -> None:
    class Growing(FakeCamera):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for index, frame in enumerate(super().__iter__()):
                side = 8 if index < 5 else 16
                yield TimedFrame(np.zeros((side, side, 3), np.uint8), frame.time_s)

    sink = FakeSink()
    run(Growing(fps=50), sink, ladder_of(1), frames=12)
    assert [frame.rgb.shape[0] for frame in sink.frames][0::11] == [8, 16]


def test_nothing_of_frame_size_is_allocated_per_frame() -> None:
    size_hw = (240, 320)
    pool = FramePool()

    class Pooled(FakeCamera):
        def __iter__(self):  # type: ignore[no-untyped-def]
            while True:
                time.sleep(0.002)
                yield TimedFrame(pool.take((*size_hw, 3)))

    class Scratch(TimedRunner):
        out: Batch = np.zeros((1, 3, *size_hw), np.float32)

        def infer(self, batch: Batch) -> Batch:
            np.copyto(self.out, batch)
            return self.out

    class CountingSink(FakeSink):
        def write(self, frame: TimedFrame) -> None:
            self.frames.append(TimedFrame(np.empty((0, 0, 3), np.uint8)))
            if len(self.frames) == 20:
                tracemalloc.start()
            self.on_write()

    ladder = Ladder([Deblurrer(Scratch(1, HandClock()))], size_hw)
    try:
        run(Pooled(), CountingSink(), ladder, frames=60)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown < Scratch.out.nbytes, "more than the three frames that the rotation may still need, so a batch"
