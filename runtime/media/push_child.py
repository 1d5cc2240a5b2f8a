"""The process that pushes a stream: it encodes and sends what `push_sink.PushSink` gives it on stdin.

FFmpeg's muxers hold Python's interpreter lock while they connect and while a server takes nothing. Here that stops
nobody: the parent waits as long as it likes, and kills.

In: one pickled `PushJob`, then for each frame a FRAME_HEADER and its pixels; a header of zeros finishes the stream.
Out: a line for the job and for each of these: "ok", or why it could not be done.
"""

import ctypes
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.error import ConnectionRefusedError as Refused
from av.error import FFmpegError, HTTPUnauthorizedError

from unblur.runtime.media.encode import LiveEncoder
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame

FRAME_HEADER = struct.Struct(">IIqq")  # height, width, time as a fraction of a second

# scheme -> FFmpeg's format and its options. RTP inside the RTSP connection, as for reading.
PROTOCOLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}),
    "udp": ("mpegts", {}),
}

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class PushJob:
    """Where to, and what. url: of a scheme in PROTOCOLS; may hold a password. crf: of x264, 0 to 51."""

    url: str
    info: MediaInfo
    crf: int


def main() -> None:
    """Serve one parent until it closes stdin or finishes the stream; never outlive it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _reply("ready")
    try:
        _push(pickle.load(sys.stdin.buffer), sys.stdin.buffer)
    except FFmpegError as error:
        _reply(_explain(error))


def _push(job: PushJob, frames: BinaryIO) -> None:
    container_format, options = PROTOCOLS[job.url.partition(":")[0].lower()]
    with av.open(job.url, "w", format=container_format, options=dict(options)) as container:
        encoder = LiveEncoder(container, job.info, crf=job.crf)
        _reply("ok")
        while header := frames.read(FRAME_HEADER.size):
            height, width, numerator, denominator = FRAME_HEADER.unpack(header)
            if height == 0:
                encoder.finish()
                _reply("ok")
                return
            pixels = np.frombuffer(frames.read(3 * height * width), np.uint8)
            encoder.write(TimedFrame(pixels.reshape(height, width, 3), Fraction(numerator, denominator)))
            _reply("ok")


def _explain(error: FFmpegError) -> str:
    """Without FFmpeg's own message, which holds the address with its password."""
    if isinstance(error, Refused):
        return "nobody listens there; start the server first"
    if isinstance(error, HTTPUnauthorizedError):
        return "wrong user or password (401); write USER:PASSWORD@ before the host, special characters as %XX"
    return str(error.strerror)


def _reply(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
