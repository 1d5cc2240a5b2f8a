"""Several cameras on one model: fair turns, and each lives and ends by itself."""

import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from live_sources import SIZE_HW, FakeCamera, FakeSink, Opener
from timed_runner import HandClock, TimedRunner

from unblur.runtime.cli.main import load_command
from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Batch
from unblur.runtime.loops.cameras import CameraResult, Cameras, open_cameras
from unblur.runtime.loops.capture import Reconnect, ReconnectingCapture
from unblur.runtime.loops.ladder import Ladder
from unblur.runtime.loops.live_loop import LiveControls
from unblur.runtime.loops.session import LiveSession, RunRequest
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import RunnerOptions

pytestmark = pytest.mark.realtime

INFERENCE_S = 0.01
ONCE = Reconnect(stall_s=1, first_s=0.01, most_s=0.02, retries=0)


class SleepyRunner(TimedRunner):
    def infer(self, batch: Batch) -> Batch:
        time.sleep(INFERENCE_S)
        return super().infer(batch)


@dataclass
class Yard:
    """Fake cameras on one fake model, as `open_cameras` would open them."""

    ready: threading.Event = field(default_factory=threading.Event)
    runner: TimedRunner = field(default_factory=lambda: SleepyRunner(1, HandClock(), 0))
    sessions: dict[str, LiveSession] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def add(self, name: str, sink: FakeSink, *cameras: FakeCamera, reconnect: Reconnect = ONCE) -> None:
        stats, opener = LoopStats(), Opener([*cameras])
        ladder = Ladder([Deblurrer(self.runner)], SIZE_HW)
        capture = ReconnectingCapture(opener, stats, reconnect, on_frame=self.ready.set)
        session = LiveSession(self.stack.enter_context(capture), ladder, sink, LiveControls(), stats)
        self.sessions[name] = session

    def run(self, seconds: float) -> dict[str, CameraResult]:
        stop = threading.Event()
        timer = threading.Timer(seconds, stop.set)
        timer.start()
        try:
            results = Cameras(self.sessions, self.ready).run(stop)
        finally:
            timer.cancel()
        return {result.name: result for result in results}


@pytest.fixture
def yard() -> Iterator[Yard]:
    yard = Yard()
    with yard.stack:
        yield yard


def test_turns_are_fair_and_a_slow_camera_holds_up_nobody(yard: Yard) -> None:
    sinks = {"fast": FakeSink(), "faster": FakeSink(), "slow": FakeSink()}
    for (name, sink), fps in zip(sinks.items(), (200, 400, 10), strict=True):
        yard.add(name, sink, FakeCamera(fps=fps))
    results = yard.run(1.5)
    frames = {name: len(sink.frames) for name, sink in sinks.items()}
    assert frames["fast"] == pytest.approx(frames["faster"], rel=0.15)
    assert frames["fast"] > 30, "it does not wait for the slow one"
    assert frames["slow"] >= 10, "all that there were"
    assert results["slow"].summary.stages_ms["wait"]["p50"] < 3 * 1e3 * INFERENCE_S
    for sink in sinks.values():
        times_s = [frame.time_s for frame in sink.frames]
        assert times_s == sorted(times_s), "frames of another camera are among them"
        assert sink.finished


def test_a_camera_and_a_sink_that_fail_end_alone_and_one_comes_back(yard: Yard) -> None:
    sinks = {name: FakeSink() for name in ("cut", "full", "back", "fine")}
    sinks["full"].fails_at = 3
    yard.add("cut", sinks["cut"], FakeCamera(frames=5, ends="fails", fps=50))
    yard.add("full", sinks["full"], FakeCamera(fps=50))
    again = Reconnect(stall_s=1, first_s=0.01, most_s=0.02)
    yard.add("back", sinks["back"], FakeCamera(frames=5, ends="fails", fps=50), FakeCamera(fps=50), reconnect=again)
    yard.add("fine", sinks["fine"], FakeCamera(fps=50))
    results = yard.run(1.2)
    errors = {name: result.error and str(result.error) for name, result in results.items()}
    assert errors == {"cut": "the cable was pulled", "full": "the disk is full", "back": None, "fine": None}
    assert [name for name, sink in sinks.items() if sink.finished] == ["cut", "back", "fine"]
    assert results["back"].summary.counters["reconnects"] == 1
    assert min(len(sinks["back"].frames), len(sinks["fine"].frames)) > 10


def test_a_network_that_fails_ends_all_and_keeps_what_was_recorded(yard: Yard) -> None:
    class Broken(SleepyRunner):
        def infer(self, batch: Batch) -> Batch:
            if self.clock.now_s >= 60:
                raise DeviceError("the device is lost")
            return super().infer(batch)

    yard.runner = Broken(1, HandClock(), 1000)
    sinks = FakeSink(), FakeSink()
    for name, sink in zip("ab", sinks, strict=True):
        yard.add(name, sink, FakeCamera(fps=100))
    with pytest.raises(DeviceError, match=r"^frame \d+: the device is lost$"):
        yard.run(10)
    assert all(sink.finished for sink in sinks)


def test_one_model_is_opened_and_the_frame_time_is_shared(make_onnx: Callable[..., Path]) -> None:
    cameras = [f"test://moving?size={size}&fps=20&frames=4" for size in ("64x96", "64x96", "96x64")]
    options = RunnerOptions(threads=1)
    requests = [RunRequest(make_onnx(), camera, ("null:",), options, reconnect=ONCE) for camera in cameras]
    with open_cameras(requests) as opened:
        sessions = list(opened.sessions.values())
        assert len({id(session.ladder.runner) for session in sessions}) == 1
        assert [session.controls.deadline_ms for session in sessions] == [pytest.approx(50 / 3)] * 3
        results = opened.run()
    assert [result.name for result in results] == [cameras[0], f"{cameras[1]} #2", cameras[2]]
    assert all(result.summary.frames >= 1 and result.error is None for result in results)


def test_the_command_on_the_page_is_accepted() -> None:
    page = (Path(__file__).parents[2] / "docs/camera.md").read_text()
    section = page.partition("## Several cameras")[2]
    command = section.partition("```sh\n")[2].partition("```")[0].replace("\\\n", "")
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("unblur", "run")
    parsed = load_command(name).make_context(name, arguments).params
    assert len(parsed["source"]) == len(parsed["sink"]) == 2
