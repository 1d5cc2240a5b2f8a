"""Send a live stream to a server or a player: rtsp://, rtmp:// and udp://."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType

import av
from av.container import OutputContainer
from av.error import ConnectionRefusedError as Refused
from av.error import FFmpegError, HTTPUnauthorizedError

from unblur.runtime.errors import BadInput
from unblur.runtime.h264 import one_size_hw
from unblur.runtime.live_encoder import LiveEncoder
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.redact import without_secrets

# scheme -> FFmpeg's format and its options. RTP inside the RTSP connection, as for reading.
PROTOCOLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}),
    "udp": ("mpegts", {}),
}


class PushSink(AbstractContextManager["PushSink"]):
    """H.264 over the network, without delay. It ends with the connection: what restarts it connects again."""

    def __init__(self, url: str, info: MediaInfo, *, crf: int) -> None:
        """url: of a scheme in PROTOCOLS; may hold a password. crf: of x264, 0 to 51.

        Raises BadInput if the frames of the source differ in size.
        """
        one_size_hw(info)
        self._url = url
        self._info = info
        self._crf = crf

    def __enter__(self) -> "PushSink":
        """Connects. BadInput if nobody listens there (UDP does not ask), or the password is wrong."""
        container_format, options = PROTOCOLS[self._url.partition(":")[0]]
        self._container: OutputContainer = av.open(self._url, "w", format=container_format, options=dict(options))
        with self._push_errors():
            self._encoder = LiveEncoder(self._container, self._info, crf=self._crf)
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._push_errors():
            self._encoder.write(frame)

    def finish(self, *, complete: bool) -> None:
        with self._push_errors():
            self._encoder.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FFmpegError):
            self._container.close()

    @contextmanager
    def _push_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            # from None: FFmpeg's own message holds the address with its password
            raise BadInput(f"cannot push to {without_secrets(self._url)}: {_explain(error)}") from None


def _explain(error: FFmpegError) -> str:
    if isinstance(error, Refused):
        return "nobody listens there; start the server first"
    if isinstance(error, HTTPUnauthorizedError):
        return "wrong user or password (401); write USER:PASSWORD@ before the host, special characters as %XX"
    return str(error.strerror)
