"""Video streams in output containers, with the size, colours, depth and pixel shape of the source; recordings."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from unblur.runtime.errors import BadInput
from unblur.runtime.files import require_file_place
from unblur.runtime.frames import Frame, eight_bits
from unblur.runtime.media.colour import Chroma, ColourConverter
from unblur.runtime.media.interfaces import TIME_BASE, MediaInfo, StreamClock, TimedFrame

# Restoring is what costs, and it wants the cores: at one quality, x264's "veryfast" takes a third of the time of
# the default "medium" for files about a tenth larger, and looks ahead 10 frames instead of 40 (memory).
_PRESET = "veryfast"


def one_size_hw(info: MediaInfo) -> tuple[int, int]:
    """Height and width of the frames. Raises BadInput if those of the source differ in size."""
    if info.size_hw is None:
        raise BadInput(f"{info.name} holds images of different sizes, a video needs one; give a folder as sink")
    return info.size_hw


def pixel_format(chroma: Chroma, size_hw: tuple[int, int], bits: int = 8) -> str:
    """The YUV format of 8 or 10 bits that keeps this chroma; 4:4:4 where subsampling would need an even size."""
    height, width = size_hw
    depth = "10le" if bits > 8 else ""
    if chroma == "420" and height % 2 == 0 and width % 2 == 0:
        return f"yuv420p{depth}"
    if chroma == "422" and width % 2 == 0:
        return f"yuv422p{depth}"
    return f"yuv444p{depth}"


def add_video(
    container: OutputContainer, info: MediaInfo, time_base: Fraction, options: Mapping[str, str]
) -> VideoStream:
    """Add the stream: H.264, or HEVC for more than 8 bits, which few devices play as H.264.

    time_base: unit of its time stamps in seconds. options: of x264 and x265, beside the preset. Raises BadInput if
    the frames of the source differ in size.
    """
    size_hw = one_size_hw(info)
    is_deep = info.bits > 8
    options = {"preset": _PRESET, **options}
    if is_deep:
        quiet = {"x265-params": "log-level=none"}
        stream = container.add_stream("libx265", rate=info.rate, options={**options, **quiet})
    else:
        stream = container.add_stream("libx264", rate=info.rate, options=options)
    if is_deep and container.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
    stream.height, stream.width = size_hw
    stream.pix_fmt = pixel_format(info.chroma, size_hw, info.bits)
    stream.time_base = time_base
    context = stream.codec_context
    context.time_base = time_base
    context.flags |= Flags.frame_duration  # else the last frame of a variable rate gets a guessed duration
    context.sample_aspect_ratio = info.pixel_aspect
    colour = info.colour
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    return stream


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
        self._stream = add_video(container, info, TIME_BASE, options)
        self._converter = ColourConverter(info.colour)
        self._clock = StreamClock()
        self.end_s = Fraction(0)
        container.start_encoding()

    def write(self, frame: TimedFrame) -> None:
        """Encode and mux one frame; `end_s` is then when it ends."""
        time_s = self._clock.at(frame.time_s)
        duration_s = 1 / self._info.rate
        image = self._converter.yuv_from(self._in_size(eight_bits(frame.rgb)), self._pixel_format)
        image.time_base = TIME_BASE
        image.pts = round(time_s / TIME_BASE)
        image.duration = round(duration_s / TIME_BASE)
        self._container.mux(self._stream.encode(image))
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


# Each fragment is a key frame and what follows, and carries its own index: no end is needed to play the file.
# Clusters do that for Matroska, after at most that many milliseconds. Both go to the kernel once they are whole.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_CLUSTERS = {"cluster_time_limit": "1000", "flush_packets": "1"}
_OPTIONS = {"mp4": _FRAGMENTS, "mov": _FRAGMENTS, "matroska": _CLUSTERS}


class RecordingSink(AbstractContextManager["RecordingSink"]):
    """Written under its own name from the start, unlike a file made from a file: there is no end to wait for.

    It can be played when the disk is full, and after a kill, which costs two seconds at most.
    """

    def __init__(self, path: Path, info: MediaInfo, container_format: str, *, crf: int) -> None:
        """container_format: FFmpeg's "mp4", "mov" or "matroska". crf: of x264, 0 to 51.

        Raises BadInput if the frames of the source differ in size.
        """
        one_size_hw(info)
        self._path = path
        self._info = info
        self._format = container_format
        self._crf = crf

    def __enter__(self) -> "RecordingSink":
        """Begins the file; one of that name is replaced. BadInput if it cannot be written."""
        require_file_place(self._path)
        self._container: OutputContainer = av.open(
            f"file:{self._path}", "w", format=self._format, options=dict(_OPTIONS[self._format])
        )
        try:
            self._encoder = LiveEncoder(self._container, self._info, crf=self._crf)
        except FFmpegError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._write_errors():
            self._encoder.write(frame)

    def finish(self, *, complete: bool) -> None:
        with self._write_errors():
            self._encoder.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps what was written."""
        with suppress(FFmpegError):  # the one that matters was raised by `write` or `finish`
            self._container.close()
        if not self._encoder.end_s:
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            held_s = float(self._encoder.end_s)
            raise BadInput(
                f"cannot write {self._path}: {error.strerror}; it holds the first {held_s:.1f} s"
            ) from error
