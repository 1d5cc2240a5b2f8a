"""A video file as a source: frames turned upright, in RGB, at their exact times."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from unblur.runtime.colour import ColourConverter, chroma_of, colour_of
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.sources.video_decoder import VideoDecoder

# Signs of a display matrix (a, b, c, d: x' = ax + cy, y' = bx + dy, y downwards) -> what turns the stored frame
# upright: quarter turns anticlockwise, then whether to mirror it left to right. Some muxers write all zeros.
_UPRIGHT: Mapping[tuple[int, ...], tuple[int, bool]] = {
    (0, 0, 0, 0): (0, False),
    (1, 0, 0, 1): (0, False),
    (0, -1, 1, 0): (1, False),
    (-1, 0, 0, -1): (2, False),
    (0, 1, -1, 0): (3, False),
    (-1, 0, 0, 1): (0, True),
    (0, -1, -1, 0): (1, True),
    (1, 0, 0, -1): (2, True),
    (0, 1, 1, 0): (3, True),
}


class VideoSource(AbstractContextManager["VideoSource"]):
    """The frames of the best video stream of one file; iterate once.

    A frame that cannot be decoded whole is left out and counted in `lost_frames`; the times of the others stay.
    """

    def __init__(self, path: Path, *, max_pixels: int) -> None:
        """Opens the file and decodes its first frame.

        Raises BadInput if it is missing, empty, no video, too large, or holds no frame that can be decoded.
        """
        self._path = path
        self._decoder = VideoDecoder(path, max_pixels=max_pixels)
        try:
            self._frames = iter(self._decoder)
            self._first = next(self._frames, None)
            if self._first is None:
                raise BadInput(f"{path} holds no video frame that can be decoded; is the file whole?")
            self._turns, self._mirror = _how_upright(self._first, path)
            self._info = self._read_info(self._first)
        except BadInput:
            self._decoder.close()
            raise
        self._stored_hw = (self._first.height, self._first.width)
        self._converter = ColourConverter(self._info.colour)

    @property
    def info(self) -> MediaInfo:
        return self._info

    @property
    def lost_frames(self) -> int:
        return self._decoder.lost_frames

    def __iter__(self) -> Iterator[TimedFrame]:
        time_s: Fraction | None = None
        frame, self._first = self._first, None
        while frame is not None:
            time_s = self._time_s(frame, after_s=time_s)
            yield TimedFrame(self._upright_rgb(frame), time_s, (frame.duration or 0) * self._info.time_base)
            frame = next(self._frames, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.close()

    def _read_info(self, first: VideoFrame) -> MediaInfo:
        stream = self._decoder.stream
        sideways = self._turns % 2 == 1
        chroma = chroma_of(first.format)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        return MediaInfo(
            path=self._path,
            kind="video",
            size_hw=(first.width, first.height) if sideways else (first.height, first.width),
            frames=self._decoder.expected_frames,
            rate=self._decoder.rate,
            time_base=self._decoder.time_base,
            pixel_aspect=1 / aspect if sideways else aspect,
            colour=colour_of(stream.codec_context, str(self._path)),
            chroma="444" if sideways and chroma == "422" else chroma,  # 4:2:2 on its side would be 4:4:0
        )

    def _time_s(self, frame: VideoFrame, after_s: Fraction | None) -> Fraction:
        """Presentation time in seconds, always later than `after_s`: AVI gives none, broken files repeat one."""
        time_base = self._info.time_base
        if frame.pts is None:
            return Fraction(0) if after_s is None else after_s + 1 / self._info.rate
        time_s = frame.pts * time_base - self._decoder.origin_s
        return time_s if after_s is None else max(time_s, after_s + time_base)

    def _upright_rgb(self, frame: VideoFrame) -> Frame:
        if (frame.height, frame.width) != self._stored_hw:
            height, width = self._stored_hw
            raise BadInput(
                f"{self._path} changes its frame size from {width} x {height} to {frame.width} x {frame.height}; "
                "split it there first"
            )
        rgb = np.rot90(self._converter.rgb_from(frame), self._turns)
        return rgb[:, ::-1] if self._mirror else rgb


def _how_upright(frame: VideoFrame, path: Path) -> tuple[int, bool]:
    """The entry of `_UPRIGHT` for this frame's display matrix (9 int32 a b u c d v x y w, 16.16 fixed point)."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(side_data, SideData):
        return (0, False)
    matrix = np.frombuffer(bytes(side_data), np.int32)[[0, 1, 3, 4]].astype(np.float64)
    scale = max(float(np.abs(matrix).max()), 1.0)
    signs = tuple(int(sign) for sign in np.rint(matrix / scale))
    if signs not in _UPRIGHT:
        raise BadInput(f"{path} is shown turned by other than quarter turns; turn it upright first")
    return _UPRIGHT[signs]
