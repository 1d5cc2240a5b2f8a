"""A GStreamer pipeline as a source: `gst://v4l2src device=/dev/video0 ! jpegdec`, `csi://0?size=720x1280&fps=30`.

It runs as a child, `gst-launch-1.0`, which writes raw images into a pipe: GStreamer's own decoders and JetPack's
camera stack stay where they work, and no Python bindings are needed.
"""

import os
import re
import select
import shlex
import signal
import struct
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import cast, get_args

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame, FramePool
from unblur.runtime.media.interfaces import TIME_BASE, MediaInfo, StreamClock, TimedFrame
from unblur.runtime.media.url import Size, without_secrets
from unblur.runtime.yuv import Matrix, YuvFormat, YuvFrame, YuvLayout

_HEADER = struct.Struct(
    ">BBxxHIQ44x"
)  # version, type and length of the payload, time in ns; the rest is not needed
_MAJOR = 1
_BUFFER, _CAPS = 1, 2
_NO_TIME = 2**64 - 1  # GST_CLOCK_TIME_NONE
_ROW_ALIGNMENT = 4  # GStreamer's for packed RGB
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class GdpFrame:
    """image: uint8 RGB (H, W, 3), or YUV as the pipeline gives it. time_s: on the pipeline's clock; None if it has
    none. rate: images per second.
    """

    image: Frame | YuvFrame
    time_s: Fraction | None
    rate: Fraction


