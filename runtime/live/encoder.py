"""Encode a live stream: each frame at the time it was captured, at once, in the size the stream began with."""

import logging
from fractions import Fraction

import numpy as np
from av.container import OutputContainer
from PIL import Image, ImageOps

from unblur.runtime.colour import ColourConverter
from unblur.runtime.frames import Frame
from unblur.runtime.h264 import add_h264, one_size_hw, pixel_format
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.stream_clock import TIME_BASE, StreamClock

_log = logging.getLogger(__name__)

_KEY_FRAME_S = 2  # a viewer that joins waits for one; a recording that is killed may lose that much


class LiveEncoder:
    """H.264 without delay. Its errors are FFmpegError: the owner of the container knows its name.

    The source may be opened again on the way: times go on, see StreamClock. Frames of another size are scaled into
    the first one, between black bars.
    """

    def __init__(self, container: OutputContainer, info: MediaInfo, *, crf: int) -> None:
        """Writes the header of `container`. crf: of x264, 0 to 51. BadInput if the source has no single size."""
        self._container = container
        self._info = info
        self._size_hw = self._last_hw = one_size_hw(info)
        self._pixel_format = pixel_format(info.chroma, self._size_hw)
        key_frames = str(max(1, round(_KEY_FRAME_S * info.rate)))
        options = {"crf": str(crf), "tune": "zerolatency", "g": key_frames}
        self._stream = add_h264(container, info, TIME_BASE, options)
        self._converter = ColourConverter(info.colour)
        self._clock = StreamClock()
        self.end_s = Fraction(0)
        container.start_encoding()

    def write(self, frame: TimedFrame) -> None:
        """Encode and mux one frame; `end_s` is then when it ends."""
        time_s = self._clock.at(frame.time_s)
        duration_s = 1 / self._info.rate
        picture = self._converter.yuv_from(self._in_size(frame.rgb), self._pixel_format)
        picture.time_base = TIME_BASE
        picture.pts = round(time_s / TIME_BASE)
        picture.duration = round(duration_s / TIME_BASE)
        self._container.mux(self._stream.encode(picture))
        self.end_s = time_s + duration_s

    def finish(self) -> None:
        """Write what the encoder still holds, and close the container."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _in_size(self, rgb: Frame) -> Frame:
        height, width = size_hw = rgb.shape[0], rgb.shape[1]
        if size_hw != self._last_hw:
            _log.warning(
                "%s now has frames of %d x %d; they are shown within the %d x %d it began with",
                *(self._info.name, width, height, self._size_hw[1], self._size_hw[0]),
            )
            self._last_hw = size_hw
        if size_hw == self._size_hw:
            return rgb
        return np.asarray(ImageOps.pad(Image.fromarray(rgb), self._size_hw[::-1], Image.Resampling.BILINEAR))
