"""Decode a video file that may be damaged, and count what is lost (PyAV)."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unblur.runtime.cut_short import is_cut_short
from unblur.runtime.errors import BadInput

# FFmpeg also reads playlists that open other files and URLs, and takes a text file for ANSI art: containers only.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,gif,yuv4mpegpipe"
_DEFAULT_RATE = Fraction(25)
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT


def open_container(path: Path) -> InputContainer:
    """Open a video file for reading; BadInput if it is missing, empty or no video container."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    try:
        return av.open(f"file:{path}", "r", options=options)
    except FFmpegError as error:
        raise BadInput(f"{path} is no picture or video that can be read, or its index is missing") from error


def origin_s(container: InputContainer) -> Fraction:
    """What a player shows as time 0, in seconds of the file's own clock.

    MPEG-TS and its kin start their clock anywhere; in all other containers 0 is 0.
    """
    if not container.format.flags & _TS_DISCONT:
        return Fraction(0)
    return min(
        (
            stream.start_time * stream.time_base
            for stream in container.streams
            if stream.start_time is not None and stream.time_base is not None
        ),
        default=Fraction(0),
    )


class VideoDecoder:
    """Whole frames of the best video stream of one file; iterate once.

    A frame whose data is damaged or missing is left out; `lost_frames` counts them when the iteration is over.
    """

    def __init__(self, path: Path, *, max_pixels: int) -> None:
        """Raises BadInput if the file is missing, empty, no video, or has larger frames than `max_pixels`."""
        self._path = path
        self._container = open_container(path)
        try:
            self.stream = _video_stream(self._container, path, max_pixels)
        except BadInput:
            self._container.close()
            raise
        self.rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or _DEFAULT_RATE)
        self.time_base = Fraction(self.stream.time_base or 1 / self.rate)
        self.origin_s = origin_s(self._container)
        self._packets = self._whole = self._damaged = 0
        self._end_s = Fraction(0)
        self._is_interlaced = self._read_failed = False
        self.lost_frames = 0

    @property
    def expected_frames(self) -> int | None:
        """How many frames the container declares; an estimate from its duration where it declares only that."""
        duration_s = self._duration_s
        return self.stream.frames or (None if duration_s is None else round(duration_s * self.rate))

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        for packet in self._demux():
            for frame in self._decode(packet):
                self._is_interlaced |= frame.interlaced_frame
                if frame.is_corrupt:
                    self._damaged += 1
                else:
                    self._whole += 1
                    yield frame
        self.lost_frames = self._not_decoded() + self._not_reached()

    @property
    def _duration_s(self) -> Fraction | None:
        duration = self._container.duration
        return None if duration is None else Fraction(duration, av.time_base)

    def _demux(self) -> "Iterator[Packet[VideoStream]]":
        try:
            yield from self._container.demux(self.stream)
        except FFmpegError:
            # The rest of the file cannot be read: end here, like a file that was cut; _not_reached counts it.
            self._read_failed = True

    def _decode(self, packet: "Packet[VideoStream]") -> list[VideoFrame]:
        if packet.size and not packet.is_discard:
            self._packets += 1
            end = (packet.pts or 0) + (packet.duration or 0)
            self._end_s = max(self._end_s, end * self.time_base)
        try:
            return packet.decode()
        except InvalidDataError:
            self._damaged += 1
            return []

    def _not_decoded(self) -> int:
        """Frames that were read and did not come out whole.

        The decoder drops some without an error (those that refer to a lost one), so packets are counted; not in
        interlaced video, where a packet may be half a frame.
        """
        return self._damaged if self._is_interlaced else max(self._damaged, self._packets - self._whole)

    def _not_reached(self) -> int:
        """Frames behind the point where a file was cut, at least 1 where the container does not tell."""
        if not (self._read_failed or is_cut_short(self._path)):
            return 0
        if self.stream.frames:
            return max(0, self.stream.frames - self._packets)
        missing_s = (self._duration_s or Fraction(0)) - self._end_s
        return max(1, round(missing_s * self.rate))


def _video_stream(container: InputContainer, path: Path, max_pixels: int) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise BadInput(f"{path} holds no video that can be decoded")
    if stream.width * stream.height > max_pixels:
        raise BadInput(
            f"{path} has {stream.width} x {stream.height} pixels, more than the limit of {max_pixels}; "
            "raise --max-pixels if you trust it"
        )
    # The header may lie: the decoder itself refuses what is far larger before it allocates it (it counts rows and
    # columns of padding, hence the allowance).
    stream.codec_context.options = {"max_pixels": str(2 * max_pixels + (1 << 16))}
    # The default, said aloud: with frame threads one damaged packet at the end takes whole frames with it.
    stream.thread_type = "SLICE"
    return stream
