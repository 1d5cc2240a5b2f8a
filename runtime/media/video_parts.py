"""A long video in parts: where it can be cut, and its restored parts on disk until they are joined.

A part goes from one key frame to before another, so that it is decoded alone. Its restored frames are kept without
loss, so that a video that was restored in parts is encoded as one that was restored at once.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.media.container import is_truncated, open_container
from unblur.runtime.media.interfaces import TimedFrame

SUFFIX = ".mkv"


@dataclass(frozen=True)
class VideoPart:
    """start: presentation time of its first frame, a key frame, in units of the stream's time base. end: that of
    the part behind it; None is the end of the video. frames: how many there are between.
    """

    start: int
    end: int | None
    frames: int


def cut_video(path: Path, least_frames: int) -> list[VideoPart]:
    """The parts of a video, each of at least so many frames; reads every packet and decodes none.

    One part alone if the video cannot be cut: it is truncated or damaged, or has no time stamps. Raises BadInput if
    it is not a video.
    """
    whole = [VideoPart(0, None, 0)]
    with open_container(path) as container:
        stream = container.streams.best("video")
        if stream is None or is_truncated(path):
            return whole
        try:
            packets = [packet for packet in container.demux(stream) if packet.size]
        except FFmpegError:
            return whole
    times = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    if len(set(times)) < len(packets):
        return whole
    keys = {packet.pts for packet in packets if packet.is_keyframe}
    starts = [0]
    for index, time in enumerate(times):
        if time in keys and index - starts[-1] >= least_frames <= len(times) - index:
            starts.append(index)
    ends: list[int | None] = [*starts[1:], None]
    return [
        VideoPart(times[start], None if end is None else times[end], (len(times) if end is None else end) - start)
        for start, end in zip(starts, ends, strict=True)
    ]


class PartSink(AbstractContextManager["PartSink"]):
    """The restored frames of one part: a file as FFV1, without loss, and beside it one with their times."""

    def __init__(self, path: Path) -> None:
        """path: ends in SUFFIX."""
        self._path = path
        self._times: list[tuple[str, str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> "PartSink":
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_file(self._path))
            self._container = stack.enter_context(av.open(f"file:{partial}", "w", format="matroska"))
            self._stream = self._container.add_stream("ffv1", rate=25)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        is_deep = frame.rgb.dtype == np.uint16
        if not self._times:
            self._stream.height, self._stream.width = frame.rgb.shape[:2]
            self._stream.pix_fmt = "gbrp16le" if is_deep else "bgr0"
        rgb = VideoFrame.from_ndarray(cast(Any, np.ascontiguousarray(frame.rgb)), "rgb48le" if is_deep else "rgb24")
        image = rgb.reformat(format=self._stream.pix_fmt)
        image.pts, image.time_base = len(self._times), Fraction(1, 25)
        self._container.mux(self._stream.encode(image))
        self._times.append((str(frame.time_s), str(frame.duration_s)))

    def finish(self, *, complete: bool) -> None:
        """The file with the times comes last: a part without it is not done."""
        with self._stack:
            self._container.mux(self._stream.encode(None))
        with atomic_file(times_of(self._path)) as temporary:
            temporary.write_text(json.dumps(self._times))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def times_of(part: Path) -> Path:
    """The file with the times of a part's frames; the part is whole when it is there."""
    return part.with_suffix(".json")


def read_parts(parts: Sequence[Path]) -> Iterator[TimedFrame]:
    """The frames of restored parts, one after the other. Raises BadInput if one is damaged."""
    for part in parts:
        try:
            times = json.loads(times_of(part).read_text())
            with open_container(part) as container:
                for image, (time_s, duration_s) in zip(container.decode(video=0), times, strict=True):
                    rgb: Any = image.to_ndarray(format="rgb24" if image.format.name == "bgr0" else "rgb48le")
                    yield TimedFrame(rgb, Fraction(time_s), Fraction(duration_s))
        except (BadInput, OSError, ValueError, FFmpegError) as error:
            raise BadInput(f"{part} is damaged; remove {part.parent} and restore the video again") from error
