"""The pages that watch, and what waits for each of them. Used in the thread of the event loop only."""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import IO, Literal, get_args

from PIL import Image

from unblur.runtime.frames import Frame, eight_bits
from unblur.runtime.loops.live_loop import FrameResult
from unblur.runtime.loops.queues import LatestValue
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.machine.sensors import hottest_c

MOST_VIEWERS = 8
_IN_FLIGHT = 2  # one picture is drawn while the next is under way

Kind = Literal["hello", "still", "sample", "state", "taken", "picture"]
"""In the order in which they are sent: a change is taken once no state from before it waits."""

Message = bytes | str


class Viewer:
    """A page that watches. At most one message of each kind waits for it, the newest.

    A picture is sent only when the page has drawn an earlier one: buffers of the network cannot fill up with what
    is old by the time it arrives, and a page in a hidden tab, which draws nothing, costs nothing.
    """

    def __init__(self) -> None:
        self.credit = _IN_FLIGHT
        self.changes = 0
        self._waiting: dict[Kind, Message] = {}
        self._changed = asyncio.Event()

    def put(self, kind: Kind, message: Message) -> None:
        """Leave a message to be sent instead of an older one of its kind."""
        self._waiting[kind] = message
        self._changed.set()

    def drawn(self) -> None:
        """The page has drawn a picture and can take another."""
        self.credit = min(self.credit + 1, _IN_FLIGHT)
        self._changed.set()

    async def next(self) -> Message:
        """What to send next, waiting for it."""
        while (kind := self._sendable()) is None:
            self._changed.clear()
            await self._changed.wait()
        if kind == "picture":
            self.credit -= 1
        return self._waiting.pop(kind)

    def _sendable(self) -> Kind | None:
        waiting = (kind for kind in get_args(Kind) if kind in self._waiting)
        return next((kind for kind in waiting if kind != "picture" or self.credit), None)


class Viewers:
    """All that watch, at most `most`."""

    def __init__(self, most: int = MOST_VIEWERS) -> None:
        self._most = most
        self._viewers: set[Viewer] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def full(self) -> bool:
        return len(self._viewers) >= self._most

    @property
    def want_picture(self) -> bool:
        """Whether one of them could be sent a picture now. May be asked from any thread."""
        return any(viewer.credit for viewer in tuple(self._viewers))

    @contextmanager
    def joined(self) -> Iterator[Viewer]:
        """A new one, which watches inside the block."""
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.remove(viewer)

    def put(self, kind: Kind, message: Message) -> None:
        """Leave a message for every one of them."""
        for viewer in self._viewers:
            viewer.put(kind, message)


_LIVE_SIDE = 1280  # pixels of the longer side of what is shown live
_LIVE_QUALITY = 80
_STILL_QUALITY = 95
_MOST_FPS = 15.0  # enough to watch by; every further one takes time from the network


@dataclass(frozen=True)
class NumberedResult:
    """A result with its number: how many frames were restored until then."""

    index: int
    result: FrameResult


class PreviewEncoder:
    """Encodes the newest result whenever somebody waits for one, at most `most_fps` times a second.

    with PreviewEncoder(publish, is_wanted) as pictures:
        pictures.offer(result)  # from the loop, with every frame
    """

    def __init__(
        self, publish: Callable[[bytes], None], is_wanted: Callable[[], bool], most_fps: float = _MOST_FPS
    ) -> None:
        """publish: called with each message, in the encoding thread. is_wanted: whether anybody waits for one."""
        self._publish = publish
        self._is_wanted = is_wanted
        self._period_s = 1 / most_fps
        self._newest = LatestValue[NumberedResult]()
        self._count = 0
        self._last: NumberedResult | None = None
        self._thread = threading.Thread(target=self._encode_all, name="unblur-preview-jpeg", daemon=True)

    def offer(self, result: FrameResult) -> None:
        """Leave a result to be encoded if anybody wants one; never waits."""
        self._count += 1
        if self._is_wanted():
            self._newest.put(NumberedResult(self._count, result))

    def still(self) -> bytes | None:
        """The frame that was encoded last, at its full size; None if there was none. Takes a while."""
        last = self._last
        return None if last is None else encode(last, still=True)

    def snapshot(self) -> tuple[int, bytes] | None:
        """The number of the frame that was encoded last and the restored frame as JPEG, at its full size."""
        last = self._last
        return None if last is None else (last.index, _jpeg(eight_bits(last.result.after.rgb), still=True))

    def __enter__(self) -> "PreviewEncoder":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._newest.close()
        self._thread.join()

    def _encode_all(self) -> None:
        while (shown := self._newest.take()) is not None:
            began_s = time.monotonic()
            self._last = shown
            self._publish(encode(shown))
            time.sleep(max(0.0, began_s + self._period_s - time.monotonic()))


