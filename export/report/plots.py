"""The plots of a measured report, as SVG that stands in its page."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib import RcParams, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from unblur.calibration.sensitivity_plot import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PALE, PURPLE, SERIES
from unblur.runtime.profile.document import Profile, SizeSweep
from unblur.runtime.profile.roofline import Bound, Peaks, Placed
from unblur.runtime.profile.stationarity import Sustained

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


_SIZE_IN = (4.8, 2.7)
_BINS = (8, 60)
_MOST_DOTS = 300
_MARKERS = ("o", "s", "^", "D")
_BOUNDS: Mapping[Bound, tuple[str, str]] = {
    "compute": (BLUE, "o"),
    "memory": (ORANGE, "s"),
    "overhead": (PURPLE, "^"),
}
_LABELLED = 8
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


@dataclass(frozen=True)
class Curve:
    """What the steps of one model are worth. steps, ms, intervals_ms, db: a value per point, fewest steps first.
    db is None where the quality is not known.
    """

    name: str
    steps: tuple[int, ...]
    ms: tuple[float, ...]
    intervals_ms: tuple[tuple[float, float], ...]
    db: tuple[float, ...] | None


def latency_histogram(profile: Profile) -> Markup:
    """How often an inference took how long, with the percentiles."""
    latency, times = profile.latency_ms, np.array(profile.times_ms)

    def draw(axes: Axes) -> None:
        bins = np.histogram_bin_edges(times, "fd")
        bins = np.linspace(bins[0], bins[-1], int(np.clip(len(bins), *_BINS)))
        axes.hist(times, bins.tolist(), color=BLUE, alpha=0.45, linewidth=0)
        percentiles = (("p50", latency.p50, INK), ("p90", latency.p90, GREEN), ("p99", latency.p99, ORANGE))
        for (name, value, colour), style in zip(percentiles, ("-", "--", "-."), strict=True):
            axes.axvline(value, color=colour, lw=1.3, ls=style, label=f"{name} {value:.4g}")
        axes.set(xlabel="latency, ms", ylabel="inferences")
        axes.grid(axis="x", visible=False)
        _legend_above(axes, 3)

    return inline_svg(
        draw, _SIZE_IN, f"Histogram of the latency: median {latency.p50:.4g} ms, p99 {latency.p99:.4g}"
    )


def latency_series(profile: Profile) -> Markup:
    """The latency in the order it was measured; many inferences become the range and the median of some in turn."""
    times, every = np.array(profile.times_ms), profile.times_every

    def draw(axes: Axes) -> None:
        if len(times) <= _MOST_DOTS:
            axes.plot(np.arange(len(times)) * every, times, ".", color=BLUE, ms=3.5)
        else:
            starts = range(0, len(times), math.ceil(len(times) / _MOST_DOTS))
            parts = [times[start : start + starts.step] for start in starts]
            index = [start * every for start in starts]
            lows, highs = [float(part.min()) for part in parts], [float(part.max()) for part in parts]
            axes.fill_between(index, lows, highs, color=BLUE, alpha=0.25, linewidth=0)
            axes.plot(index, [float(np.median(part)) for part in parts], color=BLUE, lw=1)
        axes.axhline(profile.latency_ms.p50, color=INK, lw=0.8)
        axes.set(xlabel="inference", ylabel="latency, ms")

    return inline_svg(draw, _SIZE_IN, f"Latency of {profile.samples} inferences in order")


def tradeoff(curves: Sequence[Curve], blurred_db: float | None) -> Markup:
    """What quality costs: PSNR over time, a line a model, a point a number of steps; without PSNR time over steps.

    blurred_db: of the pictures before, if all curves were measured on the same ones.
    """
    judged = [curve for curve in curves if curve.db is not None]

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(judged or curves):
            _draw_curve(axes, curve, SERIES[index % len(SERIES)], _MARKERS[index % len(_MARKERS)])
        if judged:
            _draw_blurred(axes, blurred_db)
            _log_if_wide(axes, [ms for curve in judged for ms in curve.ms])
            axes.set(xlabel="median ms per frame", ylabel="PSNR, dB")
        else:
            axes.set(xlabel="recursion steps", ylabel="median ms per frame", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_above(axes, 2)

    what = "PSNR against milliseconds per frame" if judged else "Milliseconds per frame against recursion steps"
    return inline_svg(draw, _SIZE_IN, f"{what}, of {', '.join(curve.name for curve in curves)}")


def roofline(placed: Sequence[Placed], peaks: Peaks) -> Markup:
    """Each measured layer under the roof of its precision, as large as its share of the time.

    placed: slowest first; the first few carry their number.
    """

    def draw(axes: Axes) -> None:
        whole_ms = sum(each.layer.ms or 0 for each in placed)
        for bound, (colour, marker) in _BOUNDS.items():
            members = [each for each in placed if each.bound == bound and each.intensity > 0]
            if members:
                sizes = [25 + 500 * (each.layer.ms or 0) / whole_ms for each in members]
                x, y = [each.intensity for each in members], [_gflops(each) for each in members]
                axes.scatter(x, y, s=sizes, color=colour, marker=marker, alpha=0.6, linewidth=0, label=bound)
        for number, each in enumerate(placed[:_LABELLED], start=1):
            if each.intensity > 0:
                at = (each.intensity, _gflops(each))
                axes.annotate(str(number), at, ha="center", va="center", fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="intensity, operations per byte", ylabel="GFLOP/s")
        _draw_roofs(axes, peaks, {each.layer.precision for each in placed})
        _label_log(axes.xaxis)
        _label_log(axes.yaxis)
        axes.legend(loc="lower right", handletextpad=0.2, markerscale=0.5)

    return inline_svg(draw, (4.8, 3.3), "Roofline: what each layer reaches of what the device can do")


def sustained_plot(sustained: Sustained) -> Markup:
    """The median latency over a long run, above its clocks and temperatures where they are known."""

    def make() -> Figure:
        known = [
            name for name in ("temperature_c", "clocks_mhz") if any(getattr(w, name) for w in sustained.windows)
        ]
        figure = Figure(figsize=(4.8, 2.0 + 1.1 * len(known)), layout="constrained")
        axes = figure.subplots(1 + len(known), sharex=True, squeeze=False)[:, 0]
        minutes = [window.start_s / 60 for window in sustained.windows]
        axes[0].plot(minutes, [window.p50_ms for window in sustained.windows], color=BLUE, lw=1.2)
        axes[0].set_ylabel("p50, ms")
        if sustained.onset_s is not None:
            axes[0].axvline(sustained.onset_s / 60, color=ORANGE, ls="--", lw=1, label=sustained.verdict)
            axes[0].legend(loc="best")
        for below, name in zip(axes[1:], known, strict=True):
            _draw_channels(below, minutes, [getattr(window, name) for window in sustained.windows])
            below.set_ylabel({"temperature_c": "°C", "clocks_mhz": "MHz"}[name])
        axes[-1].set_xlabel("minutes")
        return figure

    return inline_figure(make, f"Median latency over {sustained.seconds / 60:.0f} minutes")


def size_plot(sweep: SizeSweep) -> Markup:
    """Latency over pixels, both logarithmic, with the power law that fits."""

    def draw(axes: Axes) -> None:
        pixels = np.array([point.pixels for point in sweep.points])
        ms = np.array([point.latency_ms.p50 for point in sweep.points])
        axes.plot(pixels / 1e6, ms, "o", color=BLUE)
        if sweep.exponent is not None:
            scale = float(np.exp(np.mean(np.log(ms) - sweep.exponent * np.log(pixels))))
            axes.plot(pixels / 1e6, scale * pixels**sweep.exponent, color=MUTED, lw=1)
        for point in sweep.points:
            at = (point.pixels / 1e6, point.latency_ms.p50)
            axes.annotate(point.value, at, xytext=(5, -9), textcoords="offset points", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="median ms")
        _label_log(axes.xaxis, 1, 2, 5)
        _label_log(axes.yaxis, 1, 2, 5)
        axes.margins(x=0.2)

    return inline_svg(draw, _SIZE_IN, "Median latency over the size of the picture")


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    low = [ms - interval[0] for ms, interval in zip(curve.ms, curve.intervals_ms, strict=True)]
    high = [interval[1] - ms for ms, interval in zip(curve.ms, curve.intervals_ms, strict=True)]
    if curve.db is None:
        axes.errorbar(
            curve.steps, curve.ms, yerr=[low, high], label=curve.name, color=colour, marker=marker, ms=4, lw=1.2
        )
        return
    axes.errorbar(curve.ms, curve.db, xerr=[low, high], label=curve.name, color=colour, marker=marker, ms=4, lw=1.2)
    for steps, ms, db in zip(curve.steps, curve.ms, curve.db, strict=True):
        axes.annotate(str(steps), (ms, db), xytext=(4, 4), textcoords="offset points", fontsize=8)


def _draw_blurred(axes: Axes, blurred_db: float | None) -> None:
    if blurred_db is not None:
        axes.axhline(blurred_db, color=MUTED, lw=1, ls=":", label=f"blurred {blurred_db:.2f} dB")


def _draw_roofs(axes: Axes, peaks: Peaks, precisions: set[str]) -> None:
    """The slope of the memory and a ceiling for each precision that is there."""
    left, right = axes.get_xlim()
    ceilings = {name: gflops for name, gflops in peaks.gflops.items() if name in precisions or name == "fp32"}
    knee = max(ceilings.values()) / peaks.gbytes_per_s
    left, right = min(left, knee / 10), max(right, knee * 4)
    axes.plot([left, knee], [left * peaks.gbytes_per_s, knee * peaks.gbytes_per_s], color=MUTED, lw=1.2)
    for (name, gflops), style in zip(sorted(ceilings.items()), ("-", "--", ":"), strict=False):
        axes.plot([gflops / peaks.gbytes_per_s, right], [gflops] * 2, color=MUTED, lw=1.2, ls=style)
        axes.annotate(name, (right, gflops), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8)


def _draw_channels(axes: Axes, minutes: Sequence[float], values: Sequence[Mapping[str, float]]) -> None:
    """A line for each of the first few names; gaps where one did not answer."""
    names = list(dict.fromkeys(name for value in values for name in value))
    for index, name in enumerate(names[: len(SERIES)]):
        line = [value.get(name, float("nan")) for value in values]
        axes.plot(minutes, line, color=SERIES[index], lw=1.1, label=name)
    axes.legend(loc="best", fontsize=7)


def _log_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if max(values) > 6 * min(values):
        axes.set_xscale("log")
        _label_log(axes.xaxis, 1, 2, 5)


def _label_log(axis: Axis, *digits: float) -> None:
    """Plain numbers at these multiples of the powers of ten, by default at the powers alone."""
    axis.set_major_locator(LogLocator(subs=digits or (1,)))
    axis.set_major_formatter(_PLAIN)
    axis.set_minor_formatter(NullFormatter())


def _gflops(placed: Placed) -> float:
    return placed.layer.flops / (placed.layer.ms or 1) / 1e6


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0, handlelength=1.6)
