import re
from xml.etree import ElementTree

from matplotlib.axes import Axes

from unblur.calibration.sensitivity_plot import BLUE, INK
from unblur.export.report.plots import inline_svg


def draw(axes: Axes) -> None:
    axes.plot([1, 2, 3], [1 / 3, 2 / 3, 1], marker="o", color=BLUE)
    axes.set_xlabel("time < $ms", color=INK)


def test_a_plot_follows_the_page_and_repeats_to_the_byte() -> None:
    svg = inline_svg(draw, (4, 2), 'a "plot"')
    root = ElementTree.fromstring(svg)
    assert root.attrib == {"class": "plot", "viewBox": "0 0 288 144", "role": "img", "aria-label": 'a "plot"'}
    assert "time < $ms" in [text.text for text in root.iter("text")]
    assert "stroke: var(--blue)" in svg
    assert not re.search(r"#[0-9a-f]{6}|font-family|<style|xlink|\d\.\d{3}", svg)
    assert inline_svg(draw, (4, 2), 'a "plot"') == svg


def test_two_plots_share_no_ids() -> None:
    first, second = inline_svg(draw, (4, 2), "a"), inline_svg(draw, (5, 2), "b")
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert all(ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', first))
    assert used <= ids[0]
