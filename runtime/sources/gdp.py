"""Read raw pictures from a pipe that GStreamer's `gdppay` writes into (GStreamer Data Protocol 1.0).

A header of 62 bytes, then a payload: the format of what follows, or one picture with its time. Unlike bare pixels
it says where a picture begins, when it was taken, and when the size changes on the way.
"""

import os
import re
import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.live.frame_pool import FramePool

_HEADER = struct.Struct(
    ">BBxxHIQ44x"
)  # version, type and length of the payload, time in ns; the rest is not needed
_MAJOR = 1
_BUFFER, _CAPS = 1, 2
_NO_TIME = 2**64 - 1  # GST_CLOCK_TIME_NONE
_ROW_ALIGNMENT = 4  # GStreamer's for packed RGB
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class Picture:
    """rgb: uint8 (H, W, 3). time_s: on the pipeline's clock; None if it has none. rate: pictures per second."""

    rgb: Frame
    time_s: Fraction | None
    rate: Fraction


@dataclass(frozen=True)
class _Caps:
    """Format of the pictures that follow."""

    height: int
    width: int
    rate: Fraction

    @classmethod
    def parse(cls, text: str) -> "_Caps":
        """From `video/x-raw, format=(string)RGB, width=(int)96, height=(int)64, framerate=(fraction)30/1, ...`."""
        fields = dict(re.findall(r"([\w-]+)=\(\w+\)([^,;\x00]+)", text))
        if fields.get("format") != "RGB" or not {"width", "height"} <= fields.keys():
            raise BadInput(f"expected RGB pictures from the pipeline, got {text}")
        numerator, _, denominator = fields.get("framerate", "0/1").partition("/")
        rate = Fraction(int(numerator), int(denominator))  # 0/1 is a rate that varies
        return cls(int(fields["height"]), int(fields["width"]), rate or _DEFAULT_RATE)

    @property
    def row_bytes(self) -> int:
        return -(-3 * self.width // _ROW_ALIGNMENT) * _ROW_ALIGNMENT


class GdpReader:
    """Pictures in buffers of a pool, until the writer closes the pipe; iterate once."""

    def __init__(self, read_fd: int, *, silence_s: float, max_pixels: int) -> None:
        """silence_s: longest wait for the next byte."""
        self._fd = read_fd
        self._silence_s = silence_s
        self._max_pixels = max_pixels
        self._pool = FramePool()
        self._header = bytearray(_HEADER.size)

    def __iter__(self) -> Iterator[Picture]:
        """Raises BadInput if nothing comes for too long, a picture is too large, or gdppay did not write it."""
        caps: _Caps | None = None
        while self._read_into(memoryview(self._header)):
            major, _, kind, length, time_ns = _HEADER.unpack(self._header)
            if major != _MAJOR:
                raise BadInput(f"expected the GStreamer Data Protocol {_MAJOR}, got version {major}")
            if kind == _BUFFER and caps is not None:
                time_s = None if time_ns == _NO_TIME else Fraction(time_ns, 10**9)
                yield Picture(self._picture(caps, length), time_s, caps.rate)
                continue
            payload = self._payload(length)
            if kind == _CAPS:
                caps = self._checked(_Caps.parse(payload.decode("ascii", "replace")))

    def _picture(self, caps: _Caps, length: int) -> Frame:
        if length != caps.height * caps.row_bytes:
            raise BadInput(
                f"expected {caps.height * caps.row_bytes} bytes a picture from the pipeline, got {length}"
            )
        rows = self._pool.take((caps.height, caps.row_bytes))
        self._read_whole(rows.data.cast("B"))
        return rows[:, : 3 * caps.width].reshape(caps.height, caps.width, 3)

    def _payload(self, length: int) -> bytearray:
        payload = bytearray(length)
        self._read_whole(memoryview(payload))
        return payload

    def _checked(self, caps: _Caps) -> _Caps:
        if caps.height * caps.width > self._max_pixels:
            raise BadInput(
                f"its frames have {caps.width} x {caps.height} pixels, more than the limit of {self._max_pixels}; "
                "raise --max-pixels if you trust it"
            )
        return caps

    def _read_whole(self, into: memoryview) -> None:
        if into and not self._read_into(into):
            raise BadInput("the pipeline ended within a picture")

    def _read_into(self, into: memoryview) -> bool:
        """Fill `into`; False if the pipe has ended before its first byte."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        done = 0
        while done < len(into):
            if not poll.poll(1e3 * self._silence_s):
                raise BadInput(f"nothing came for {self._silence_s:.0f} seconds")
            count = os.readv(self._fd, [into[done:]])
            if count == 0 and done:
                raise BadInput("the pipeline ended within a picture")
            if count == 0:
                return False
            done += count
        return True
