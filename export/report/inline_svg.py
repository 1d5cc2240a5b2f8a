"""A plot as SVG inside a page: it takes the page's font and colours, in the light and in the dark, and has no ids
that two plots could share. Equal plots give equal text.

    inline_svg(lambda axes: axes.plot(times), (4.6, 2.4), "Latency of every sample")
"""

import io
import re
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import RcParams, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unblur.calibration.palette import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PALE, PURPLE

_VARIABLES: Mapping[str, str] = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PURPLE: "--purple",
    PALE: "--pale",
    INK: "--text",
    MUTED: "--muted",
    LINE: "--line",
}
"""What page.css calls the colours of the palette."""

_STYLE: Mapping[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unblur",
    "font.size": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a dollar
    "legend.frameon": False,
}
_NO_METADATA: Mapping[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile("|".join(_VARIABLES))
_FONT = re.compile(r"font-family: [^;]*;? ?")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")

Draw = Callable[[Axes], object]


def inline_svg(draw: Draw, size_in: tuple[float, float], label: str) -> Markup:
    """Draw on new axes. size_in: width and height in inches; a page may scale them. label: the plot in words."""

    def make() -> Figure:
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure.subplots())
        return figure

    return inline_figure(make, label)


def inline_figure(make: Callable[[], Figure], label: str) -> Markup:
    """As `inline_svg`, of a whole figure; it is made inside, so that the style of the page holds for it."""
    buffer = io.BytesIO()
    with rc_context(RcParams(_STYLE)):
        make().savefig(buffer, format="svg", transparent=True, metadata=dict(_NO_METADATA))
    root = ElementTree.fromstring(buffer.getvalue())
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    for parent in root.iter():
        _clean(parent)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element) -> None:
    """Drop what only an SVG file needs; shorten numbers; name colours as the page does."""
    for child in [child for child in element if child.tag == f"{{{_SVG}}}style"]:
        element.remove(child)
    element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    element.text, element.tail = (element.text or "").strip(), None
    if element.tag == "g":
        element.attrib.pop("id", None)
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))
    for name, value in element.attrib.items():
        element.set(name, _shortened(value))


def _shortened(value: str) -> str:
    value = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    value = _COLOUR.sub(lambda colour: f"var({_VARIABLES[colour[0]]})", _FONT.sub("", value))
    return " ".join(value.split())
