"""A GStreamer pipeline as a source: `gst://v4l2src device=/dev/video0 ! jpegdec`, `csi://0?size=720x1280&fps=30`.

It runs as a child, `gst-launch-1.0`, which writes plain frames into a pipe: GStreamer's own decoders and JetPack's
camera stack stay where they work, and no Python bindings are needed.
"""

import os
import re
import shlex
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType

from av.error import FFmpegError, InvalidDataError

from unblur.runtime.colour import REC709
from unblur.runtime.errors import BadInput
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.redact import without_secrets
from unblur.runtime.source_url import Size
from unblur.runtime.stream_source import Stream, StreamSource

_LAUNCH = "gst-launch-1.0"

# YUV4MPEG2 says the size, the rate and where a frame begins, but not the colours: they are fixed here instead.
_TAIL = "videoconvert ! video/x-raw,format=I420,colorimetry=bt709 ! y4menc ! fdsink sync=false fd="

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
        f"! nvvidconv flip-method={wanted.flip} ! video/x-raw,format=I420"
    )


class GStreamerSource(AbstractContextManager["GStreamerSource"]):
    """What comes out of a pipeline. If its frames change size the source ends with an error: open it again."""

    def __init__(self, pipeline: str, name: str, *, max_pixels: int) -> None:
        """Starts the pipeline and waits for its first frame.

        pipeline: as for gst-launch-1.0 on a command line, quotes included, without a sink.
        Raises BadInput with what GStreamer says, or if it is not installed.
        """
        self._name = without_secrets(name)
        with ExitStack() as stack:
            read_fd, write_fd = os.pipe()
            stack.callback(os.close, read_fd)
            try:
                self._child = stack.enter_context(_Child(_command(pipeline, write_fd, self._name), write_fd))
            finally:
                os.close(write_fd)  # the child has its own: the pipe ends when that does
            os.set_blocking(read_fd, False)  # FFmpeg looks at its timeout only between attempts to read
            try:
                self._frames = stack.enter_context(
                    StreamSource(_stream(read_fd, self._name), max_pixels=max_pixels)
                )
            except BadInput as error:
                raise self._child.error(self._name) or error from None
            self._stack = stack.pop_all()

    @property
    def info(self) -> MediaInfo:
        return self._frames.info

    @property
    def lost_frames(self) -> int:
        return self._frames.lost_frames

    def __iter__(self) -> Iterator[TimedFrame]:
        """Returns at the end of the pipeline; raises BadInput if it failed."""
        try:
            yield from self._frames
        except BadInput as error:
            raise self._child.error(self._name) or error from None
        failed = self._child.error(self._name)
        if failed is not None:
            raise failed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _stream(read_fd: int, name: str) -> Stream:
    return Stream(f"pipe:{read_fd}", name, "yuv4mpegpipe", explain=_explain, colour=REC709)


def _explain(error: FFmpegError) -> str:
    if isinstance(error, InvalidDataError):
        return "its frames have changed in size or rate"
    return str(error.strerror)


def _command(pipeline: str, write_fd: int, name: str) -> list[str]:
    try:
        elements = shlex.split(pipeline)
    except ValueError as error:
        raise BadInput(f"{name} is no pipeline: {error}") from error
    if not elements:
        raise BadInput(f"{name} is an empty pipeline; write one as for {_LAUNCH}, without its sink")
    return [_LAUNCH, "-q", *elements, "!", *f"{_TAIL}{write_fd}".split()]


class _Child(AbstractContextManager["_Child"]):
    """A process in a group of its own, gone with everything it started at the end of the block or of ours."""

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
                "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
            ) from error
        self._said: deque[str] = deque(maxlen=_LINES)
        self._listener = threading.Thread(target=self._listen, name="unblur-gstreamer", daemon=True)
        self._listener.start()
        self._end = weakref.finalize(self, _end_group, self._process)  # also when Python exits

    def error(self, name: str) -> BadInput | None:
        """Why the pipeline ended, or is just about to; None if it is well or has come to its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
            self._listener.join(_GOODBYE_S)
        for found in map(_TELLING.match, self._said):
            if found is not None:
                return BadInput(f"cannot read {name}: {without_secrets(found[found.lastindex or 0])}")
        if self._process.returncode in (None, 0):
            return None
        return BadInput(f"cannot read {name}: {_LAUNCH} ended with {self._process.returncode}")

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
