"""What the streaming loop moves: frames with a time, from a Source to a Sink.

Files, folders and cameras fit these protocols, so the loop never asks which it holds. `video.py` turns
what a user typed into one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from unblur.runtime.colour import REC709, Chroma, Colour
from unblur.runtime.frames import Frame

MediaKind = Literal["picture", "folder", "video", "live"]


@dataclass(frozen=True)
class TimedFrame:
    """One picture of a stream.

    rgb: uint8 (H, W, 3), upright.
    time_s: presentation time in seconds, exact, never decreasing within a stream.
    duration_s: how long it is shown; 0 where the container does not say.
    name, icc_profile: file name and colour profile of a picture that came from a file; None in a video.
    """

    rgb: Frame
    time_s: Fraction = Fraction(0)
    duration_s: Fraction = Fraction(0)
    name: str | None = None
    icc_profile: bytes | None = None


@dataclass(frozen=True)
class MediaInfo:
    """What a Sink must know of the Source to write the same thing again.

    path: of the file or folder; None of a live source, which has a url, for people: without its password.
    kind: "live" does not wait for who reads it: a camera, a network stream.
    size_hw: of every frame, upright; None in a folder of pictures of different sizes. A live source may change it
        on the way.
    frames: how many to expect; None if the container does not say.
    rate: frames per second. time_base: unit of the time stamps in seconds.
    pixel_aspect: width of a pixel over its height.
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
