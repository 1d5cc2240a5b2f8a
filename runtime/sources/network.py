"""Cameras behind a network: RTSP, and MJPEG or MPEG-TS over HTTP."""

import errno

from av.error import FFmpegError, HTTPUnauthorizedError, InvalidDataError

from unblur.runtime.redact import without_secrets
from unblur.runtime.sources.stream import Stream, StreamSource

# RTP inside the RTSP connection: UDP loses packets, and firewalls do not let it in. A server without it gets UDP.
# FFmpeg's "nobuffer" is left out on purpose: it throws away what was read to find out about the stream, so that the
# first frame waits for the next key frame; the live loop takes the newest of what has piled up anyway.
_RTSP = {"rtsp_flags": "prefer_tcp"}

# A playlist (HLS, DASH) could open files of this machine.
_HTTP = {"format_whitelist": "mpegts,mpjpeg", "protocol_whitelist": "http,https,httpproxy,tls,tcp"}


def open_rtsp(url: str, *, max_pixels: int) -> StreamSource:
    """A camera or server at rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH. Raises what StreamSource raises."""
    return StreamSource(Stream(url, without_secrets(url), options=_RTSP, explain=_explain), max_pixels=max_pixels)


def open_http(url: str, *, max_pixels: int) -> StreamSource:
    """MJPEG (multipart/x-mixed-replace) or MPEG-TS at http[s]://... Raises what StreamSource raises."""
    return StreamSource(Stream(url, without_secrets(url), options=_HTTP, explain=_explain), max_pixels=max_pixels)


def _explain(error: FFmpegError) -> str:
    if isinstance(error, HTTPUnauthorizedError):
        return "wrong user or password (401); write USER:PASSWORD@ before the host, special characters as %XX"
    if isinstance(error, InvalidDataError):
        return "it answers, but not with video that can be read (over HTTP that is MJPEG or MPEG-TS)"
    if error.errno == errno.EIO:
        return "there is no such host, or the connection broke"
    return str(error.strerror)
