"""The preview as a web application: one static page and one WebSocket. Needs the extra [preview].

To the page go pictures (see `PreviewEncoder`) as binary messages, and as JSON twice a second how the loop does.
From the page come `{"drawn": true}` after each picture, `{"still": true}` for the last one at full size, and
changes of controls (see `Panel`). Each change is answered by `{"taken": n}`, counted per connection: a state that
the page received before may be older than what its user has just set.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from unblur.runtime.errors import BadInput
from unblur.runtime.loops.live_loop import FrameResult
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.preview.requests import Access, Panel, read_request
from unblur.runtime.preview.viewers import MOST_VIEWERS, SAMPLE_EVERY_S, History, PreviewEncoder, Viewer, Viewers

FULL = 4000
"""Code that a WebSocket is closed with when too many watch already."""
REFUSED = 4001
"""Code after a message that is none of those above."""

_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "preview.css": ("preview.css", "text/css; charset=utf-8"),
    "main.js": ("main.js", "text/javascript; charset=utf-8"),
    "link.js": ("link.js", "text/javascript; charset=utf-8"),
    "picture.js": ("picture.js", "text/javascript; charset=utf-8"),
    "charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Facts:
    """What the page is about, in words. size_hw: of the frames as they first came; None if that is not known."""

    model: str
    source: str
    size_hw: tuple[int, int] | None


class Preview:
    """What the page shows and changes. `offer` is for the loop's thread, all else runs in that of the server."""

    def __init__(self, facts: Facts, panel: Panel, stats: LoopStats) -> None:
        self._facts = facts
        self._panel = panel
        self._stats = stats
        self._history = History(stats)
        self._viewers = Viewers()
        self._pictures = PreviewEncoder(self._publish, lambda: self._viewers.want_picture)
        self._one_still = asyncio.Lock()

    def offer(self, result: FrameResult) -> None:
        """Show a frame if anybody watches; never waits."""
        self._pictures.offer(result)

    @asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Encode and sample inside the block."""
        self._loop = asyncio.get_running_loop()
        ticker = asyncio.create_task(self._tick())
        with self._pictures:
            yield
        ticker.cancel()

    async def watch(self, websocket: WebSocket) -> None:
        """Serve one page until it leaves."""
        await websocket.accept()
        if self._viewers.full:
            await websocket.close(FULL, f"{MOST_VIEWERS} others are watching")
            return
        with self._viewers.joined() as viewer:
            viewer.put("hello", json.dumps({"hello": self._hello(), "state": self._state()}))
            async with _sending(websocket, viewer):
                refusal = await self._answer_all(websocket, viewer)
        if refusal is not None:
            await websocket.close(REFUSED, refusal)

    async def snapshot(self, request: Request) -> Response:
        """The restored frame shown last, to keep."""
        async with self._one_still:
            taken = await asyncio.to_thread(self._pictures.snapshot)
        if taken is None:
            return PlainTextResponse("no frame has been shown yet\n", 404)
        index, jpeg = taken
        name = f'attachment; filename="unblur-{index}.jpg"'
        return Response(jpeg, media_type="image/jpeg", headers={"content-disposition": name})

    async def _answer_all(self, websocket: WebSocket, viewer: Viewer) -> str | None:
        """Why a message was none of those that are known; None if the page left."""
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            try:
                await self._answer(viewer, message.get("text") or "")
            except BadInput as error:
                return str(error)
        return None

    async def _answer(self, viewer: Viewer, text: str) -> None:
        name, value = read_request(text)
        if name == "drawn":
            viewer.drawn()
        elif name == "still":
            async with self._one_still:
                still = await asyncio.to_thread(self._pictures.still)
            if still is not None:
                viewer.put("still", still)
        else:
            self._panel.set(name, value)
            self._viewers.put("state", json.dumps({"state": self._state()}))
            viewer.changes += 1
            viewer.put("taken", json.dumps({"taken": viewer.changes}))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            sample = asdict(self._history.sample())
            self._viewers.put("sample", json.dumps({"state": self._state(), "sample": sample}))

    def _publish(self, picture: bytes) -> None:
        self._loop.call_soon_threadsafe(self._viewers.put, "picture", picture)

    def _hello(self) -> dict[str, object]:
        history = [asdict(sample) for sample in self._history.samples]
        return {**asdict(self._facts), "history": history}

    def _state(self) -> dict[str, object]:
        return {
            **self._panel.describe(),
            "counters": self._stats.counters,
            "histogram": self._stats.by_rung(),
            "viewers": len(self._viewers),
        }


def make_app(preview: Preview, access: Access) -> Starlette:
    """The application that serves one preview to those who have access."""
    folder = files("unblur.runtime.preview") / "page"
    contents = {name: (folder / file).read_bytes() for name, (file, _) in _PAGE.items()}

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in _PAGE:
            return PlainTextResponse(f"there is no {name} here\n", 404)
        return Response(contents[name], media_type=_PAGE[name][1])

    routes = [
        Route("/", page),
        Route("/snapshot.jpg", preview.snapshot),
        Route("/{name}", page),
        WebSocketRoute("/live", preview.watch),
    ]
    return Starlette(routes=routes, lifespan=preview.running, middleware=[Middleware(_Guard, access=access)])


class _Guard:
    """Lets pass who has access, with a cookie for later; refuses others in one plain line; adds the headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        cookie = f"unblur_{scope['server'][1]}"  # cookies are shared by all ports of a host
        given = request.query_params.get("token")
        refusal = self._access.refusal(
            request.headers.get("host", ""), request.headers.get("origin"), given or request.cookies.get(cookie)
        )
        app = self._app if refusal is None else PlainTextResponse(f"{refusal}\n", 403)
        headers = dict(_HEADERS)
        if refusal is None and given and self._access.token is not None:
            headers["set-cookie"] = f"{cookie}={given}; Path=/; HttpOnly; SameSite=Strict"
        await app(scope, receive, _adding(headers, send))


def _adding(headers: Mapping[str, str], send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


@asynccontextmanager
async def _sending(websocket: WebSocket, viewer: Viewer) -> AsyncIterator[None]:
    """Send what is put for a viewer, inside the block."""
    task = asyncio.create_task(_send_all(websocket, viewer))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect):
            await task


async def _send_all(websocket: WebSocket, viewer: Viewer) -> None:
    while True:
        message = await viewer.next()
        if isinstance(message, bytes):
            await websocket.send_bytes(message)
        else:
            await websocket.send_text(message)
