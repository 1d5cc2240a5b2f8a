"""The folder of a run.

state.safetensors   everything `resume` needs; replaced whole at every checkpoint
PRESET.safetensors  the averaged weights, at the end: what export and deploy take
log.jsonl           a line per report: iteration, loss, learning rate, images/s, and PSNR/SSIM when validated
curve.png           loss and PSNR over the run
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.spec import ModelSpec
from unblur.train.checkpoint import TrainingState, load_state
from unblur.train.recipe import Recipe

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
CURVE_FILE = "curve.png"


@dataclass(frozen=True)
class Report:
    """One line of the log. psnr_db, ssim: of the averaged weights on the validation frames, if just measured."""

    iteration: int
    share_done: float
    loss: float
    learning_rate: float
    images_per_s: float
    elapsed_s: float
    psnr_db: float | None = None
    ssim: float | None = None


class Log:
    """Appends reports to log.jsonl and hands them on."""

    def __init__(self, run: Path, on_report: Callable[[Report], None]) -> None:
        self._path = run / LOG_FILE
        self._on_report = on_report

    def write(self, report: Report) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(report)) + "\n")
        self._on_report(report)


def open_run(run: Path, spec: ModelSpec, recipe: Recipe, *, resume: bool) -> TrainingState | None:
    """Make the folder, or read the state to resume from and forget log lines written after it.

    Raises BadInput if a run is there and not to be resumed, SpecMismatch if it is one of another network or recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / STATE_FILE
    if not resume:
        if path.exists():
            raise BadInput(f"{run} holds a run already; --resume it or choose another folder")
        return None
    if not path.exists():  # killed before its first checkpoint: begin again
        _forget_after(run / LOG_FILE, 0)
        return None
    state = load_state(path)
    if state.spec != spec or state.recipe != recipe:
        what = "network" if state.spec != spec else "recipe"
        raise SpecMismatch(f"{path} was trained with another {what}; resume with the options of its start")
    _forget_after(run / LOG_FILE, state.iteration)
    return state


def _forget_after(log: Path, iteration: int) -> None:
    lines = log.read_text().splitlines() if log.exists() else []
    whole = [line for line in lines if line.endswith("}")]  # the last one may be half of one
    kept = [line for line in whole if json.loads(line)["iteration"] <= iteration]
    with atomic_file(log) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


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
