"""Send a live stream to a server or a player: rtsp://, rtmp:// and udp://."""

from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType

import av
from av.container import OutputContainer
from av.error import ConnectionRefusedError as Refused
from av.error import FFmpegError, HTTPUnauthorizedError

from unblur.runtime.errors import BadInput
from unblur.runtime.h264 import one_size_hw
from unblur.runtime.live.encoder import LiveEncoder
from unblur.runtime.media import MediaInfo, TimedFrame
from unblur.runtime.redact import without_secrets
from unblur.runtime.time_limit import TimeLimit

# scheme -> FFmpeg's format and its options. RTP inside the RTSP connection, as for reading.
PROTOCOLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}),
    "udp": ("mpegts", {}),
}

_PATIENCE_S = 10.0  # with a server that takes nothing


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
        self._hangs = False

    def __enter__(self) -> "PushSink":
        """Connects. BadInput if nobody listens there (UDP does not ask), or the password is wrong."""
        container_format, options = PROTOCOLS[self._url.partition(":")[0]]
        self._container: OutputContainer = av.open(self._url, "w", format=container_format, options=dict(options))
        with ExitStack() as stack:
            self._within = TimeLimit(_PATIENCE_S)
            stack.callback(self._within.close)
            self._push(
                self._connect
            )  # PyAV holds the interpreter's lock here: no time limit ends it, nor does Ctrl-C
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        self._push(lambda: self._encoder.write(frame))

    def finish(self, *, complete: bool) -> None:
        self._push(self._encoder.finish)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._hangs:
            with suppress(BadInput):  # the one that matters was raised by `write` or `finish`
                self._push(self._container.close)
        self._stack.close()

    def _connect(self) -> None:
        self._encoder = LiveEncoder(self._container, self._info, crf=self._crf)

    def _push(self, call: Callable[[], object]) -> None:
        name = without_secrets(self._url)
        try:
            self._within(call)
        except FFmpegError as error:
            # from None: FFmpeg's own message holds the address with its password
            raise BadInput(f"cannot push to {name}: {_explain(error)}") from None
        except TimeoutError:
            self._hangs = True
            raise BadInput(f"cannot push to {name}: it took nothing for {_PATIENCE_S:.0f} seconds") from None


def _explain(error: FFmpegError) -> str:
    if isinstance(error, Refused):
        return "nobody listens there; start the server first"
    if isinstance(error, HTTPUnauthorizedError):
        return "wrong user or password (401); write USER:PASSWORD@ before the host, special characters as %XX"
    return str(error.strerror)
