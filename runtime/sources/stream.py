"""A live stream that FFmpeg reads: a camera on a cable or behind a network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType

import av
from av.error import ExitError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unblur.runtime.colour import ColourConverter, colour_of
from unblur.runtime.errors import BadInput
from unblur.runtime.live.frame_pool import FramePool
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.stream_clock import TIME_BASE, StreamClock

_SILENCE_S = 10.0  # longer than the patience of the feed, which is then told why
_DEFAULT_RATE = Fraction(25)
_RATES = range(1, 241)  # what a camera may have; some streams declare 0, or the ticks of their clock

# Its demuxer numbers the frames at an assumed rate: the time when a frame comes is nearer to the truth.
_WITHOUT_TIMES = "mpjpeg"


@dataclass(frozen=True)
class Stream:
    """What to give FFmpeg. url: may hold a password. name: the same for people, without.

    format: of the device or container; None lets FFmpeg find out. explain: what an error means here, for people.
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

        Raises BadInput if nothing answers, nothing comes for 10 seconds, it is no video, or frames are too large.
        """
        self._stream = stream
        self._max_pixels = max_pixels
        self._pool = FramePool()
        self._clock = StreamClock()
        self.lost_frames = 0
        with ExitStack() as stack:
            self._open(stack)
            self._frames = self._decode()
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
        options = dict(self._stream.options)
        with self._read_errors():
            container = av.open(
                self._stream.url,
                "r",
                format=self._stream.format,
                options=options,
                timeout=(_SILENCE_S, _SILENCE_S),
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

    def _decode(self) -> Iterator[VideoFrame]:
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
