"""The preview page in a real browser, Chromium: what a person sees and does."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect, sync_playwright
from preview_host import preview_of

CHROMIUM = shutil.which("chromium")
TOKEN = "a-token-of-24-characters"
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium to look at the page with: apt-get install chromium"
)
expect.set_options(timeout=20_000)  # a machine of CI may be busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
        yield browser


@pytest.fixture
def url(tiny_bundle: Path) -> Iterator[str]:
    with preview_of(tiny_bundle) as address:
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, with its first frame drawn; without an error in its console to the end."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page, errors = context.new_page(), list[str]()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(error.message))
        page.goto(url)
        is_live(page)
        yield page
        assert errors == []


def is_live(page: Page) -> None:
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#frame")).to_contain_text("frame")


def index(page: Page) -> int:
    return int(page.locator("#frame").get_attribute("data-index") or 0)


def wait_for_frame_after(page: Page, earlier: int) -> None:
    page.wait_for_function(
        "earlier => Number(document.getElementById('frame').dataset.index) > earlier", arg=earlier
    )


def painted(page: Page) -> str:
    """What the canvas shows."""
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return str(page.evaluate("() => document.getElementById('picture').toDataURL()"))


def test_frames_advance_and_nothing_comes_from_elsewhere(page: Page, url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:")))
    page.reload()
    is_live(page)
    wait_for_frame_after(page, index(page))
    assert len(asked) >= 7
    assert [address for address in asked if not address.startswith(url)] == []
    expect(page.locator("#fps")).to_contain_text(re.compile(r"Frames per second\d"))
    expect(page.get_by_role("img", name=re.compile(r"p50 \d.* p99 \d.* ms"))).to_be_visible()


def test_the_line_moves_by_pointer_and_keys(page: Page) -> None:
    line = page.get_by_role("slider", name="Boundary between before and restored")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, y, steps=3)
    page.mouse.up()
    expect(line).to_have_attribute("aria-valuenow", "25")
    for key, share in (("ArrowRight", 26), ("Shift+ArrowLeft", 16), ("PageUp", 26), ("End", 100), ("Home", 0)):
        line.press(key)
        expect(line).to_have_attribute("aria-valuenow", str(share))
    expect(line).to_have_attribute("aria-valuetext", "0 % before, 100 % restored")


def test_freeze_holds_one_frame_to_look_at_closely(page: Page) -> None:
    page.get_by_role("button", name="Freeze").click()
    expect(page.locator("#link")).to_have_text("Frozen")
    line = page.get_by_role("slider", name="Boundary between before and restored")
    held, pictures = index(page), list[str]()
    for key in ("Home", "End"):
        line.press(key)
        pictures.append(painted(page))
    assert pictures[0] != pictures[1]
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("#zoom")).to_have_text("150 %")
    pictures.append(painted(page))
    page.locator("#picture").press("ArrowRight")
    pictures.append(painted(page))
    page.locator("#picture").press("0")
    expect(page.locator("#zoom")).to_have_text("100 %")
    assert painted(page) == pictures[1]
    assert len(set(pictures)) == 4
    assert index(page) == held
    page.get_by_role("button", name="Freeze").click()
    wait_for_frame_after(page, held)


def test_it_is_frozen_once_the_frame_to_look_at_is_there(browser: Browser, url: str) -> None:
    kept = list[tuple[WebSocketRoute, bytes]]()

    def keep_stills(page_side: WebSocketRoute) -> None:
        server = page_side.connect_to_server()

        def to_page(message: str | bytes) -> None:
            if isinstance(message, bytes) and b'"still": true' in message[:300]:
                kept.append((page_side, message))
            else:
                page_side.send(message)

        page_side.on_message(server.send)
        server.on_message(to_page)

    with browser.new_page() as page:
        page.route_web_socket("**/live", keep_stills)
        page.goto(url)
        is_live(page)
        page.get_by_role("button", name="Freeze").click()
        page.wait_for_timeout(1200)  # two samples long
        assert page.locator("#link").text_content() == "Live"
        [(page_side, still)] = kept
        page_side.send(still)
        expect(page.locator("#link")).to_have_text("Frozen")
        assert f'"index": {index(page)},'.encode() in still[:300]


def test_controls_change_what_the_loop_does(page: Page) -> None:
    frame = page.locator("#frame")
    expect(frame).to_contain_text("2 steps")
    page.get_by_role("radio", name=re.compile("1 step")).check()
    expect(frame).to_contain_text("1 step,")
    page.get_by_role("checkbox", name="Keep to").check()
    page.get_by_label("Deadline in milliseconds").fill("500")
    page.get_by_label("Deadline in milliseconds").press("Tab")
    page.reload()  # what the server has, not what the page remembers
    expect(page.get_by_label("Deadline in milliseconds")).to_have_value("500")
    expect(page.get_by_role("radio", name=re.compile("1 step"))).to_be_checked()
    page.get_by_role("radio", name="int8").check()
    expect(page.locator("#rungs input")).to_have_count(1)
    expect(frame).to_contain_text("tiny")
    expect(page.get_by_role("radio", name="int8")).to_be_checked()


def test_a_state_from_before_a_change_does_not_undo_it(browser: Browser, url: str) -> None:
    """The server seems slow: for four messages it says what was so before, and that it has taken in nothing."""
    stale, changed = list[str](), False

    def delay(page_side: WebSocketRoute) -> None:
        server = page_side.connect_to_server()

        def to_server(message: str | bytes) -> None:
            nonlocal changed
            changed = changed or "gate" in str(message)
            server.send(message)

        def to_page(message: str | bytes) -> None:
            if isinstance(message, bytes) or not changed or len(stale) == 4:
                page_side.send(message)
            elif "state" in (known := json.loads(message)):
                known["state"]["gate"] = False
                stale.append(json.dumps(known))
                page_side.send(stale[-1])

        page_side.on_message(to_server)
        server.on_message(to_page)

    with browser.new_page() as page:
        page.route_web_socket("**/live", delay)
        page.goto(url)
        is_live(page)
        gate = page.get_by_role("checkbox", name="Pass on")
        gate.check()
        while len(stale) < 4:
            page.wait_for_timeout(100)
            assert gate.is_checked()


def test_it_comes_back_with_the_server(browser: Browser, tiny_bundle: Path) -> None:
    with ExitStack() as serving, browser.new_page() as page:
        url = serving.enter_context(preview_of(tiny_bundle))
        page.goto(url)
        is_live(page)
        serving.close()
        expect(page.locator("#link")).to_have_text("Reconnecting")
        port = int(url.rstrip("/").rpartition(":")[2])
        with preview_of(tiny_bundle, port=port):
            expect(page.locator("#link")).to_have_text("Live")
            page.evaluate("() => delete document.getElementById('frame').dataset.index")
            page.wait_for_function("() => document.getElementById('frame').dataset.index > 0")
        with preview_of(tiny_bundle, port=port, token=TOKEN):
            expect(page.locator("#link")).to_contain_text("The token has changed")


def test_the_token_opens_the_page_once_and_leaves_the_address(browser: Browser, tiny_bundle: Path) -> None:
    with preview_of(tiny_bundle, token=TOKEN) as url, browser.new_context() as context:
        page = context.new_page()
        refused = page.goto(url[:-1])
        assert refused is not None
        assert refused.status == 403
        expect(page.locator("body")).to_have_text(re.compile("^wrong or missing token: open the address that"))
        page.goto(url)
        is_live(page)
        assert page.url == url.partition("?")[0]
        assert page.evaluate("() => document.cookie") == ""
        page.reload()
        is_live(page)


def test_a_phone_in_the_dark(browser: Browser, url: str) -> None:
    with browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", has_touch=True, is_mobile=True
    ) as context:
        page = context.new_page()
        page.goto(url)
        is_live(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 20)"
        box = page.locator("#stage").bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 3)
        expect(page.get_by_role("slider", name="Boundary")).to_have_attribute("aria-valuenow", "80")
        for button in page.get_by_role("button").all():
            size = button.bounding_box()
            assert size is not None
            assert min(size["width"], size["height"]) >= 44
