"""Whether a video file ends before its container says it does: a download or a copy that was interrupted.

FFmpeg reads such a file as one that ends there, without an error, so the sizes in the headers are compared with
the size of the file. Sources: ISO/IEC 14496-12 (boxes of MP4 and MOV), RFC 8794 (EBML, of Matroska and WebM).
"""

from pathlib import Path
from typing import BinaryIO

_EBML_ID = bytes.fromhex("1a45dfa3")
_SEGMENT_ID = bytes.fromhex("18538067")


def is_cut_short(path: Path) -> bool:
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
    """A variable-length size: leading zero bits tell how many bytes follow the first; None if all bits are 1."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") - (1 << 7 * length)
    return None if value == (1 << 7 * length) - 1 else value
