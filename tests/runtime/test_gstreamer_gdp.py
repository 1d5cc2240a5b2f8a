"""What gdppay writes, byte by byte, and what is no such thing. The real one is read in test_gstreamer_source."""

import os
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.media.gstreamer_source import GdpFrame, GdpReader

CAPS = b"video/x-raw, format=(string)RGB, width=(int)5, height=(int)3, framerate=(fraction)30000/1001\0"
ROWS = np.arange(3 * 16, dtype=np.uint8).reshape(3, 16)  # 15 bytes of pixels and one of padding each


def packet(kind: int, payload: bytes, time_ns: int = 0, major: int = 1) -> bytes:
    return struct.pack(">BBBxHIQ", major, 0, 1, kind, len(payload), time_ns).ljust(62, b"\0") + payload


def read(data: bytes, *, max_pixels: int = 100, end: bool = True) -> Iterator[GdpFrame]:
    """What comes of `data`, written in pieces; end: whether the pipe is closed behind it."""
    read_fd, write_fd = os.pipe()

    def write() -> None:
        for start in range(0, len(data), 50):
            os.write(write_fd, data[start : start + 50])
        if end:
            os.close(write_fd)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield from GdpReader(read_fd, silence_s=0.05, max_pixels=max_pixels)
    finally:
        writer.join()
        os.close(read_fd)
        if not end:
            os.close(write_fd)


def test_pictures_with_padded_rows_and_their_times() -> None:
    event = packet(10318, b"GstEventStreamStart, flags=(GstStreamFlags)GST_STREAM_FLAG_NONE;\0")
    pictures = packet(1, ROWS.tobytes(), 500_000_000) + packet(1, ROWS[::-1].tobytes(), 2**64 - 1)
    first, second = read(event + packet(2, CAPS) + pictures)
    np.testing.assert_array_equal(first.image, ROWS[:, :15].reshape(3, 5, 3))
    np.testing.assert_array_equal(second.image, first.image[::-1])
    assert (first.time_s, second.time_s, first.rate) == (Fraction(1, 2), None, Fraction(30000, 1001))


def test_the_size_may_change_and_the_rate_be_unknown() -> None:
    smaller = CAPS.replace(b"width=(int)5", b"width=(int)4").replace(b"30000/1001", b"0/1")
    data = packet(2, CAPS) + packet(1, ROWS.tobytes()) + packet(2, smaller) + packet(1, bytes(36))
    assert [(picture.image.shape, picture.rate) for picture in read(data)] == [
        ((3, 5, 3), Fraction(30000, 1001)),
        ((3, 4, 3), Fraction(25)),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packet(2, CAPS, major=9), "expected the GStreamer Data Protocol 1, got version 9"),
        (
            packet(2, b"audio/x-raw, format=(string)S16LE\0"),
            "expected RGB, NV12 or I420 frames from the pipeline, got audio/x-raw",
        ),
        (packet(2, CAPS) + packet(1, bytes(45)), "expected 48 bytes a frame from the pipeline, got 45"),
        (packet(2, CAPS) + packet(1, bytes(48))[:-1], "the pipeline ended within a frame"),
        (
            packet(2, CAPS.replace(b"5", b"500")),
            "its frames have 500 x 3 pixels, more than the limit of 100; raise --max",
        ),
    ],
)
def test_what_cannot_be_read(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        list(read(data))


def test_nothing_comes() -> None:
    with pytest.raises(BadInput, match=r"^nothing came for 0 seconds$"):
        list(read(packet(2, CAPS), end=False))
