"""Send a live stream to a server or a player: rtsp://, rtmp:// and udp://."""

import fcntl
import logging
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from types import TracebackType

from unblur.runtime.errors import BadInput
from unblur.runtime.media.encode import one_size_hw
from unblur.runtime.media.interfaces import MediaInfo, Sink, TimedFrame
from unblur.runtime.media.push_child import FRAME_HEADER, PushJob
from unblur.runtime.media.url import without_secrets

_log = logging.getLogger(__name__)

_START_S = 30.0  # for Python to start and import FFmpeg; a Jetson that boots takes seconds
_PATIENCE_S = 4.0  # with a server that takes nothing; below the 5 s in which a signal must end the loop
_PIPE_BYTES = 1 << 20
_FINISH_FRAME = FRAME_HEADER.pack(0, 0, 0, 1)


class PushSink(AbstractContextManager["PushSink"]):
    """H.264 over the network, without delay, from a process of its own. It ends with the connection."""

    def __init__(self, url: str, info: MediaInfo, *, crf: int) -> None:
        """url: of a scheme in PROTOCOLS; may hold a password. crf: of x264, 0 to 51.

        Raises BadInput if the frames of the source differ in size.
        """
        one_size_hw(info)
        self._job = PushJob(url, info, crf)
        self._name = without_secrets(url)

    def __enter__(self) -> "PushSink":
        """Connects. BadInput if nobody listens there (UDP does not ask), or the password is wrong."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unblur.runtime.media.push_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        try:
            self._in, self._out = _fd(self._process.stdin), _fd(self._process.stdout)
            os.set_blocking(self._in, False)
            _widen(self._in)
            self._exchange(b"", _START_S, expected="ready")
            self._exchange(pickle.dumps(self._job), _PATIENCE_S)
        except BaseException:
            self._kill()
            raise
        return self

    def write(self, frame: TimedFrame) -> None:
        """Raises BadInput if the connection broke, or the server takes nothing for 4 seconds."""
        height, width = frame.rgb.shape[:2]
        header = FRAME_HEADER.pack(height, width, frame.time_s.numerator, frame.time_s.denominator)
        self._exchange(header + frame.rgb.tobytes(), _PATIENCE_S)

    def finish(self, *, complete: bool) -> None:
        self._exchange(_FINISH_FRAME, _PATIENCE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _exchange(self, message: bytes, patience_s: float, *, expected: str = "ok") -> None:
        """Send a message and wait for the answer, both within `patience_s`."""
        deadline_s = time.monotonic() + patience_s
        with suppress(BrokenPipeError):  # its last line says why it ended
            self._send(memoryview(message), deadline_s)
        reply = self._receive(deadline_s)
        if reply != expected:
            raise BadInput(f"cannot push to {self._name}: {reply or 'the process that pushes ended'}")

    def _send(self, message: memoryview, deadline_s: float) -> None:
        while message:
            self._wait(self._in, select.POLLOUT, deadline_s)
            with suppress(BlockingIOError):
                message = message[os.write(self._in, message) :]

    def _receive(self, deadline_s: float) -> str:
        reply = b""
        while not reply.endswith(b"\n"):
            self._wait(self._out, select.POLLIN, deadline_s)
            read = os.read(self._out, 4096)
            if not read:
                break
            reply += read
        return reply.decode(errors="replace").strip()

    def _wait(self, fd: int, event: int, deadline_s: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(1e3 * max(0.0, deadline_s - time.monotonic())):
            raise BadInput(f"cannot push to {self._name}: it took nothing for {_PATIENCE_S:.0f} seconds")

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _widen(pipe_fd: int) -> None:
    """Let a pipe hold more of a frame than 64 KiB; less is only slower."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _fd(pipe: object) -> int:
    return pipe.fileno()  # type: ignore[attr-defined,no-any-return]


_FIRST_WAIT_S, _MOST_WAIT_S = 1.0, 30.0
_CONNECT_S = 3.0  # that the start waits for a first connection, to report a wrong address; below _PATIENCE_S
_FLUSH_S = 1.0


class RetryingSink(AbstractContextManager["RetryingSink"]):
    """A sink that must not stop the loop: it gets the newest frame in a thread of its own.

    One that fails or is stuck is dropped and opened again, with a growing wait; frames are skipped meanwhile.
    """

    def __init__(self, open_sink: Callable[[], Sink]) -> None:
        """open_sink: called for every attempt; what it gives raises BadInput when it fails."""
        self._open_sink = open_sink
        self._frame: TimedFrame | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._connected = False
        self._first_error: BadInput | None = None

    def __enter__(self) -> "RetryingSink":
        """Raises BadInput if the first attempt fails within 3 seconds; a server may be stuck for longer."""
        self._thread = threading.Thread(target=self._run, name="unblur-push", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._first_error is not None, _CONNECT_S)
            if self._first_error is not None:
                self._stopped = True
                raise self._first_error
        return self

    def write(self, frame: TimedFrame) -> None:
        """Leave a frame to be sent; never waits."""
        with self._changed:
            if self._connected:
                self._frame = replace(frame, rgb=frame.rgb.copy())
                self._changed.notify_all()

    def finish(self, *, complete: bool) -> None:
        """What waits to be sent is sent within a second, or not at all."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_FLUSH_S)  # one that is stuck is left behind: a daemon, its process ends with ours

    def _run(self) -> None:
        failures = 0
        while not self._stopped:
            try:
                with self._open_sink() as sink:
                    self._set_connected()
                    failures = 0
                    self._send_all(sink)
            except BadInput as error:
                failures += 1
                self._report(error, failures)
            self._connected = False
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**failures))

    def _set_connected(self) -> None:
        with self._changed:
            self._connected = True
            self._changed.notify_all()

    def _send_all(self, sink: Sink) -> None:
        while (frame := self._next()) is not None:
            sink.write(frame)
        sink.finish(complete=True)

    def _next(self) -> TimedFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._frame is not None)
            frame, self._frame = self._frame, None
            return frame

    def _report(self, error: BadInput, failures: int) -> None:
        with self._changed:
            if self._first_error is None and not self._connected and failures == 1:
                self._first_error = error
                self._changed.notify_all()
        if not self._stopped:
            _log.warning("%s; connecting again (attempt %d)", error, failures)
