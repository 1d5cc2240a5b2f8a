"""What `unblur preview` does: the live loop, with a web page that shows its frames and holds its controls."""

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, get_args

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from unblur.runtime.blur import BlurGate
from unblur.runtime.errors import BadInput, needs_extra
from unblur.runtime.loops.ladder import Ladder, LadderSwitch
from unblur.runtime.loops.session import LiveSession, RunRequest, open_live_session, open_rungs
from unblur.runtime.loops.stats import RunSummary
from unblur.runtime.media.open_media import is_live
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.open_model import find_model
from unblur.runtime.preview.requests import Access, Panel
from unblur.runtime.spec import Precision


def preview_camera(
    request: RunRequest, access: Access, port: int, stop: threading.Event, tell: Callable[[str], object]
) -> RunSummary:
    """Serve the page and run the loop until `stop` is set or the camera is gone for good.

    tell: called with the address to open, once the page is served.
    Raises MissingExtra without the packages of the web server, BadInput if the port is taken or the source is a
    file, and what opening and running the loop raises.
    """
    with needs_extra("preview"):
        from unblur.runtime.preview.app import Facts, Preview, make_app
    if not is_live(request.source):
        raise BadInput(f"{request.source} is neither a camera nor a stream; restore files with unblur run")
    with (
        listen(access.host, port) as listening,
        open_live_session(request) as session,
        LadderSwitch(session.ladder, _opener(request, session)) as switch,
    ):
        info = session.capture.info
        panel = Panel(session.controls, switch, _precisions(request, switch), request.gate or BlurGate())
        preview = Preview(Facts(str(request.model), info.name, info.size_hw), panel, session.stats)
        with serve(make_app(preview, access), listening):
            tell(access.url(listening.getsockname()[1]))
            return session.run(stop, preview.offer, restorer=switch)


def _opener(request: RunRequest, session: LiveSession) -> Callable[[Precision], Ladder]:
    def open_at(precision: Precision) -> Ladder:
        other = replace(request, options=replace(request.options, precision=precision))
        return open_rungs(other, session.capture.info.size_hw)

    return open_at


def _precisions(request: RunRequest, switch: LadderSwitch) -> tuple[Precision, ...]:
    """Those of a bundle; a file has one."""
    path = find_model(request.model)
    if not path.is_dir():
        return (switch.precision,)
    there = {variant.precision for variant in read_bundle(path).manifest.variants}
    return tuple(precision for precision in get_args(Precision) if precision in there)


_MOST_CONNECTIONS = 64
_MOST_ARRIVING = 32  # of them those whose request is not there yet
_REQUEST_S = 5.0  # for a request to arrive
_LOG_EVERY_S = 60.0
_MOST_REQUEST_BYTES = 512  # of a WebSocket message: the longest that makes sense has 40
_GOODBYE_S = 2


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one. Raises BadInput if the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # behind it stands the address once more
        raise BadInput(
            f"cannot serve the preview at {host}:{port}: {reason}; choose another --port or --host"
        ) from error


class _TimelyProtocol(H11Protocol):
    """HTTP whose requests arrive in time: a connection that is late is closed, and so is the oldest of too many."""

    _arriving: ClassVar[dict["_TimelyProtocol", asyncio.TimerHandle]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget_request()
        elif self not in self._arriving:  # the next one of a connection that is kept
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_request()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        self._arriving[self] = self.loop.call_later(_REQUEST_S, self.transport.abort)
        if len(self._arriving) > _MOST_ARRIVING:
            oldest = next(iter(self._arriving))
            oldest._forget_request()
            oldest.transport.abort()

    def _forget_request(self) -> None:
        timer = self._arriving.pop(self, None)
        if timer is not None:
            timer.cancel()


class _OneLineAMinute(logging.Filter):
    """Lets one record a minute through: who is refused a thousand times does not fill the disk with it."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = time.monotonic()
        passes = now_s - self._last_s >= _LOG_EVERY_S
        if passes:
            self._last_s = now_s
        return passes


@contextmanager
def serve(app: Starlette, listening: socket.socket) -> Iterator[None]:
    """Serve `app` inside the block; connections that are open at its end are closed."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=_TimelyProtocol,
        ws=WebSocketsSansIOProtocol,
        ws_max_size=_MOST_REQUEST_BYTES,
        ws_per_message_deflate=False,  # JPEGs do not get smaller
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    server, limit, log = uvicorn.Server(config), _OneLineAMinute(), logging.getLogger("uvicorn.error")
    log.addFilter(limit)
    thread = threading.Thread(target=server.run, args=([listening],), name="unblur-preview", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
        log.removeFilter(limit)
