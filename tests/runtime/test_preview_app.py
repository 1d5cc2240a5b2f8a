"""The preview over real HTTP and WebSockets: who gets in, what arrives, what may be changed."""

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from preview_host import Page, get, preview_of, watching
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode

from unblur.runtime.errors import BadInput
from unblur.runtime.preview.app import FULL, REFUSED
from unblur.runtime.preview.viewers import MOST_VIEWERS

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def url(tiny_bundle: Path) -> Iterator[str]:
    with preview_of(tiny_bundle) as address:
        yield address


def watch_until(page: Page, is_there: Callable[[], bool]) -> None:
    """Watch until something is so."""
    give_up_s = time.monotonic() + 10
    while not is_there():
        assert time.monotonic() < give_up_s
        page.next_state()


def test_the_page_is_whole_and_closed_to_others(url: str) -> None:
    page = get(url)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in page.headers
    for name in ("main.js", "link.js", "picture.js", "charts.js", "preview.css", "icon.svg"):
        assert get(url, f"/{name}").status == 200
    assert (get(url, "/etc").status, get(url, "/etc").body) == (404, b"there is no etc here\n")
    assert get(url, "/..%2fpreview.py").status == 404


def test_other_hosts_and_origins_are_refused(url: str) -> None:
    rebound = get(url, Host="evil.example:80")
    assert rebound.status == 403
    assert rebound.body.startswith(b"this page is not served as 'evil.example:80': open it by the address")
    foreign = get(url, Origin="http://evil.example")
    assert (foreign.status, foreign.body) == (403, b"pages of http://evil.example may not use this one\n")
    with pytest.raises(InvalidStatus, match="403"), watching(url, Origin="http://evil.example"):
        pass


def test_a_token_that_nobody_asked_for_is_not_kept(url: str) -> None:
    page = get(url, "/?token=x%0d%0aset-cookie:%20a=b")
    assert page.status == 200
    assert "set-cookie" not in page.headers


def test_the_token_is_asked_for_and_becomes_a_cookie(tiny_bundle: Path) -> None:
    with preview_of(tiny_bundle, token=TOKEN) as url:
        assert url.endswith(f"/?token={TOKEN}")
        for path in ("/", "/main.js", f"/?token={TOKEN[:-1]}x", "/?token="):
            refused = get(url, path)
            assert refused.status == 403
            assert refused.body == b"wrong or missing token: open the address that unblur preview printed\n"
        cookie = get(url).headers["set-cookie"]
        assert cookie.endswith(f"={TOKEN}; Path=/; HttpOnly; SameSite=Strict")
        kept = cookie.partition(";")[0]
        assert get(url, "/main.js", Cookie=kept).status == 200
        with watching(url, Cookie=kept) as page:
            assert page.next_picture()["index"] > 0
        with pytest.raises(InvalidStatus, match="403"), watching(url, Cookie=kept[:-1]):
            pass


def test_pictures_follow_each_other(url: str) -> None:
    with watching(url) as page:
        assert page.hello["source"].startswith("test://moving")
        assert page.hello["size_hw"] == [64, 96]
        headers = []
        for _ in range(4):
            headers.append(page.next_picture())
            page.set(drawn=True)
    indices = [header["index"] for header in headers]
    assert indices == sorted(set(indices))
    before, after = (np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in headers[-1]["pair"])
    assert before.shape == after.shape == (64, 96, 3)
    assert headers[-1]["rung"] == 2


def test_strength_mixes_the_source_in_again(url: str) -> None:
    with watching(url) as page:
        pair = page.next_picture()["pair"]
        assert pair[0] != pair[1]
        page.set(strength=0)
        watch_until(page, lambda: page.state["strength"] == 0)
        page.set(drawn=True)
        for _ in range(3):  # those that were under way
            pair = page.next_picture()["pair"]
            page.set(drawn=True)
        assert pair[0] == pair[1]


def test_controls_change_the_loop(url: str) -> None:
    with watching(url) as page:
        limits: list[int] = []
        for limit, expected in ((1, 1), (None, 2)):
            page.set(highest_rung=limit)
            while page.next_picture()["rung"] != expected:
                page.set(drawn=True)
            page.set(drawn=True)
            limits.append(page.next_state()["highest_rung"])
        assert limits == [1, None]
        page.set(deadline_ms=40.5)
        watch_until(page, lambda: page.state["deadline_ms"] == 40.5)
        page.set(gate=True)
        watch_until(page, lambda: page.state["gate"])


def test_a_change_is_taken_once_every_state_knows_it(url: str) -> None:
    with watching(url) as page, watching(url) as other:
        for change in range(1, 21):
            page.set(strength=change / 20)
            watch_until(page, lambda change=change: page.taken == change)  # type: ignore[misc]
            assert page.state["strength"] == change / 20
        watch_until(other, lambda: other.state["strength"] == 1)
        assert other.taken == 0


