"""INT8 by `unblur calibrate` against INT8 by ONNX Runtime and by ModelOpt: same model, same images, one run.

    python -m benchmarks.int8 lprn-s --images stills --pairs gopro_test --modelopt modelopt-env/bin/python

Each tool runs in a process of its own, which reports its seconds, without imports, and its peak memory; ours
include the search. The loss is that of PSNR on the pairs, whole frames, Q/DQ evaluated in float. Prints a Markdown
table as it goes, and whether the bounds are kept. Linux only.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from benchmarks.command import Json, log, output_of, print_report, run, unblur
from benchmarks.figures import Figure, Report, of_repeats
from unblur.calibration.images import Sample, Trial, find_sample
from unblur.calibration.onnx_model import OnnxModel, read_onnx
from unblur.calibration.placement import CONVOLUTIONS, layer_macs
from unblur.calibration.quality_evaluator import QualityEvaluator
from unblur.runtime.images import write_image
from unblur.runtime.model.open_model import find_model
from unblur.runtime.quality.pairs import find_pairs, read_pair

OURS = ("minmax", "percentile", "entropy", "mse")
ORT = tuple(f"ort:{method}:{kind}" for kind in ("default", "tensorrt") for method in OURS[:3])
RIVAL = "ort:percentile:tensorrt"
MODELOPT = ("modelopt:minmax", "modelopt:entropy")
NO_SEARCH_DB = 9.0  # a budget that any choice keeps to: memory by the number of images, without a search's
LOSS_DB, SHARE, MEMORY, TIME, FLAT = 0.05, 0.9, 1 / 3, 1 / 2, 1.05


@dataclass(frozen=True)
class Row:
    """loss_db: mean over the pairs; worst_db: of the worst pair. int8_macs: 0 to 1. peak_mb: in MiB."""

    tool: str
    images: int
    loss_db: float
    worst_db: float
    int8_macs: float
    seconds: float
    peak_mb: float

    def markdown(self) -> str:
        """One line of the table."""
        losses = f"{self.loss_db:+.4f} | {self.worst_db:+.4f} | {self.int8_macs:.1%}"
        return f"| {self.tool} | {self.images} | {losses} | {self.seconds:.1f} | {self.peak_mb:.0f} |"


class Contest:
    """One model and what evaluates it. folder: for all files that are made."""

    def __init__(self, model: Path, pairs: Path, folder: Path) -> None:
        self.model, self.folder, self.fp32 = model, folder, read_onnx(model)
        frames = (read_pair(pair) for pair in find_pairs(pairs))
        self.evaluator = QualityEvaluator(self.fp32, [Trial(blurred, sharp) for blurred, sharp in frames])
        self.node_macs = node_macs(self.fp32)

    def ours(self, method: str, sample: Sample, budget_db: float) -> Row:
        """`unblur calibrate`, with its search, on images that are blurred already."""
        return self._row(f"unblur:{method}", len(sample), *self.run_ours(method, sample, budget_db))

    def rival(self, what: str, python: str, batches: Path, images: int) -> Row:
        """ONNX Runtime or ModelOpt on the same images, as float32 in a .npy."""
        return self._row(what, images, *self.run_rival(what, python, batches))

    def run_ours(self, method: str, sample: Sample, budget_db: float) -> tuple[float, float]:
        """Seconds and MiB of `ours`."""
        options = ["--images", str(sample.folder), "--method", method, "--budget-db", str(budget_db), "--json"]
        out = str(self.folder / "int8.onnx")
        document = loads(output_of(unblur("calibrate", str(self.model), *options, "-o", out)))
        return float(document["seconds"]), float(document["peak_rss_mb"])

    def run_rival(self, what: str, python: str, batches: Path) -> tuple[float, float]:
        """Seconds and MiB of `rival`."""
        copy = shutil.copy(self.model, self.folder / "copy.onnx")
        files = [str(copy), str(batches), str(self.folder / "int8.onnx")]
        document = output_of([python, "-m", "benchmarks.int8_rivals", what, *files])
        seconds, peak_mb = map(float, document.split()[-2:])
        return seconds, peak_mb

    def times(self, sample: Sample, batches: Path, budget_db: float, repeats: int) -> list[float]:
        """Of ours with percentile over that of ONNX Runtime's, one after the other."""
        return [
            self.run_ours("percentile", sample, budget_db)[0] / self.run_rival(RIVAL, sys.executable, batches)[0]
            for _ in range(repeats)
        ]

    def _row(self, tool: str, images: int, seconds: float, peak_mb: float) -> Row:
        int8 = OnnxModel(onnx.load(self.folder / "int8.onnx"), self.fp32.spec, "int8")
        cost = self.evaluator.cost(int8)
        return Row(
            tool, images, -cost.delta_db, -min(cost.deltas_db), int8_share(int8, self.node_macs), seconds, peak_mb
        )


