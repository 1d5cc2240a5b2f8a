"""The report in a real browser, Chromium: wide, as a phone, in the dark and on paper."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_profile import bare_profile, full_profile
from made_up_report import POOR_INT8, REPORT
from playwright.sync_api import Browser, Page, sync_playwright

from unblur.export.report.measure import MeasuredBundle
from unblur.export.report.measured_page import measured_page
from unblur.runtime.model.bundle import Bundle, BundleManifest

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium to look at the report with: apt-get install chromium"
)
WIDER_THAN_THE_PAGE = """() => [...document.querySelectorAll('body *')]
  .filter(each => !each.closest('.scroll, svg') && each.getBoundingClientRect().right > innerWidth + 1)
  .map(each => each.outerHTML.slice(0, 80))"""
WIDER_THAN_ITS_BOX = """() => [...document.querySelectorAll('.scroll')]
  .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.innerText.slice(0, 80))"""

SMALLEST_TEXT = """() => Math.min(...[...document.querySelectorAll('svg.plot text')].map(text => {
  const matrix = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b);
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a page on two bundles, the first with everything that a report can show."""
    whole = replace(REPORT, int8=POOR_INT8)
    bundle = Bundle(Path("x.unblur"), BundleManifest("lprn-x", REPORT.spec, "", {}, ()))
    bundles = [
        MeasuredBundle("first", bundle, whole, (bare_profile(1, 4.0), full_profile()), whole.judged),
        MeasuredBundle("second", bundle, REPORT, (), None),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(measured_page(bundles))
    return path.as_uri()


def opened(browser: Browser, address: str, width: int, **options: str) -> Page:
    """The page at that width; it must ask for nothing else and complain of nothing."""
    page = browser.new_page(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(error.message))
    page.on("request", lambda request: troubles.append(request.url))
    page.goto(address)
    page.evaluate("() => Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")
    assert [trouble for trouble in troubles if trouble != address and not trouble.startswith("data:")] == []
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_columns_stand_side_by_side_where_there_is_room(browser: Browser, address: str, scheme: str) -> None:
    with opened(browser, address, 1600, color_scheme=scheme) as page:
        assert page.evaluate(WIDER_THAN_THE_PAGE) == []
        first, second = (article.bounding_box() for article in page.locator("article").all())
        assert first is not None
        assert second is not None
        assert first["y"] == second["y"]
        assert first["x"] + first["width"] < second["x"]
        tops = [
            [round(box["y"]) for h2 in article.locator("h2").all() if (box := h2.bounding_box())]
            for article in page.locator("article").all()
        ]
        assert tops[0] == tops[1]
        background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(14, 17, 20)")
        colours = page.evaluate(
            "() => [...document.querySelectorAll('svg.plot text')].map(text => getComputedStyle(text).fill)"
        )
        assert len(colours) > 50
        assert "rgb(0, 0, 0)" not in colours


def test_a_phone_shows_one_bundle_below_the_other(browser: Browser, address: str) -> None:
    with opened(browser, address, 390) as page:
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390
        assert page.evaluate(WIDER_THAN_THE_PAGE) == []
        first, second = (article.bounding_box() for article in page.locator("article").all())
        assert first is not None
        assert second is not None
        assert first["y"] + first["height"] <= second["y"]
        smallest = page.evaluate(SMALLEST_TEXT)
        assert smallest >= 7


def test_no_table_is_cut_on_paper(browser: Browser, address: str, tmp_path: Path) -> None:
    a4_less_margins = round((210 - 2 * 14) / 25.4 * 96)
    with opened(browser, address, a4_less_margins, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate(WIDER_THAN_ITS_BOX) == []
        assert page.evaluate(WIDER_THAN_THE_PAGE) == []
        assert (
            page.evaluate("() => getComputedStyle(document.documentElement).getPropertyValue('--page')")
            == "#ffffff"
        )
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 4
