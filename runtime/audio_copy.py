"""The sound of a video, copied packet by packet into the restored one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from unblur.runtime.errors import BadInput
from unblur.runtime.sources.video_decoder import open_container, origin_s


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
