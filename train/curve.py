"""The picture of a run: loss, and PSNR where it was measured."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unblur.runtime.atomic import atomic_file


def draw_curve(log: Path, out: Path) -> None:
    """Draw `log` (log.jsonl of a run) as a PNG: loss, on a log scale if all are positive, and validation PSNR."""
    reports = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes = figure.subplots()
    losses = [r["loss"] for r in reports]
    loss_axes.plot([r["iteration"] for r in reports], losses, color="0.6", lw=0.8)
    scale = "log" if min(losses) > 0 else "linear"  # adversarial losses may be negative
    loss_axes.set(xlabel="iteration", ylabel="training loss", yscale=scale)
    validated = [r for r in reports if r["psnr_db"] is not None]
    psnr_axes = loss_axes.twinx()
    psnr_axes.plot([r["iteration"] for r in validated], [r["psnr_db"] for r in validated], "o-", ms=3)
    psnr_axes.set_ylabel("validation PSNR (dB)")
    with atomic_file(out) as temporary:
        figure.savefig(temporary, dpi=120)
