"""A video file as a sink: new images beside all else that the source holds, at its times and in its colours."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.media.colour import ColourConverter
from unblur.runtime.media.container import open_container, origin_s
from unblur.runtime.media.encode import add_video, one_size_hw, pixel_format
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame

_log = logging.getLogger(__name__)
_OWN_TAGS = {"encoder", "duration", "major_brand", "minor_version", "compatible_brands"}  # the muxer writes its own


class StreamCopy(AbstractContextManager["StreamCopy"]):
    """All that a file holds beside its video: sound, subtitles, attachments, chapters and tags.

    It reads the file a second time rather than share the video's demuxer, so that the sound follows the frames
    that were written, wherever these are delayed, dropped or stopped.
    """

    def __init__(self, source: Path, target: OutputContainer, target_path: Path) -> None:
        """Adds the streams to `target`, whose header must not be written yet and whose first stream is the video.

        Raises BadInput if that container cannot hold the sound of the source; subtitles are left out then, which
        the log reports.
        """
        self._source = source
        self._container = open_container(source)
        self._origin_s = origin_s(self._container)
        self._target = target
        try:
            self._targets = {stream.index: added for stream, added in self._add_streams(target_path)}
        except BadInput:
            self._container.close()
            raise
        _copy_tags(self._container.streams.best("video"), target.streams[0])
        target.metadata.update(_tags(self._container.metadata))
        target.set_chapters(self._container.chapters())
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

    def _add_streams(self, target_path: Path) -> Iterator[tuple[Stream, Stream]]:
        for stream in self._container.streams:
            if stream.type not in ("audio", "subtitle", "attachment"):
                continue
            codec = stream.codec_context.name if stream.codec_context else "file"
            added = None
            try:
                if stream.type != "attachment" or target_path.suffix.lower() == ".mkv":
                    added = self._target.add_stream_from_template(stream)
            except (ValueError, FFmpegError) as error:
                if stream.type == "audio":
                    raise BadInput(
                        f"{target_path.suffix} cannot hold the sound of {self._source} ({codec}); "
                        "choose a sink that ends in .mkv"
                    ) from error
            if added is None:
                _log.info("%s: %s (%s) does not fit %s", self._source, stream.type, codec, target_path.suffix)
            else:
                _copy_tags(stream, added)
                yield stream, added

    def _read(self) -> "Iterator[Packet[Stream]]":
        streams = [stream for stream in self._container.streams if stream.index in self._targets]
        if not streams:
            return
        try:
            for packet in self._container.demux(streams):
                if packet.size and not packet.is_corrupt:
                    _shift(packet, -self._origin_s)
                    yield packet
        except FFmpegError:
            return  # the file cannot be read further; the video's decoder meets the same place and reports it


def _tags(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name.lower() not in _OWN_TAGS}


def _copy_tags(source: Stream | None, target: Stream) -> None:
    if source is not None:
        target.metadata.update(_tags(source.metadata))
        target.disposition = source.disposition


def _start_s(packet: "Packet[Stream]") -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return (stamp or 0) * packet.time_base


def _shift(packet: "Packet[Stream]", offset_s: Fraction) -> None:
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
        """crf: constant rate factor, 0 (lossless) to 51; 18 is visually transparent. More than 8 bits are HEVC.

        Raises BadInput if the frames of the source differ in size.
        """
        self._path = path
        self._info = info
        self._crf = crf
        self._pixel_format = pixel_format(info.chroma, one_size_hw(info), info.bits)
        self._end_s = Fraction(0)
        self._stack = ExitStack()
        self._converter = ColourConverter(info.colour)

    def __enter__(self) -> "VideoSink":
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_file(self._path))
            self._container = stack.enter_context(_open_output(partial, self._info.time_base))
            self._stream = add_video(self._container, self._info, self._info.time_base, {"crf": str(self._crf)})
            self._others = self._copy_others(stack)
            self._write_header()
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._write_errors():
            image = self._converter.yuv_from(frame.rgb, self._pixel_format)
            image.time_base = self._info.time_base
            image.pts = round(frame.time_s / self._info.time_base)
            image.duration = round(frame.duration_s / self._info.time_base)
            self._container.mux(self._stream.encode(image))
            self._end_s = frame.time_s + (frame.duration_s or 1 / self._info.rate)
            if self._others is not None:
                self._others.copy_until(frame.time_s)

    def finish(self, *, complete: bool) -> None:
        with self._stack, self._write_errors():
            self._container.mux(self._stream.encode(None))
            if self._others is not None:
                self._others.copy_until(None if complete else self._end_s)
            self._container.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(_Discarded), self._stack:
            raise _Discarded

    def _copy_others(self, stack: ExitStack) -> StreamCopy | None:
        if self._info.kind != "video" or self._info.path is None:
            return None
        return stack.enter_context(StreamCopy(self._info.path, self._container, self._path))

    def _write_header(self) -> None:
        """Now, not with the first frame: what the file cannot hold is reported before the work begins."""
        try:
            self._container.start_encoding()
        except OSError:
            raise  # of the disk, not of the format: atomic_file reports it
        except FFmpegError as error:
            contexts = [stream.codec_context for stream in self._container.streams]
            codecs = " and ".join(context.name for context in contexts if context is not None)
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
