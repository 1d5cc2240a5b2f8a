"""What the streaming loop moves: frames with a time, from a Source to a Sink.

Files, folders and cameras fit these protocols, so the loop never asks which it holds. `open_media.py` turns what a
user typed into one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from unblur.runtime.frames import AnyFrame
from unblur.runtime.image_metadata import About
from unblur.runtime.media.colour import REC709, Chroma, Colour, rgb_from_yuv
from unblur.runtime.yuv import YuvFrame

MediaKind = Literal["image", "folder", "animation", "video", "live"]


class _Rgb:
    """A field that is given as RGB, or as YUV, which is converted when it is first asked for."""

    def __get__(self, frame: "TimedFrame | None", owner: type) -> AnyFrame:
        if frame is None:
            raise AttributeError  # the field has no default
        if not isinstance(frame.image, YuvFrame):
            return frame.image
        if "converted" not in vars(frame):
            vars(frame)["converted"] = rgb_from_yuv(frame.image)
        converted: AnyFrame = vars(frame)["converted"]
        return converted

    def __set__(self, frame: "TimedFrame", image: AnyFrame | YuvFrame) -> None:
        vars(frame)["image"] = image


@dataclass(frozen=True)
class TimedFrame:
    """One image of a stream.

    rgb: uint8 (H, W, 3), upright; uint16 of an image or a video of more than 8 bits. A camera's may be given as
        YUV; `image` is what was given.
    time_s: presentation time in seconds, exact, never decreasing within a stream.
    duration_s: how long it is shown; 0 where the container does not say.
    path, about: of an image that came from a file; None in a video. alpha: (H, W), of the type of `rgb`, or None.
    """

    rgb: _Rgb = _Rgb()
    time_s: Fraction = Fraction(0)
    duration_s: Fraction = Fraction(0)
    path: Path | None = None
    alpha: AnyFrame | None = None
    about: About | None = None

    @property
    def image(self) -> AnyFrame | YuvFrame:
        """What a runner that takes YUV is given."""
        given: AnyFrame | YuvFrame = vars(self)["image"]
        return given


@dataclass(frozen=True)
class MediaInfo:
    """What a Sink must know of the Source to write the same thing again.

    path: of the file or folder; None of a live source, which has a url without its password, for messages.
    kind: "live" does not wait for who reads it: a camera, a network stream.
    size_hw: of every frame, upright; None in a folder of images of different sizes. A live source may change it
        on the way.
    frames: how many to expect; None if the container does not say.
    rate: frames per second. time_base: unit of the time stamps in seconds.
    pixel_aspect: width of a pixel over its height. bits: a channel, of what is to be written: 8 or 10.
    """

    path: Path | None
    kind: MediaKind
    size_hw: tuple[int, int] | None
    frames: int | None = 1
    rate: Fraction = Fraction(25)
    time_base: Fraction = Fraction(1, 25)
    pixel_aspect: Fraction = Fraction(1)
    colour: Colour = REC709
    chroma: Chroma = "420"
    bits: int = 8
    url: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        return self.url if self.path is None else str(self.path)


class Source(Protocol):
    """A context manager to iterate over once, from one thread."""

    @property
    def info(self) -> MediaInfo: ...

    @property
    def lost_frames(self) -> int:
        """Frames that the source should have held but could not be decoded; known when it is exhausted."""
        ...

    def __iter__(self) -> Iterator[TimedFrame]: ...

    def __enter__(self) -> "Source": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sink(Protocol):
    """A context manager whose output appears at `finish`; leaving the block without it discards everything."""

    def write(self, frame: TimedFrame) -> None:
        """Append one frame. `frame.rgb` is not kept: the caller may overwrite it afterwards."""
        ...

    def finish(self, *, complete: bool) -> None:
        """Make what was written visible as a whole file. complete: False if the source was stopped early."""
        ...

    def __enter__(self) -> "Sink": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


TIME_BASE = Fraction(1, 90_000)  # MPEG's clock: exact for 24, 25, 30, 30000/1001, ... frames per second
_JUMP_TICKS = 90_000


class StreamClock:
    """Starts at 0 and moves by what the stream says has passed between two frames.

    Where the stream says nothing, goes back (it was opened again, the camera was set to another hour) or leaps
    ahead by more than a second, it moves by what has passed here.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """now: seconds on a clock of this machine; for tests."""
        self._now = now
        self._ticks = -1
        self._given: int | None = None
        self._arrived = 0

    def at(self, stream_s: Fraction | None) -> Fraction:
        """Seconds since the first call, in whole TIME_BASE. stream_s: the frame's own time; None is unknown."""
        arrived = round(self._now() / TIME_BASE)
        given = None if stream_s is None else round(stream_s / TIME_BASE)
        self._ticks += 1 if self._ticks < 0 else self._passed(arrived, given)
        self._arrived, self._given = arrived, given
        return self._ticks * TIME_BASE

    def _passed(self, arrived: int, given: int | None) -> int:
        """Ticks since the frame before, at least 1."""
        waited = max(1, arrived - self._arrived)
        if given is None or self._given is None:
            return waited
        step = given - self._given
        return step if 0 < step < waited + _JUMP_TICKS else waited
