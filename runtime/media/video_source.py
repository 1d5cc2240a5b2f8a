"""A video file as a source: frames turned upright, in RGB, at their exact times."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import AnyFrame
from unblur.runtime.media.colour import PQ, REC709, Colour, ColourConverter, HdrToSdr, bits_of, chroma_of, colour_of
from unblur.runtime.media.container import is_truncated, open_container, origin_s
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.video_parts import VideoPart

_log = logging.getLogger(__name__)
_DEFAULT_RATE = Fraction(25)


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

    def seek(self, pts: int) -> None:
        """Go on at the last key frame up to this time, in units of `time_base`."""
        self._container.seek(pts, stream=self.stream)

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
        except FFmpegError:
            self._damaged += 1
            return []

    def _not_decoded(self) -> int:
        """Frames that were read and did not come out whole.

        The decoder drops some without an error (those that refer to a lost one), so packets are counted; not in
        interlaced video, where a packet may be half a frame.
        """
        return self._damaged if self._is_interlaced else max(self._damaged, self._packets - self._whole)

    def _not_reached(self) -> int:
        """Frames behind the point where a file was cut, at least 1 where the container does not say."""
        if not (self._read_failed or is_truncated(self._path)):
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
    try:
        stream.codec_context.open(strict=False)
    except FFmpegError as error:
        codec = stream.codec_context.name
        raise BadInput(f"{path} holds {codec} video that cannot be decoded: {error.strerror}") from error
    return stream


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

    def __init__(self, path: Path, *, max_pixels: int, keep_depth: bool = False) -> None:
        """Opens the file and decodes its first frame.

        keep_depth: give uint16 frames of a video of more than 8 bits, HDR as it is coded; else HDR becomes BT.709.
        Raises BadInput if it is missing, empty, no video, too large, or holds no frame that can be decoded.
        """
        self._path = path
        self._is_part = False
        self._decoder = VideoDecoder(path, max_pixels=max_pixels)
        try:
            self._frames = iter(self._decoder)
            self._first = next(self._frames, None)
            if self._first is None:
                raise BadInput(f"{path} holds no video frame that can be decoded; is the file whole?")
            self._turns, self._mirror = _how_upright(self._first, path)
            coded = colour_of(self._decoder.stream.codec_context, str(path))
            self._info = self._read_info(self._first, coded, keep_depth)
        except BadInput:
            self._decoder.close()
            raise
        self._stored_hw = (self._first.height, self._first.width)
        self._converter = ColourConverter(coded)
        self._to_sdr = HdrToSdr(coded) if coded.is_hdr and self._info.bits == 8 else None

    @property
    def info(self) -> MediaInfo:
        return self._info

    @property
    def lost_frames(self) -> int:
        return 0 if self._is_part else self._decoder.lost_frames

    def cut(self, part: VideoPart) -> None:
        """Give the frames of this part only; call it before the iteration.

        That raises BadInput if they are not all there, or depend on what is before them.
        """
        self._first, self._is_part = None, True
        self._decoder.seek(part.start)
        self._frames = self._frames_of(part)

    def _frames_of(self, part: VideoPart) -> Iterator[VideoFrame]:
        """The decoder goes on behind the end: frames that are shown before a key frame may be stored behind it."""
        count = 0
        for frame in self._decoder:
            if frame.pts is None or frame.interlaced_frame:
                raise BadInput(f"{self._path} cannot be restored in parts: it is interlaced or has no time stamps")
            if part.end is not None and frame.pts >= part.end:
                break
            if frame.pts >= part.start:
                count += 1
                yield frame
        if count != part.frames:
            raise BadInput(f"{self._path} has {count} frames from {part.start} on, expected {part.frames}")

    def __iter__(self) -> Iterator[TimedFrame]:
        time_s: Fraction | None = None
        for frame in _progressive(self._raw_frames(), self._decoder.stream, self._path):
            time_s = self._time_s(frame, after_s=time_s)
            yield TimedFrame(self._upright_rgb(frame), time_s, (frame.duration or 0) * self._info.time_base)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.close()

    def _raw_frames(self) -> Iterator[VideoFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._frames

    def _read_info(self, first: VideoFrame, coded: Colour, keep_depth: bool) -> MediaInfo:
        stream = self._decoder.stream
        sideways = self._turns % 2 == 1
        chroma = chroma_of(first.format)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        bits = bits_of(first.format)
        keeps = keep_depth and bits > 8
        if bits > 8 and not keeps:
            what = (
                f"HDR ({'PQ' if coded.transfer == PQ else 'HLG'}) becomes SDR"
                if coded.is_hdr
                else f"{bits} bits become 8"
            )
            _log.info("%s: %s; --keep-depth keeps it", self._path, what)
        return MediaInfo(
            path=self._path,
            kind="video",
            size_hw=(first.width, first.height) if sideways else (first.height, first.width),
            frames=self._decoder.expected_frames,
            rate=self._decoder.rate,
            time_base=self._decoder.time_base,
            pixel_aspect=1 / aspect if sideways else aspect,
            colour=REC709 if coded.is_hdr and not keeps else coded,
            bits=10 if keeps else 8,
            chroma="444" if sideways and chroma == "422" else chroma,  # 4:2:2 on its side would be 4:4:0
        )

    def _time_s(self, frame: VideoFrame, after_s: Fraction | None) -> Fraction:
        """Presentation time in seconds, always later than `after_s`: AVI gives none, broken files repeat one."""
        time_base = self._info.time_base
        if frame.pts is None:
            return Fraction(0) if after_s is None else after_s + 1 / self._info.rate
        time_s = frame.pts * time_base - self._decoder.origin_s
        return time_s if after_s is None else max(time_s, after_s + time_base)

    def _upright_rgb(self, frame: VideoFrame) -> AnyFrame:
        if (frame.height, frame.width) != self._stored_hw:
            height, width = self._stored_hw
            raise BadInput(
                f"{self._path} changes its frame size from {width} x {height} to {frame.width} x {frame.height}; "
                "split it there first"
            )
        rgb = np.rot90(self._rgb(frame), self._turns)
        return rgb[:, ::-1] if self._mirror else rgb

    def _rgb(self, frame: VideoFrame) -> AnyFrame:
        if self._to_sdr is not None:
            return self._to_sdr(self._converter.deep_rgb_from(frame))
        return self._converter.rgb_from(frame) if self._info.bits == 8 else self._converter.deep_rgb_from(frame)


def _progressive(frames: Iterator[VideoFrame], stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    """The same frames, those that are interlaced woven into whole ones by FFmpeg's bwdif, at the same rate."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = _deinterlacer(stream)
            _log.info("%s: interlaced, made progressive (bwdif)", path)
        if graph is None:
            yield frame
        else:
            yield from _filtered(graph, frame, stream)
    if graph is not None:
        yield from _filtered(graph, None, stream)


def _deinterlacer(stream: VideoStream) -> Graph:
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    )
    graph.configure()
    return graph


def _filtered(graph: Graph, frame: VideoFrame | None, stream: VideoStream) -> Iterator[VideoFrame]:
    """What the graph gives after this frame, the last if None, with times in units of the stream."""
    graph.vpush(frame)
    while True:
        try:
            out = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        ticks = (out.time_base or Fraction(1)) / (stream.time_base or Fraction(1))
        out.pts = None if out.pts is None else round(out.pts * ticks)
        out.duration = round((out.duration or 0) * ticks)
        out.time_base = stream.time_base
        yield out


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
