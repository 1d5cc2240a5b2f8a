"""Send a live stream to a server or a player: rtsp://, rtmp:// and udp://."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, TimeoutError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import av
from av.container import OutputContainer
from av.error import ConnectionRefusedError as Refused
from av.error import FFmpegError, HTTPUnauthorizedError

from unblur.runtime.errors import BadInput
from unblur.runtime.media.encode import LiveEncoder, one_size_hw
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.url import without_secrets


class TimeLimit:
    """Makes calls one after the other, in a thread of its own that is left behind if one of them hangs."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], object]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="unblur-push", daemon=True).start()

    def __call__(self, call: Callable[[], object]) -> None:
        """Wait for `call`, and raise what it raises; concurrent.futures.TimeoutError after the limit."""
        done: Future[Any] = Future()
        self._calls.put((done, call))
        done.result(self._limit_s)

    def close(self) -> None:
        """End the thread, once it gets to it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            done, call = job
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - goes to who waits for it
                done.set_exception(error)
            del job, done, call  # let go of the frame before the next one comes


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


# Each fragment is a key frame and what follows, and carries its own index: no end is needed to play the file.
# Clusters do that for Matroska, after at most that many milliseconds. Both go to the kernel once they are whole.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_CLUSTERS = {"cluster_time_limit": "1000", "flush_packets": "1"}
_OPTIONS = {"mp4": _FRAGMENTS, "mov": _FRAGMENTS, "matroska": _CLUSTERS}


class RecordingSink(AbstractContextManager["RecordingSink"]):
    """Written under its own name from the start, unlike a file made from a file: there is no end to wait for.

    It can be played when the disk is full, and after a kill, which costs two seconds at most.
    """

    def __init__(self, path: Path, info: MediaInfo, container_format: str, *, crf: int) -> None:
        """container_format: FFmpeg's "mp4", "mov" or "matroska". crf: of x264, 0 to 51.

        Raises BadInput if the frames of the source differ in size.
        """
        one_size_hw(info)
        self._path = path
        self._info = info
        self._format = container_format
        self._crf = crf

    def __enter__(self) -> "RecordingSink":
        """Begins the file; one of that name is replaced. BadInput if it cannot be written."""
        if not self._path.parent.is_dir():
            raise BadInput(
                f"cannot write {self._path}: the folder {self._path.parent} does not exist; create it first"
            )
        self._container: OutputContainer = av.open(
            f"file:{self._path}", "w", format=self._format, options=dict(_OPTIONS[self._format])
        )
        try:
            self._encoder = LiveEncoder(self._container, self._info, crf=self._crf)
        except FFmpegError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._write_errors():
            self._encoder.write(frame)

    def finish(self, *, complete: bool) -> None:
        with self._write_errors():
            self._encoder.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps what was written."""
        with suppress(FFmpegError):  # the one that matters was raised by `write` or `finish`
            self._container.close()
        if not self._encoder.end_s:
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            held_s = float(self._encoder.end_s)
            raise BadInput(
                f"cannot write {self._path}: {error.strerror}; it holds the first {held_s:.1f} s"
            ) from error