def node_macs(fp32: OnnxModel) -> dict[str, float]:
    """Name of a convolution -> its multiply-accumulates; the steps that share a weight do equally many."""
    macs = layer_macs(fp32)
    weights = {node.name: node.input[1] for node in fp32.graph.node if node.op_type in CONVOLUTIONS}
    uses = list(weights.values())
    return {name: macs[weight] / uses.count(weight) for name, weight in weights.items()}


def int8_share(model: OnnxModel, macs: dict[str, float]) -> float:
    """The part done by convolutions that read activations and weights in Q/DQ form, whoever made the model."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    int8 = [node.name for node in model.graph.node if node.name in macs and dequantized.issuperset(node.input[:2])]
    return sum(macs[name] for name in int8) / sum(macs.values())


def written(images: Path, count: int, side: int, model: OnnxModel, folder: Path) -> tuple[Sample, Path]:
    """Shaken crops, as images for us and as one .npy for the others."""
    source = find_sample(images, synthetic_blur=True, size_hw=(side, side)).spread(count)
    (folder / str(count)).mkdir()
    for index, frame in enumerate(source.frames()):
        write_image(folder / str(count) / f"{index:03}.png", frame)
    sample = find_sample(folder / str(count))
    batches = [image.batch(model.spec) for image in sample.images()]
    np.save(folder / f"{count}.npy", np.concatenate(batches))
    return sample, folder / f"{count}.npy"


def goals(rows: Sequence[Row], times: Sequence[float], few: Row, many: Row) -> tuple[Figure, ...]:
    """What is asked of `unblur calibrate`. times: over ONNX Runtime's, of several repeats."""
    by_tool = {row.tool: row for row in rows}
    ours, rival = by_tool["unblur:percentile"], by_tool[RIVAL]
    best = min((row for row in rows if row.tool.startswith("unblur")), key=lambda row: row.loss_db)
    flat = f"memory on {many.images} images over {few.images}"
    return (
        Figure("loss of the best method", "dB", best.loss_db, "lower", asked=LOSS_DB),
        Figure("multiply-accumulates in INT8", "%", 100 * best.int8_macs, "higher", asked=100 * SHARE),
        Figure("memory over ONNX Runtime's", "", ours.peak_mb / rival.peak_mb, "lower", asked=MEMORY),
        of_repeats("time over ONNX Runtime's", "", times, "lower", asked=TIME),
        Figure(flat, "", many.peak_mb / few.peak_mb, "lower", asked=FLAT),
    )


def main(
    images: Annotated[Path, typer.Option(help="Sharp images to calibrate on; each gets a shake.")],
    pairs: Annotated[Path, typer.Option(help="Pairs that the loss is measured on.")],
    preset: Annotated[str, typer.Argument(help="A shipped preset or a bundle.")] = "lprn-s",
    count: Annotated[int, typer.Option(help="Calibration images of every tool.")] = 16,
    few: int = 8,
    many: int = 64,
    side: Annotated[int, typer.Option(help="Of the crops, in pixels.")] = 320,
    repeats: Annotated[int, typer.Option(min=2, help="Of the two whose times are compared.")] = 3,
    budget_db: float = LOSS_DB,
    rivals: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ORT)}; {RIVAL} must be among them. Default all.")
    ] = None,
    modelopt: Annotated[str | None, typer.Option(help="The Python of an environment with ModelOpt.")] = None,
    json: Json = False,
) -> None:
    """Print the table and the goals; exit 1 if one is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contest = Contest(find_model(preset) / "fp32.onnx", pairs, folder)
        samples = {n: written(images, n, side, contest.fp32, folder) for n in sorted({few, count, many})}
        sample, batches = samples[count]
        log("| tool | images | loss dB | worst dB | INT8 MACs | s | peak MiB |\n|-|-:|-:|-:|-:|-:|-:|")
        rows = [shown(contest.ours(method, sample, budget_db)) for method in OURS]
        rows += [shown(contest.rival(what, sys.executable, batches, count)) for what in rivals or ORT]
        times = contest.times(sample, batches, budget_db, repeats)
        if modelopt is None:
            log("SKIPPED: ModelOpt; give the Python of its environment by --modelopt")
        else:
            rows += [shown(contest.rival(what, modelopt, batches, count)) for what in MODELOPT]
        ends = [shown(contest.ours("percentile", samples[n][0], NO_SEARCH_DB)) for n in (few, many)]
    print_report(Report("int8", goals(rows, times, *ends), {"rows": (*rows, *ends)}), json=json)


def shown(row: Row) -> Row:
    """Print a row as soon as it is there."""
    log(row.markdown())
    return row


if __name__ == "__main__":
    run(main)
