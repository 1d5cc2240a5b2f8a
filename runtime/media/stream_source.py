"""A live stream that FFmpeg reads: a camera on a cable or behind a network."""

import errno
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.error import ExitError, FFmpegError, HTTPUnauthorizedError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import FramePool
from unblur.runtime.media.colour import ColourConverter, colour_of
from unblur.runtime.media.container import open_input
from unblur.runtime.media.interfaces import TIME_BASE, MediaInfo, StreamClock, TimedFrame
from unblur.runtime.media.url import Size, without_secrets

_SILENCE_S = 10.0  # longer than the patience of the capture, which then reports why
_DEFAULT_RATE = Fraction(25)
_RATES = range(1, 241)  # what a camera may have; some streams declare 0, or the ticks of their clock

# Its demuxer numbers the frames at an assumed rate: the time when a frame comes is nearer to the truth.
_WITHOUT_TIMES = "mpjpeg"


@dataclass(frozen=True)
class Stream:
    """What to give FFmpeg. url: may hold a password. name: the same without it, for messages.

    format: of the device or container; None lets FFmpeg find out. explain: what an error means here, for messages.
    """

    url: str
    name: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    explain: Callable[[FFmpegError], str] = lambda error: str(error.strerror)


class StreamSource(AbstractContextManager["StreamSource"]):
    """The frames of the best video stream, as they come, in whatever size they come.

    A frame that arrives damaged is left out and counted in `lost_frames` at once; one that never arrives cannot be
    counted, nor are those before the first whole one, since a stream is joined anywhere.
    """

    def __init__(self, stream: Stream, *, max_pixels: int) -> None:
        """Opens the stream and waits for its first frame.

        Raises BadInput if nothing answers, nothing comes for 10 seconds, it has no video, or frames are too large.
        """
        self._stream = stream
        self._max_pixels = max_pixels
        self._pool = FramePool()
        self._clock = StreamClock()
        self.lost_frames = 0
        with ExitStack() as stack:
            self._open(stack)
            self._frames = self._decode()
            stack.callback(self._frames.close)  # it refers to self: unclosed, a cycle that keeps the decoder
            self._first = next(self._frames, None)
            if self._first is None:
                raise BadInput(f"{stream.name} ended before its first frame")
            self.info = self._read_info(self._first)
            self._converter = ColourConverter(self.info.colour)
            self._stack = stack.pop_all()

    def __iter__(self) -> Iterator[TimedFrame]:
        """Raises BadInput if the stream breaks; returns if it ends."""
        frame, self._first = self._first, None
        while frame is not None:
            yield self._timed(frame)
            frame = next(self._frames, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        with self._read_errors():
            container = open_input(
                self._stream.url, format=self._stream.format, options=self._stream.options, timeout_s=_SILENCE_S
            )
            self._container = stack.enter_context(container)
            video = self._container.streams.best("video")
        if not isinstance(video, VideoStream) or video.codec_context is None:
            raise BadInput(f"{self._stream.name} holds no video that can be decoded")
        # The decoder refuses what is far larger before it allocates it (it counts padding, hence the allowance).
        video.codec_context.options = {"max_pixels": str(2 * self._max_pixels + (1 << 16))}
        video.thread_type = "SLICE"  # threads over frames would keep back one frame each
        self._video = video
        self._has_times = self._container.format.name != _WITHOUT_TIMES

    def _decode(self) -> Generator[VideoFrame, None, None]:
        began = False
        with self._read_errors():
            for packet in self._container.demux(self._video):
                frames, lost = _whole_frames(packet)
                began = began or bool(frames)
                self.lost_frames += lost if began else 0
                yield from frames

    def _read_info(self, first: VideoFrame) -> MediaInfo:
        self._check_size(first)
        rate = self._video.average_rate or self._video.guessed_rate or Fraction(0)
        return MediaInfo(
            path=None,
            kind="live",
            size_hw=(first.height, first.width),
            frames=None,
            rate=Fraction(rate) if int(rate) in _RATES else _DEFAULT_RATE,
            time_base=TIME_BASE,
            pixel_aspect=Fraction(self._video.sample_aspect_ratio or 1),
            colour=colour_of(self._video.codec_context, self._stream.name),
            url=self._stream.name,
        )

    def _timed(self, frame: VideoFrame) -> TimedFrame:
        self._check_size(frame)
        rgb = self._pool.take((frame.height, frame.width, 3))
        self._converter.rgb_into(frame, rgb)
        return TimedFrame(rgb, self._clock.at(self._stream_s(frame)), 1 / self.info.rate)

    def _stream_s(self, frame: VideoFrame) -> Fraction | None:
        unit = self._video.time_base
        return None if frame.pts is None or unit is None or not self._has_times else frame.pts * unit

    def _check_size(self, frame: VideoFrame) -> None:
        if frame.width * frame.height > self._max_pixels:
            raise BadInput(
                f"{self._stream.name} has frames of {frame.width} x {frame.height} pixels, more than the limit of "
                f"{self._max_pixels}; raise --max-pixels if you trust it"
            )

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            # from None: FFmpeg's own message holds the address with its password
            raise BadInput(f"cannot read {self._stream.name}: {self._why(error)}") from None

    def _why(self, error: FFmpegError) -> str:
        if isinstance(error, ExitError):
            return f"nothing came for {_SILENCE_S:.0f} seconds"
        return self._stream.explain(error)


def _whole_frames(packet: "Packet[VideoStream]") -> tuple[list[VideoFrame], int]:
    """What a packet holds, and how many frames of it are damaged."""
    try:
        frames = packet.decode()
    except InvalidDataError:
        return [], 1
    if packet.is_corrupt:
        return [], 1
    whole = [frame for frame in frames if not frame.is_corrupt]
    return whole, len(frames) - len(whole)


# RTP inside the RTSP connection: UDP loses packets, and firewalls do not let it in. A server without it gets UDP.
# FFmpeg's "nobuffer" is left out on purpose: it throws away what was read to find out about the stream, so that the
# first frame waits for the next key frame; the live loop takes the newest of what has piled up anyway.
_RTSP = {"rtsp_flags": "prefer_tcp"}

# A playlist (HLS, DASH) could open files of this machine.
_HTTP = {"format_whitelist": "mpegts,mpjpeg", "protocol_whitelist": "http,https,httpproxy,tls,tcp"}


def open_rtsp(url: str, *, max_pixels: int) -> StreamSource:
    """A camera or server at rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH. Raises what StreamSource raises."""
    return StreamSource(
        Stream(url, without_secrets(url), options=_RTSP, explain=_explain_network), max_pixels=max_pixels
    )


def open_http(url: str, *, max_pixels: int) -> StreamSource:
    """MJPEG (multipart/x-mixed-replace) or MPEG-TS at http[s]://... Raises what StreamSource raises."""
    return StreamSource(
        Stream(url, without_secrets(url), options=_HTTP, explain=_explain_network), max_pixels=max_pixels
    )


def _explain_network(error: FFmpegError) -> str:
    if isinstance(error, HTTPUnauthorizedError):
        return "wrong user or password (401); write USER:PASSWORD@ before the host, special characters as %XX"
    if isinstance(error, InvalidDataError):
        return "it answers, but not with video that can be read (over HTTP that is MJPEG or MPEG-TS)"
    if error.errno == errno.EIO:
        return "there is no such host, or the connection broke"
    return str(error.strerror)


_DEMUXER = "video4linux2,v4l2"

_REASONS: Mapping[int, str] = {
    errno.EACCES: "no permission; add yourself to its group: sudo usermod -aG video $USER, then log in again",
    errno.EBUSY: "another program is using it; close that first",
    errno.EINVAL: "it does not offer this size, rate or format; `v4l2-ctl --list-formats-ext` shows what it does",
    errno.ENODEV: "the camera was unplugged",
    errno.ENOTTY: "it is not a camera",
}


@dataclass(frozen=True)
class CameraFormat:
    """Options of the source. format: FFmpeg's name of a codec or pixel format, as mjpeg, yuyv422 or nv12.

    The default is what USB cameras need for 720p at 30 frames per second: uncompressed they give 10.
    """

    size: Size = field(default_factory=lambda: Size(720, 1280))
    fps: Fraction = Fraction(30)
    format: str = "mjpeg"


def open_v4l2(device: Path, wanted: CameraFormat, name: str, *, max_pixels: int) -> StreamSource:
    """The camera at `device`. name: the address that was given, for messages.

    The driver may choose a size and a rate near those wanted. Raises BadInput if there is no such camera, it is in
    use, may not be opened, or does not offer the format, or where PyAV was built without Video4Linux.
    """
    if _DEMUXER not in av.formats_available:
        raise BadInput(f"cannot read {name}: this PyAV has no Video4Linux; try gst://v4l2src device={device}")
    if not device.exists():
        raise BadInput(f"cannot read {name}: there is no {device}; {_cameras()}")
    options = {
        "video_size": f"{wanted.size.width}x{wanted.size.height}",
        "framerate": str(wanted.fps),
        "input_format": wanted.format,
    }
    return StreamSource(Stream(str(device), name, "v4l2", options, _explain), max_pixels=max_pixels)


def _cameras() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"this machine has {', '.join(found)}" if found else "this machine has no camera that Linux knows"


def _explain(error: FFmpegError) -> str:
    return _REASONS.get(error.errno or 0, str(error.strerror))
