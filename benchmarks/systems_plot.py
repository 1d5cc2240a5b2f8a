"""The plot of `benchmarks.systems`: what time buys, in parameters and in the quality that the texts publish.

    python -m benchmarks.systems_plot systems/systems.json docs/systems.png

The time, on both sides, and the parameters are measured here. The PSNR is what each text reports for GoPro's test
set, of weights of its own. LPRN's text has no figure for GoPro: there its presets are lines, where they are fast.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.ablations.tables import TABLES
from unblur.runtime.files import atomic_file

_COLOURS = {
    "lprn": "#d1495b",
    "srn": "#00798c",
    "msr-gan": "#edae49",
    "msrm-dffm": "#30638e",
    "pix2pix": "#8d6a9f",
    "rir": "#7a9e7e",
    "deblurgan": "#6b705c",
}


def main(
    source: Annotated[Path, typer.Argument(help="systems.json")],
    out: Annotated[Path, typer.Argument(help="Where to write the PNG.")],
) -> None:
    """Draw the plot from measured numbers."""
    draw(source, out)


def draw(source: Path, out: Path) -> None:
    """Draw what `benchmarks.systems` wrote to `source` as a PNG; presets without a time are left out."""
    presets = [preset for preset in json.loads(source.read_text())["presets"] if preset["ms"] is not None]
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    _draw_parameters(left, presets)
    _draw_published(right, presets)
    systems = dict.fromkeys(preset["system"] for preset in presets)
    handles = [left.scatter([], [], color=_COLOURS[system], label=system) for system in systems]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    with atomic_file(out) as temporary:
        figure.savefig(temporary, dpi=110)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (time, quality) that no other is as fast as and as good as, the fastest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _draw_parameters(axes: Axes, presets: Sequence[Mapping[str, Any]]) -> None:
    for preset in presets:
        _point(axes, preset, preset["parameters"])
    axes.set(xscale="log", yscale="log", xlabel="ms per frame (measured)", ylabel="parameters")
    axes.set_title("Size", fontsize=10)
    axes.margins(x=0.12)


def _draw_published(axes: Axes, presets: Sequence[Mapping[str, Any]]) -> None:
    published = published_psnr_db()
    judged = [preset for preset in presets if preset["preset"] in published]
    for preset in judged:
        _point(axes, preset, published[preset["preset"]])
    front = pareto_front([(preset["ms"], published[preset["preset"]]) for preset in judged])
    axes.step([ms for ms, _ in front], [db for _, db in front], where="post", color="0.6", lw=1, zorder=0)
    for preset in (preset for preset in presets if preset["system"] == "lprn"):
        axes.axvline(preset["ms"], color=_COLOURS["lprn"], lw=1, ls=":")
        at = (preset["ms"], 0.98)  # at the top, where a fast network has no dot
        axes.annotate(
            preset["preset"], at, xycoords=axes.get_xaxis_transform(), rotation=90, fontsize=8, ha="right", va="top"
        )
    axes.set(xscale="log", xlabel="ms per frame (measured)", ylabel="PSNR on GoPro (dB), published by the texts")
    axes.set_title("Quality, where a text publishes it; the line joins the best for the time", fontsize=10)


def published_psnr_db() -> dict[str, float]:
    """By preset, what its text reports for GoPro in its ablation table."""
    tables = [table for table in TABLES.values() if table.note.startswith("GoPro")]
    rows = [row for table in tables for row in table.rows if not row.options and row.adversarial is None]
    return {row.preset: float(row.published.psnr_db) for row in rows if row.published.psnr_db}


def _point(axes: Axes, preset: Mapping[str, Any], y: float) -> None:
    """A dot; the presets of LPRN and the one that a system is named for carry their name."""
    name, system = preset["preset"], preset["system"]
    axes.scatter(preset["ms"], y, color=_COLOURS[system], s=28)
    if system in ("lprn", name):
        axes.annotate(name, (preset["ms"], y), xytext=(5, 4), textcoords="offset points", fontsize=8)


if __name__ == "__main__":
    typer.run(main)
