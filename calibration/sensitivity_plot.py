"""The picture of what each layer costs in INT8."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unblur.calibration.search import LayerCost

BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
PURPLE = "#aa4499"
PALE = "#a9c4e0"
INK = "#1b1f24"
MUTED = "#5a6470"
LINE = "#d8dde3"
SERIES = (BLUE, ORANGE, GREEN, PURPLE)


_PNG_WIDTH_IN, _ROW_IN, _MARGIN_IN = 9.0, 0.3, 1.1
_MOST_ROWS = 40
_BAR = 0.38
_CAPTION = "PSNR against ground truth, dB"


def sensitivity_png(layers: Sequence[LayerCost]) -> bytes:
    """A PNG of `sensitivity_figure`."""
    figure = sensitivity_figure(layers, _PNG_WIDTH_IN)
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()


def sensitivity_figure(layers: Sequence[LayerCost], width_in: float) -> Figure:
    """Horizontal bars, the costliest layer on top; of a deep network the 40 costliest.

    In brackets the share of multiply-accumulates; layers that are left in float are orange.
    """
    shown = sorted(layers, key=lambda cost: max(cost.alone_db, cost.spared_db))[-_MOST_ROWS:]
    figure = Figure(figsize=(width_in, _MARGIN_IN + _ROW_IN * len(shown)), layout="constrained")
    axes = figure.subplots()
    _draw(axes, shown)
    axes.set_xlabel(_CAPTION)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _draw(axes: Axes, shown: Sequence[LayerCost]) -> None:
    rows = range(len(shown))
    alone, spared = [cost.alone_db for cost in shown], [cost.spared_db for cost in shown]
    axes.barh([row + _BAR / 2 for row in rows], alone, _BAR, color=BLUE, label="lost if it alone is INT8")
    axes.barh([row - _BAR / 2 for row in rows], spared, _BAR, color=PALE, label="won back if it alone is float")
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_yticks(list(rows), [_label(cost) for cost in shown])
    for text, cost in zip(axes.get_yticklabels(), shown, strict=True):
        text.set_color(INK if cost.int8 else ORANGE)
    axes.margins(y=0.01)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LINE, lw=0.8)
    axes.set_axisbelow(True)


def _label(cost: LayerCost) -> str:
    return f"{cost.layer}  ({cost.macs_share:.1%}{'' if cost.int8 else ', float'})"
