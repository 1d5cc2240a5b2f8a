"""A real preview in this process: the loop in one thread, the web server in another, a synthetic camera."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from unblur.runtime.loops.session import RunRequest
from unblur.runtime.preview.host import preview_camera
from unblur.runtime.preview.requests import access_for

_PATIENCE_S = 10
SOURCE = "test://moving?size=64x96&fps=60&blur=8"


@contextmanager
def preview_of(
    model: Path, *, source: str = SOURCE, host: str = "127.0.0.1", port: int = 0, token: str | None = None
) -> Iterator[str]:
    """Gives the address to open; ends the preview after the block and raises what it raised."""
    request = RunRequest(model, source, ("null:",), deadline_ms=float("inf"))
    stop, urls = threading.Event(), Queue[str]()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(preview_camera, request, access_for(host, token), port, stop, urls.put)
        running.add_done_callback(lambda done: urls.put(""))
        try:
            url = urls.get(timeout=30)
            if url:
                yield url
        finally:
            stop.set()
            running.result(timeout=30)


def get(url: str, path: str = "", **headers: str) -> http.client.HTTPResponse:
    """What the server answers; `body` is read."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    connection.request("GET", path or f"{parts.path}?{parts.query}", headers=headers)
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


class Page:
    """What the page in the browser is to the server."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.state: dict[str, Any] = {}
        self.taken = 0  # changes that the server has taken in
        self.hello: dict[str, Any] = {}

    def set(self, **control: object) -> None:
        self.socket.send(json.dumps(control))

    def next_picture(self) -> dict[str, Any]:
        """The header of the next picture, with the JPEGs as "pair"; texts on the way are remembered."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while not isinstance(message := self.socket.recv(timeout=give_up_s - time.monotonic()), bytes):
            self._remember(json.loads(message))
        end = 4 + int.from_bytes(message[:4], "big")
        header = json.loads(message[4:end])
        middle = end + header["before"]
        return {**header, "pair": (message[end:middle], message[middle:])}

    def next_state(self) -> dict[str, Any]:
        """The next text; pictures on the way are drawn, as it were."""
        while isinstance(message := self.socket.recv(timeout=_PATIENCE_S), bytes):
            self.set(drawn=True)
        self._remember(json.loads(message))
        return self.state

    def how_it_was_closed(self) -> tuple[int, str]:
        """Code and reason, after all that still arrives; 1006 if the server gave none."""
        with suppress(ConnectionClosed):
            while True:
                self.socket.recv(timeout=_PATIENCE_S)
        return self.socket.close_code or 1006, self.socket.close_reason or ""

    def _remember(self, message: dict[str, Any]) -> None:
        self.state = message.get("state", self.state)
        self.taken = message.get("taken", self.taken)
        self.hello = message.get("hello", self.hello)


@contextmanager
def watching(url: str, **headers: str) -> Iterator[Page]:
    """A page that is connected and was greeted."""
    address = f"ws://127.0.0.1:{urlsplit(url).port}/live"
    with connect(address, additional_headers=headers, compression=None, open_timeout=10) as socket:
        page = Page(socket)
        page.next_state()
        yield page
