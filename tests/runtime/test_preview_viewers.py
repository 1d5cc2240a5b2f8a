"""What the preview is made of: pictures, what waits for a page, curves, temperature, the switch of precisions."""

import asyncio
import io
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timed_runner import HandClock, TimedRunner

from unblur.runtime.errors import BundleError
from unblur.runtime.loops.ladder import Ladder, LadderSwitch
from unblur.runtime.loops.live_loop import FrameResult
from unblur.runtime.loops.restorer import RestoredFrame
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.machine.sensors import hottest_c
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.preview.viewers import History, Message, NumberedResult, PreviewEncoder, Viewer, encode
from unblur.runtime.spec import Precision


def result_of(level: int, size_hw: tuple[int, int] = (64, 96)) -> FrameResult:
    """A grey frame of that level; restored it is 100 levels brighter."""
    before, after = (np.full((*size_hw, 3), value, np.uint8) for value in (level, level + 100))
    frame, restored = TimedFrame(before, Fraction(0)), RestoredFrame(after, 3, 12.34, late=False)
    return FrameResult(frame, TimedFrame(after, Fraction(0)), restored, 0.0)


def images(message: bytes, middle: int) -> list[Image.Image]:
    start = 4 + int.from_bytes(message[:4], "big")
    return [Image.open(io.BytesIO(part)) for part in (message[start : start + middle], message[start + middle :])]


def test_live_pictures_are_small_and_stills_are_whole() -> None:
    shown = NumberedResult(7, result_of(50, (40, 2000)))
    live, still = encode(shown), encode(shown, still=True)
    assert live[4:].startswith(b'{"index": 7, "rung": 3, "ms": 12.3, "late": false, "size": [40, 2000], "still": f')
    header_end = live.index(b"}") + 1
    middle = int(live[:header_end].rpartition(b" ")[2][:-1])
    pair = images(live, middle)
    assert [image.size for image in pair] == [(1000, 20)] * 2
    assert [int(np.asarray(image).mean().round()) for image in pair] == [50, 150]
    middle = int(still[: still.index(b"}")].rpartition(b" ")[2])
    assert [image.size for image in images(still, middle)] == [(2000, 40)] * 2


def test_nothing_is_encoded_that_nobody_waits_for() -> None:
    published, wanted = list[bytes](), False
    came = threading.Event()

    def publish(message: bytes) -> None:
        published.append(message)
        came.set()

    with PreviewEncoder(publish, lambda: wanted, most_fps=1000) as pictures:
        pictures.offer(result_of(1))
        time.sleep(0.02)
        assert pictures.still() is None
        wanted = True
        pictures.offer(result_of(2))
        assert came.wait(10)
    assert len(published) == 1
    assert b'"index": 2' in published[0]
    still = pictures.still()
    assert still is not None
    assert b'"index": 2' in still


def test_pictures_come_at_a_bounded_rate() -> None:
    times_s: list[float] = []
    with PreviewEncoder(lambda message: times_s.append(time.monotonic()), lambda: True, most_fps=50) as pictures:
        ends_s = time.monotonic() + 0.3
        while time.monotonic() < ends_s:
            pictures.offer(result_of(1))
            time.sleep(0.001)
    assert 2 <= len(times_s) <= 17


def test_a_viewer_is_sent_the_newest_of_each_kind() -> None:
    async def talk() -> list[Message]:
        viewer = Viewer()
        for number in range(3):
            viewer.put("picture", f"picture {number}")
            viewer.put("state", f"state {number}")
        sent = [await viewer.next(), await viewer.next()]
        viewer.put("picture", "second in flight")
        sent.append(await viewer.next())
        viewer.put("picture", "too early")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(viewer.next(), 0.01)
        viewer.put("picture", "after one was drawn")
        viewer.drawn()
        sent.append(await viewer.next())
        return sent

    assert asyncio.run(talk()) == ["state 2", "picture 2", "second in flight", "after one was drawn"]


def test_the_curves_are_rates_over_three_seconds() -> None:
    stats, clock = LoopStats(), HandClock()
    history = History(stats, clock=clock, read_temperature_c=lambda: 61.5)
    for _ in range(300):
        clock.now_s += 0.5
        stats.rungs.update({1: 5, 3: 5})
        stats.dropped += 2
        stats.dropped_at_sink += 1
        stats.total.add(40.0)
        sample = history.sample()
    assert (sample.fps, sample.rung, sample.dropped) == (20.0, 2.0, 6.0)
    assert (sample.p50_ms, sample.p99_ms, sample.temperature_c) == (40.0, 40.0, 61.5)
    assert len(history.samples) == 240
    clock.now_s += 3.0
    for _ in range(6):
        clock.now_s += 0.5
        sample = history.sample()
    assert (sample.fps, sample.rung) == (0.0, None)


def test_the_hottest_zone_counts_and_dead_ones_do_not(tmp_path: Path) -> None:
    assert hottest_c(tmp_path) is None
    for number, text in enumerate(("41500\n", "63250\n", "-274000\n", "", "999000\n")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    assert hottest_c(tmp_path) == 63.25


class ClosedLadder(Ladder):
    """Tells whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


def ladder_of(precision: Precision) -> ClosedLadder:
    clock = HandClock()
    return ClosedLadder([Deblurrer(TimedRunner(2, clock, precision=precision))], (8, 8), clock=clock)


def test_the_switch_opens_another_when_it_restores() -> None:
    opened = [ladder_of("fp32")]

    def open_at(precision: Precision) -> Ladder:
        if precision == "fp16":
            raise BundleError("there is no fp16 here")
        opened.append(ladder_of(precision))
        return opened[-1]

    frame = np.zeros((8, 8, 3), np.uint8)
    with LadderSwitch(opened[0], open_at) as switch:
        switch.ask("int8")
        assert (switch.asked, len(opened)) == ("int8", 1)
        switch.restore(frame, np.empty_like(frame))
        assert (switch.asked, switch.precision) == (None, "int8")
        assert [ladder.closed for ladder in opened] == [True, False]
        switch.ask("fp16")
        switch.restore(frame, np.empty_like(frame))
        assert (switch.error, switch.precision) == ("there is no fp16 here", "int8")
        switch.ask("int8")
        assert (switch.error, switch.asked) == (None, None)
    assert [ladder.closed for ladder in opened] == [True, True]
