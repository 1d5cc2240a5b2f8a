"""A video file as a sink: H.264 beside the original's sound, at the original's times, in its colours."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.media.colour import ColourConverter
from unblur.runtime.media.container import open_container, origin_s
from unblur.runtime.media.encode import add_h264, one_size_hw, pixel_format
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame


class AudioCopy(AbstractContextManager["AudioCopy"]):
    """All audio streams of a file.

    It reads the file a second time rather than share the video's demuxer, so that the sound follows the frames
    that were written, wherever these are delayed, dropped or stopped.
    """

    def __init__(self, source: Path, target: OutputContainer, target_path: Path) -> None:
        """Adds the streams to `target`, whose header must not be written yet.

        Raises BadInput if that container cannot hold a codec of the source.
        """
        self._container = open_container(source)
        self._origin_s = origin_s(self._container)
        self._target = target
        try:
            self._targets = {
                stream.index: _add_stream(target, stream, source, target_path)
                for stream in self._container.streams.audio
            }
        except BadInput:
            self._container.close()
            raise
        self._packets = self._read()
        self._next = next(self._packets, None)

    def copy_until(self, time_s: Fraction | None) -> None:
        """Mux the packets that start before `time_s`; all that are left if it is None."""
        while self._next is not None and (time_s is None or _start_s(self._next) < time_s):
            self._next.stream = self._targets[self._next.stream_index]
            self._target.mux(self._next)
            self._next = next(self._packets, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def _read(self) -> "Iterator[Packet[AudioStream]]":
        if not self._targets:
            return
        try:
            for packet in self._container.demux(self._container.streams.audio):
                if packet.size and not packet.is_corrupt:
                    _shift(packet, -self._origin_s)
                    yield packet
        except FFmpegError:
            return  # the file cannot be read further; the video's decoder meets the same place and reports it


def _add_stream(target: OutputContainer, stream: AudioStream, source: Path, target_path: Path) -> AudioStream:
    try:
        added = target.add_stream_from_template(stream)
    except (ValueError, FFmpegError) as error:
        codec = stream.codec_context.name
        raise BadInput(
            f"{target_path.suffix} cannot hold the sound of {source} ({codec}); choose a sink that ends in .mkv"
        ) from error
    added.metadata.update(stream.metadata)
    return added


def _start_s(packet: "Packet[AudioStream]") -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return (stamp or 0) * packet.time_base


def _shift(packet: "Packet[AudioStream]", offset_s: Fraction) -> None:
    offset = round(offset_s / packet.time_base)
    if packet.pts is not None:
        packet.pts += offset
    if packet.dts is not None:
        packet.dts += offset


FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


class _Discarded(Exception):
    """Thrown through the sink's context managers when the block ends before `finish`."""


class VideoSink(AbstractContextManager["VideoSink"]):
    """One video file, written beside its name and renamed at `finish`."""

    def __init__(self, path: Path, info: MediaInfo, *, crf: int) -> None:
        """crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually transparent.

        Raises BadInput if the frames of the source differ in size.
        """
        self._path = path
        self._info = info
        self._crf = crf
        self._pixel_format = pixel_format(info.chroma, one_size_hw(info))
        self._end_s = Fraction(0)
        self._stack = ExitStack()
        self._converter = ColourConverter(info.colour)

    def __enter__(self) -> "VideoSink":
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_file(self._path))
            self._container = stack.enter_context(_open_output(partial, self._info.time_base))
            self._stream = add_h264(self._container, self._info, self._info.time_base, {"crf": str(self._crf)})
            self._audio = self._open_audio(stack)
            self._write_header()
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._write_errors():
            picture = self._converter.yuv_from(frame.rgb, self._pixel_format)
            picture.time_base = self._info.time_base
            picture.pts = round(frame.time_s / self._info.time_base)
            picture.duration = round(frame.duration_s / self._info.time_base)
            self._container.mux(self._stream.encode(picture))
            self._end_s = frame.time_s + (frame.duration_s or 1 / self._info.rate)
            if self._audio is not None:
                self._audio.copy_until(frame.time_s)

    def finish(self, *, complete: bool) -> None:
        with self._stack, self._write_errors():
            self._container.mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.copy_until(None if complete else self._end_s)
            self._container.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(_Discarded), self._stack:
            raise _Discarded

    def _open_audio(self, stack: ExitStack) -> AudioCopy | None:
        if self._info.kind != "video" or self._info.path is None:
            return None
        return stack.enter_context(AudioCopy(self._info.path, self._container, self._path))

    def _write_header(self) -> None:
        """Now, not with the first frame: what the file cannot hold is reported before the work begins."""
        try:
            self._container.start_encoding()
        except OSError:
            raise  # of the disk, not of the format: atomic_file reports it
        except FFmpegError as error:
            codecs = " and ".join(stream.codec_context.name for stream in self._container.streams)
            raise BadInput(
                f"cannot write {self._path}: {self._path.suffix} does not take {codecs} ({error.strerror}); "
                "choose a sink that ends in .mkv"
            ) from error

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error


@contextmanager
def _open_output(path: Path, time_base: Fraction) -> Iterator[OutputContainer]:
    """Closes the container at the end of the block; quietly if that fails, since its file is then discarded."""
    container_format = FORMATS[path.suffix.lower()]
    options = {"avoid_negative_ts": "disabled"}  # AAC starts before 0: that must not shift the image as well
    if container_format != "matroska":
        options["movie_timescale"] = str(_movie_timescale(time_base))
    container = av.open(f"file:{path}", "w", format=container_format, options=options)
    try:
        yield container
    finally:
        with suppress(FFmpegError):
            container.close()


def _movie_timescale(time_base: Fraction) -> int:
    """Ticks per second of MP4's edit lists, a multiple of the video's: the default, 1000, would round its start."""
    ticks = time_base.denominator
    return ticks * max(1, -(-10_000 // ticks))