@dataclass(frozen=True)
class _Caps:
    """Format of the images that follow."""

    height: int
    width: int
    rate: Fraction
    yuv: YuvLayout | None

    @classmethod
    def parse(cls, text: str) -> "_Caps":
        """From `video/x-raw, format=(string)RGB, width=(int)96, height=(int)64, framerate=(fraction)30/1, ...`."""
        fields = dict(re.findall(r"([\w-]+)=\(\w+\)([^,;\x00]+)", text))
        pixels = fields.get("format")
        if pixels not in ("RGB", *get_args(YuvFormat)) or not {"width", "height"} <= fields.keys():
            raise BadInput(f"expected RGB, NV12 or I420 frames from the pipeline, got {text}")
        numerator, _, denominator = fields.get("framerate", "0/1").partition("/")
        rate = Fraction(int(numerator), int(denominator))  # 0/1 is a rate that varies
        height, width = int(fields["height"]), int(fields["width"])
        yuv = None
        if pixels != "RGB":
            matrix, full_range = _colours(fields.get("colorimetry", ""), height)
            yuv = YuvLayout.of(cast(YuvFormat, pixels), (height, width), matrix, full_range=full_range)
        return cls(height, width, rate or _DEFAULT_RATE, yuv)

    @property
    def row_bytes(self) -> int:
        return -(-3 * self.width // _ROW_ALIGNMENT) * _ROW_ALIGNMENT

    @property
    def nbytes(self) -> int:
        return self.height * self.row_bytes if self.yuv is None else self.yuv.nbytes


# GStreamer's names, and the numbers RANGE:MATRIX:TRANSFER:PRIMARIES of those that have none; 0 is not known.
_NAMED = {"bt601": "2:4:16:4", "bt709": "2:3:5:1"}
_MATRICES: Mapping[str, Matrix] = {"4": "601", "3": "709"}
_SD_HEIGHT = 576


def _colours(colorimetry: str, height: int) -> tuple[Matrix, bool]:
    """Matrix and whether the range is full; where nothing is said, what GStreamer takes for that height."""
    numbers = _NAMED.get(colorimetry, colorimetry or "0:0:0:0").split(":")
    if len(numbers) == 4 and numbers[1] == "0":
        numbers[1] = "4" if height <= _SD_HEIGHT else "3"
    if len(numbers) != 4 or numbers[1] not in _MATRICES:
        raise BadInput(
            f"the frames of the pipeline have the colours '{colorimetry}', expected BT.601 or BT.709; add "
            "! videoconvert ! video/x-raw,format=RGB"
        )
    return _MATRICES[numbers[1]], numbers[0] == "1"


class GdpReader:
    """Pictures in buffers of a pool, until the writer closes the pipe; iterate once."""

    def __init__(self, read_fd: int, *, silence_s: float, max_pixels: int) -> None:
        """silence_s: longest wait for the next byte."""
        self._fd = read_fd
        self._silence_s = silence_s
        self._max_pixels = max_pixels
        self._pool = FramePool()
        self._header = bytearray(_HEADER.size)

    def __iter__(self) -> Iterator[GdpFrame]:
        """Raises BadInput if nothing comes for too long, an image is too large, or gdppay did not write it."""
        caps: _Caps | None = None
        while self._read_into(memoryview(self._header)):
            major, _, kind, length, time_ns = _HEADER.unpack(self._header)
            if major != _MAJOR:
                raise BadInput(f"expected the GStreamer Data Protocol {_MAJOR}, got version {major}")
            if kind == _BUFFER and caps is not None:
                time_s = None if time_ns == _NO_TIME else Fraction(time_ns, 10**9)
                yield GdpFrame(self._image(caps, length), time_s, caps.rate)
                continue
            payload = self._payload(length)
            if kind == _CAPS:
                caps = self._checked(_Caps.parse(payload.decode("ascii", "replace")))

    def _image(self, caps: _Caps, length: int) -> Frame | YuvFrame:
        if length != caps.nbytes:
            raise BadInput(f"expected {caps.nbytes} bytes a frame from the pipeline, got {length}")
        data = self._pool.take((caps.nbytes,))
        self._read_whole(data.data)
        if caps.yuv is not None:
            return YuvFrame(data, caps.yuv)
        rows = data.reshape(caps.height, caps.row_bytes)
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
            raise BadInput("the pipeline ended within a frame")

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
                raise BadInput("the pipeline ended within a frame")
            if count == 0:
                return False
            done += count
        return True


_LAUNCH = "gst-launch-1.0"

# Nothing is converted here where the pipeline gives one of these.
_TAIL = "videoconvert ! video/x-raw,format={NV12,I420,RGB} ! gdppay ! fdsink sync=false fd="

_SILENCE_S = 10.0  # longer than the patience of the capture, which then reports why
_GOODBYE_S = 1.0  # for a pipeline to stop by itself: nvargus-daemon needs that, or the camera stays taken
_LINES = 100  # of what it printed, the newest

# What gst-launch prints of an element that failed, of a pipeline it cannot build, and nvarguscamerasrc by itself.
_TELLING = re.compile(r"ERROR: from element \S*/\w+:(.+)|WARNING: erroneous pipeline: (.+)|Error generated\.(.+)")


@dataclass(frozen=True)
class CsiFormat:
    """Options of csi://SENSOR. flip: nvvidconv's flip-method, 0 none, 2 half a turn."""

    size: Size = field(default_factory=lambda: Size(720, 1280))
    fps: Fraction = Fraction(30)
    flip: int = 0


def csi_pipeline(sensor: int, wanted: CsiFormat) -> str:
    """The pipeline of a camera on a Jetson's CSI connector, up to frames in the memory of the CPU."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),format=NV12,"
        f"width={wanted.size.width},height={wanted.size.height},"
        f"framerate={wanted.fps.numerator}/{wanted.fps.denominator} "
        f"! nvvidconv flip-method={wanted.flip} ! video/x-raw,format=NV12"
    )


class GStreamerSource(AbstractContextManager["GStreamerSource"]):
    """What comes out of a pipeline, in whatever size it comes."""

    lost_frames = 0

    def __init__(self, pipeline: str, name: str, *, max_pixels: int) -> None:
        """Starts the pipeline and waits for its first frame.

        pipeline: as for gst-launch-1.0 on a command line, quotes included, without a sink.
        Raises BadInput with what GStreamer says, if it is not installed, or if nothing comes for 10 seconds.
        """
        self._name = without_secrets(name)
        self._clock = StreamClock()
        with ExitStack() as stack:
            read_fd, write_fd = os.pipe()
            stack.callback(os.close, read_fd)
            try:
                self._child = stack.enter_context(_GstLaunch(_command(pipeline, write_fd, self._name), write_fd))
            finally:
                os.close(write_fd)  # the child has its own: the pipe ends when that does
            self._pictures = self._read(GdpReader(read_fd, silence_s=_SILENCE_S, max_pixels=max_pixels))
            stack.callback(self._pictures.close)  # it refers to self: unclosed, a cycle that keeps the buffers
            self._first = next(self._pictures, None)
            if self._first is None:
                raise BadInput(f"{self._name} ended before its first frame")
            self.info = _info(self._first, self._name)
            self._stack = stack.pop_all()

    def __iter__(self) -> Iterator[TimedFrame]:
        """Returns at the end of the pipeline; raises BadInput if it failed."""
        picture, self._first = self._first, None
        while picture is not None:
            yield TimedFrame(picture.image, self._clock.at(picture.time_s), 1 / picture.rate)
            picture = next(self._pictures, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _read(self, reader: GdpReader) -> Generator[GdpFrame, None, None]:
        """What comes, then why it ended: the pipeline knows better than who reads it."""
        seen = None
        try:
            yield from reader
        except BadInput as error:
            seen = str(error)
        why = self._child.error() or seen
        if why is not None:
            hint = "; apt-get install gstreamer1.0-plugins-bad" if '"gdppay"' in why else ""
            raise BadInput(f"cannot read {self._name}: {without_secrets(why)}{hint}")


def _info(first: GdpFrame, name: str) -> MediaInfo:
    height, width = first.image.shape[:2]
    return MediaInfo(
        path=None,
        kind="live",
        size_hw=(height, width),
        frames=None,
        rate=first.rate,
        time_base=TIME_BASE,
        url=name,
    )


def _command(pipeline: str, write_fd: int, name: str) -> list[str]:
    try:
        elements = shlex.split(pipeline)
    except ValueError as error:
        raise BadInput(f"{name} is not a pipeline: {error}") from error
    if not elements:
        raise BadInput(f"{name} is an empty pipeline; write one as for {_LAUNCH}, without its sink")
    return [_LAUNCH, "-q", *elements, "!", *f"{_TAIL}{write_fd}".split()]


class _GstLaunch(AbstractContextManager["_GstLaunch"]):
    """A process in a group of its own, ended with everything it started at the end of the block or of Python."""

    def __init__(self, command: Sequence[str], write_fd: int) -> None:
        """BadInput if the program is not installed."""
        try:
            # frames have a pipe of their own: nvarguscamerasrc prints on stdout, errors too
            self._process = subprocess.Popen(
                command,
                pass_fds=(write_fd,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise BadInput(
                f"{command[0]} is not installed; on Debian and Ubuntu: "
                "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
            ) from error
        self._said: deque[str] = deque(maxlen=_LINES)
        self._listener = threading.Thread(target=self._listen, name="unblur-gstreamer", daemon=True)
        self._listener.start()
        self._end = weakref.finalize(self, _end_group, self._process)  # also when Python exits

    def error(self) -> str | None:
        """Why the pipeline ended, or is just about to; None if it is well or has come to its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
            self._listener.join(_GOODBYE_S)
        for found in map(_TELLING.match, self._said):
            if found is not None:
                return found[found.lastindex or 0].strip()
        if self._process.returncode in (None, 0):
            return None
        return f"{_LAUNCH} ended with {self._process.returncode}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._listener.join(_GOODBYE_S)

    def _listen(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                self._said.extend(line.strip() for line in lines)


def _end_group(process: "subprocess.Popen[str]") -> None:
    """Ask, wait, then kill."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:  # else its number may belong to others by now
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GOODBYE_S)
