"""A camera that Linux knows: `v4l2:///dev/video0?size=720x1280&fps=30&format=mjpeg` (Video4Linux2)."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError

from unblur.runtime.errors import BadInput
from unblur.runtime.sources.stream import Stream, StreamSource
from unblur.runtime.sources.url import Size

_DEMUXER = "video4linux2,v4l2"

_REASONS: Mapping[int, str] = {
    errno.EACCES: "no permission; add yourself to its group: sudo usermod -aG video $USER, then log in again",
    errno.EBUSY: "another program is using it; close that first",
    errno.EINVAL: "it does not offer this size, rate or format; `v4l2-ctl --list-formats-ext` shows what it does",
    errno.ENODEV: "the camera was unplugged",
    errno.ENOTTY: "it is no camera",
}


@dataclass(frozen=True)
class CameraFormat:
    """Options of the source. format: FFmpeg's name of a codec or pixel format, as mjpeg, yuyv422 or nv12.

    The default is what USB cameras need for 720p at 30 frames per second: uncompressed they give 10.
    """

    size: Size = field(default_factory=lambda: Size(720, 1280))
    fps: Fraction = Fraction(30)
    format: str = "mjpeg"


def open_v4l2(device: Path, wanted: CameraFormat, name: str, *, max_pixels: int) -> StreamSource:
    """The camera at `device`. name: the address that was given, for messages.

    The driver may choose a size and a rate near those wanted. Raises BadInput if there is no such camera, it is in
    use, may not be opened, or does not offer the format, or where PyAV was built without Video4Linux.
    """
    if _DEMUXER not in av.formats_available:
        raise BadInput(f"cannot read {name}: this PyAV has no Video4Linux; try gst://v4l2src device={device}")
    if not device.exists():
        raise BadInput(f"cannot read {name}: there is no {device}; {_cameras()}")
    options = {
        "video_size": f"{wanted.size.width}x{wanted.size.height}",
        "framerate": str(wanted.fps),
        "input_format": wanted.format,
    }
    return StreamSource(Stream(str(device), name, "v4l2", options, _explain), max_pixels=max_pixels)


def _cameras() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"this machine has {', '.join(found)}" if found else "this machine has no camera that Linux knows"


def _explain(error: FFmpegError) -> str:
    return _REASONS.get(error.errno or 0, str(error.strerror))
