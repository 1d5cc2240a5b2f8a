"""A web server in a thread of its own, for as long as a block lasts. Needs the extra [preview]."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from unblur.runtime.errors import BadInput

_MOST_CONNECTIONS = 64
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
        ws=WebSocketsSansIOProtocol,
        ws_max_size=_MOST_REQUEST_BYTES,
        ws_per_message_deflate=False,  # JPEGs do not get smaller
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="unblur-preview", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