def encode(shown: NumberedResult, *, still: bool = False) -> bytes:
    """One message. still: at full size and in better quality, to look at closely."""
    result = shown.result
    before, after = (_jpeg(eight_bits(frame.rgb), still=still) for frame in (result.before, result.after))
    header = {
        "index": shown.index,
        "rung": result.restored.rung,
        "ms": round(result.restored.ms, 1),
        "late": result.restored.late,
        "size": result.before.rgb.shape[:2],
        "still": still,
        "before": len(before),
    }
    text = json.dumps(header).encode()
    return b"".join((len(text).to_bytes(4, "big"), text, before, after))


def _jpeg(frame_rgb: Frame, *, still: bool) -> bytes:
    image = Image.fromarray(frame_rgb)
    if not still:
        image = image.reduce(ceil(max(image.size) / _LIVE_SIDE))
    quality, subsampling = (_STILL_QUALITY, "4:4:4") if still else (_LIVE_QUALITY, "4:2:0")
    # Into a real file, since Pillow releases the GIL only then, which the loop needs between two frames.
    with _file_in_memory() as file:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
        file.seek(0)
        return file.read()


def _file_in_memory() -> IO[bytes]:
    """On disk where the system has no files in memory."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("unblur-preview"), "w+b")
    return tempfile.TemporaryFile()


SAMPLE_EVERY_S = 0.5
_KEPT = 240
_WINDOW = 6  # samples that a rate is taken over: three seconds, so that slow networks show no comb


@dataclass(frozen=True)
class Sample:
    """What a chart shows of one moment; None is unknown.

    fps: frames restored per second. p50_ms, p99_ms: from captured to written, of the last 128 frames.
    rung: mean of all frames. dropped: frames per second given up for a newer one.
    """

    fps: float
    p50_ms: float | None
    p99_ms: float | None
    rung: float | None
    dropped: float
    temperature_c: float | None


@dataclass(frozen=True)
class _Reading:
    at_s: float
    frames: int
    rungs: int
    dropped: int


class History:
    """Samples of the counters of a loop; call `sample` every `SAMPLE_EVERY_S` seconds."""

    def __init__(
        self,
        stats: LoopStats,
        *,
        clock: Callable[[], float] = time.monotonic,
        read_temperature_c: Callable[[], float | None] = hottest_c,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._read_temperature_c = read_temperature_c
        self._readings = deque([self._read()], maxlen=_WINDOW)
        self.samples: deque[Sample] = deque(maxlen=_KEPT)

    def sample(self) -> Sample:
        """Take a sample, and keep it with the last 240."""
        earlier, now = self._readings[0], self._read()
        self._readings.append(now)
        frames, seconds = now.frames - earlier.frames, now.at_s - earlier.at_s
        latency = self._stats.total.recent()
        sample = Sample(
            fps=frames / seconds,
            p50_ms=latency.get("p50"),
            p99_ms=latency.get("p99"),
            rung=(now.rungs - earlier.rungs) / frames if frames else None,
            dropped=(now.dropped - earlier.dropped) / seconds,
            temperature_c=self._read_temperature_c(),
        )
        self.samples.append(sample)
        return sample

    def _read(self) -> _Reading:
        rungs = dict(self._stats.rungs)  # a copy: the loop goes on counting
        return _Reading(
            self._clock(),
            frames=sum(rungs.values()),
            rungs=sum(rung * frames for rung, frames in rungs.items()),
            dropped=self._stats.dropped + self._stats.dropped_at_sink,
        )