def test_the_precision_changes_between_two_frames(url: str) -> None:
    with watching(url) as page:
        assert (page.state["precision"], page.state["precisions"]) == ("fp32", ["fp32", "fp16", "int8"])
        assert [rung["name"] for rung in page.state["rungs"]] == ["tiny, 1 step", "tiny, 2 steps"]
        page.set(precision="int8")
        watch_until(page, lambda: page.state["precision"] == "int8" and page.state["opening"] is None)
        assert [rung["name"] for rung in page.state["rungs"]] == ["tiny"]


NO_CONTROLS = (
    ("", "expected JSON, got ''"),
    ("[" * 500, "expected JSON, got '["),
    ("[1]", "expected an object of one item, got '[1]'"),
    ('{"gate": true, "drawn": true}', "expected an object of one item"),
    ('{"😀😀😀": "😀😀😀😀😀😀"}', r"no control '\U0001f600\U0001f60 takes '\U0001f600\U0001f600"),
    ('{"reboot": true}', "no control 'reboot' takes True"),
    ('{"highest_rung": 0}', "no control 'highest_rung' takes 0"),
    ('{"highest_rung": true}', "no control 'highest_rung' takes True"),
    ('{"deadline_ms": NaN}', "no control 'deadline_ms' takes nan"),
    ('{"deadline_ms": 1e9}', "no control 'deadline_ms' takes 1000000000.0"),
    ('{"gate": 1}', "no control 'gate' takes 1"),
    ('{"strength": 1.5}', "no control 'strength' takes 1.5"),
    ('{"precision": "int4"}', "no control 'precision' takes 'int4'"),
    ('{"precision": ["fp32"]}', "no control 'precision' takes ['fp32']"),
)


def test_what_is_no_control_ends_the_connection(url: str) -> None:
    for message, reason in NO_CONTROLS:
        with watching(url) as page:
            page.socket.send(message)
            code, told = page.how_it_was_closed()
        assert code == REFUSED
        assert told.startswith(reason)


def test_a_long_message_is_not_read(url: str) -> None:
    with watching(url) as page:
        page.socket.send("x" * 513)
        assert page.how_it_was_closed()[0] == CloseCode.MESSAGE_TOO_BIG


def test_a_page_that_draws_nothing_gets_two_pictures_and_then_the_newest(url: str) -> None:
    with watching(url) as slow, watching(url) as quick:
        first = [slow.next_picture()["index"] for _ in range(2)]
        for _ in range(6):
            quick.next_picture()
            quick.set(drawn=True)
        slow.set(still=True)  # what comes next is the still: no third picture was on its way
        assert slow.next_picture()["still"]
        slow.set(drawn=True)
        assert slow.next_picture()["index"] >= first[-1] + 4


def test_no_more_than_eight_watch(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_VIEWERS):
            stack.enter_context(watching(url))
        with pytest.raises(ConnectionClosed) as closed, watching(url):
            pass
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (FULL, "8 others are watching")
    with watching(url) as page:
        assert page.state["viewers"] <= MOST_VIEWERS


def test_a_taken_port_and_a_file_are_told(tiny_bundle: Path, url: str) -> None:
    port = int(url.rstrip("/").rpartition(":")[2])
    taken = rf"cannot serve the preview at 127.0.0.1:{port}: Address already in use; choose another --port"
    with pytest.raises(BadInput, match=taken), preview_of(tiny_bundle, port=port):
        pass
    nowhere = r"cannot serve the preview at host\.invalid:0: .+; choose another"
    with pytest.raises(BadInput, match=nowhere), preview_of(tiny_bundle, host="host.invalid"):
        pass
    file = r"clip\.mp4 is neither a camera nor a stream; restore files with unblur run"
    with pytest.raises(BadInput, match=file), preview_of(tiny_bundle, source="clip.mp4"):
        pass


def test_a_snapshot_is_the_restored_frame_at_full_size(url: str) -> None:
    assert (get(url, "/snapshot.jpg").status, get(url, "/snapshot.jpg").body) == (
        404,
        b"no frame has been shown yet\n",
    )
    with watching(url) as page:
        page.next_picture()
        taken = get(url, "/snapshot.jpg")
    assert taken.headers["content-disposition"].startswith('attachment; filename="unblur-')
    assert Image.open(io.BytesIO(taken.body)).size == (96, 64)
    assert get(url, "/snapshot.jpg", Host="evil.example").status == 403


def test_half_sent_requests_keep_nobody_out(url: str) -> None:
    port = urlsplit(url).port
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(100)]
        for connection in slow:
            with suppress(ConnectionError):  # the oldest make room
                connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert get(url).status == 200
        with suppress(ConnectionResetError):
            assert slow[-1].recv(100) == b""  # the newest too, after some seconds


def test_a_broken_origin_is_refused(url: str) -> None:
    assert (get(url, Origin="http://[").status, get(url, Origin="http://[").body) == (
        403,
        b"pages of http://[ may not use this one\n",
    )


def test_refused_sockets_log_one_line(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=20) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert len([record for record in caplog.records if record.name.startswith("uvicorn")]) == 1
