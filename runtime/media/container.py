"""Containers as FFmpeg opens them: video files, streams, and whether a file was cut short."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError

from unblur.runtime.errors import BadInput

# FFmpeg also reads playlists that open other files and URLs, and takes a text file for ANSI art: containers only.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,gif,yuv4mpegpipe"
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT
_EBML_ID = bytes.fromhex("1a45dfa3")
_SEGMENT_ID = bytes.fromhex("18538067")


def open_input(
    url: str,
    *,
    format: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> InputContainer:
    """Open anything for reading; the one place that does. Raises FFmpegError.

    Tags are text of any encoding: what is not UTF-8 in them becomes a replacement character.
    timeout_s: for the connection, and for each read.
    """
    timeout = None if timeout_s is None else (timeout_s, timeout_s)
    return av.open(url, "r", format=format, options=dict(options or {}), timeout=timeout, metadata_errors="replace")


def open_container(path: Path) -> InputContainer:
    """Open a video file for reading; BadInput if it is missing, empty or no video container."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    try:
        return open_input(f"file:{path}", options=options)
    except FFmpegError as error:
        raise BadInput(f"{path} is not an image or video that can be read, or its index is missing") from error


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


def is_truncated(path: Path) -> bool:
    """True if an MP4, MOV, Matroska or WebM file lacks its end; False for a whole one and for other formats."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start[:4] == _EBML_ID:
            return _matroska_end(file) > size
        if start[4:8] == b"ftyp":
            return _mp4_end(file, size) > size
    return False


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box ends, in bytes from the start."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        box_size = int.from_bytes(header[:4], "big")
        if box_size == 1:
            box_size = int.from_bytes(header[8:16], "big")
        if box_size < 8:  # 0: the box goes on to the end of the file; less than its own header: not a box
            return size
        end += box_size
    return end


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends, in bytes from the start; 0 if it is of unknown size, as in a live recording."""
    file.seek(len(_EBML_ID))
    file.seek(_read_ebml_size(file) or 0, 1)
    if file.read(len(_SEGMENT_ID)) != _SEGMENT_ID:
        return 0
    size = _read_ebml_size(file)
    return 0 if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """A variable-length size: leading zero bits give how many bytes follow the first; None if all bits are 1."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") - (1 << 7 * length)
    return None if value == (1 << 7 * length) - 1 else value
