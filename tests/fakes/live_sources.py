"""Live sources and sinks in memory, driven by real threads and real time, in miniature."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame

SIZE_HW = (8, 8)


@dataclass
class FakeCamera:
    """Gives frames at `fps` until `frames` are given, then ends as told; each frame is filled with its index.

    ends: "stops" returns, "fails" raises, "hangs" waits until `wake` is set. size_hw: of the frames.
    """

    frames: int = 10**9
    fps: float = 200.0
    ends: str = "stops"
    size_hw: tuple[int, int] = SIZE_HW
    lost_frames: int = 0
    wake: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    given: int = 0

    @property
    def info(self) -> MediaInfo:
        return MediaInfo(None, "live", self.size_hw, frames=None, rate=Fraction(int(self.fps)), url="fake://camera")

    def __iter__(self) -> Iterator[TimedFrame]:
        for index in range(self.frames):
            time.sleep(1 / self.fps)
            self.given += 1
            yield TimedFrame(np.full((*self.size_hw, 3), index % 256, np.uint8), Fraction(index) / int(self.fps))
        if self.ends == "fails":
            raise BadInput("the cable was pulled")
        if self.ends == "hangs":
            self.wake.wait()

    def __enter__(self) -> "FakeCamera":
        return self

    def __exit__(self, *error: object) -> None:
        self.closed.set()


@dataclass
class Opener:
    """Opens the cameras it was given one after the other; None among them is an attempt that fails."""

    cameras: list[FakeCamera | None]
    attempts: int = 0

    def __call__(self) -> FakeCamera:
        camera = self.cameras[min(self.attempts, len(self.cameras) - 1)]
        self.attempts += 1
        if camera is None:
            raise BadInput("nobody answers")
        return camera


@dataclass
class FakeSink:
    """Keeps copies of what it is given. seconds: how long a write takes. fails_at: which write fails."""

    seconds: float = 0.0
    fails_at: int | None = None
    on_write: Callable[[], None] = lambda: None
    frames: list[TimedFrame] = field(default_factory=list)
    finished: bool = False

    def write(self, frame: TimedFrame) -> None:
        time.sleep(self.seconds)
        if self.fails_at == len(self.frames):
            raise BadInput("the disk is full")
        self.frames.append(TimedFrame(frame.rgb.copy(), frame.time_s))
        self.on_write()

    def finish(self, *, complete: bool) -> None:
        self.finished = True

    def __enter__(self) -> "FakeSink":
        return self

    def __exit__(self, *error: object) -> None: ...
