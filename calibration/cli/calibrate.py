"""`unblur calibrate`."""

import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from unblur.calibration.coverage import Coverage
from unblur.calibration.images import Sample, find_sample
from unblur.calibration.int8_from_fp32 import Calibrated, Settings, apply_table
from unblur.calibration.int8_from_fp32 import calibrate as int8_from_fp32
from unblur.calibration.onnx_model import OnnxModel, check_onnx_name, read_onnx
from unblur.calibration.search import Explanation
from unblur.calibration.sensitivity_plot import sensitivity_png
from unblur.runtime.cli.options import MaxImagesOption, SyntheticBlurOption, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, progress, stages_on, stderr
from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.media.url import Size
from unblur.runtime.model.calibration_table import Method, StepPolicy, read_table
from unblur.runtime.spec import SpecOverrides

_EXPLAINED = 10


@with_overrides
def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An fp32 model, of unblur or not.")],
    images: Annotated[Path, typer.Option(help="Folder of images, or of pairs, which bring ground truth.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The INT8 model to write.")],
    method: Annotated[
        Literal["auto", Method], typer.Option(help="How a range is chosen; auto takes what loses least.")
    ] = "auto",
    percentile: Annotated[float, typer.Option(min=50, max=100, help="Of the values, for that method.")] = 99.99,
    steps_policy: Annotated[
        StepPolicy, typer.Option(help="Ranges of a recursion: of each step, of all, or the largest.")
    ] = "per-step",
    budget_db: Annotated[
        float | None, typer.Option(min=0, help="Search the most INT8 that loses no more PSNR than this.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Keep layers of this name float; repeat for more.")
    ] = None,
    synthetic_blur: SyntheticBlurOption = False,
    max_images: MaxImagesOption = None,
    size: Annotated[
        Size | None, typer.Option(parser=Size.parse, metavar="HxW", help="Crop to the size it will run at.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Also write the table of ranges, as JSON.")] = None,
    from_table: Annotated[
        Path | None, typer.Option(help="Take ranges and layers from this table; the images only measure the loss.")
    ] = None,
    sensitivity: Annotated[
        Path | None, typer.Option(help="Also draw what each layer costs, as PNG; takes two runs per layer.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Name the layers that cost most, and the image where they do.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="Save progress to this file; the same command resumes from it. Removed at the end."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Make the INT8 variant of a model, with ranges measured on images like those it will see.

    Convolutions become INT8 except attention gates and, without --budget-db, the first and the last; the rest
    stays float32 here, `unblur deploy` makes it float16.
    """
    check_onnx_name(output)
    if from_table is not None and (exclude or budget_db is not None):
        raise BadInput(f"{from_table} says which layers are INT8; leave out --exclude and --budget-db")
    if from_table is not None and explain:
        raise BadInput(f"--explain compares layers to choose from; {from_table} has chosen them: leave it out")
    started_s = time.monotonic()
    settings = Settings(
        method,
        percentile,
        steps_policy,
        budget_db,
        tuple(exclude or ()),
        sensitivity=sensitivity is not None,
        explain=explain,
        implicit=table is not None,
        state=state,
    )
    sample = picked(find_sample(images, synthetic_blur=synthetic_blur, size_hw=size), max_images)
    with log_on_stderr(), ExitStack() as stack:
        paths = {path: stack.enter_context(atomic_file(path)) for path in (output, table, sensitivity) if path}
        made = _make(read_onnx(model, overrides), sample, settings, from_table)
        _write(made, paths[output], table and paths[table], sensitivity and paths[sensitivity])
    if state is not None:
        state.unlink(missing_ok=True)
    if json:
        seconds = round(time.monotonic() - started_s, 2)
        print_json({**_document(made), "seconds": seconds, "bytes": output.stat().st_size})
    else:
        stderr.print(f"{output}: {_sentence(made)}")
        for each in made.explanations[:_EXPLAINED]:
            stderr.print(_explanation(each), soft_wrap=True)


def picked(sample: Sample, max_images: int | None) -> Sample:
    """At most `max_images` of a sample, chosen to cover it; all of it for None."""
    if max_images is None or max_images >= len(sample):
        return sample
    with progress("images") as bar:
        return sample.pick(max_images, stages_on(bar)("choosing", len(sample)))


def _make(fp32: OnnxModel, sample: Sample, settings: Settings, from_table: Path | None) -> Calibrated:
    with progress() as bar:
        if from_table is None:
            return int8_from_fp32(fp32, sample, settings, stages_on(bar))
        table = read_table(from_table)
        return apply_table(fp32, table, sample, stages_on(bar), sensitivity=settings.sensitivity)


def _write(made: Calibrated, output: Path, table: Path | None, plot: Path | None) -> None:
    output.write_bytes(made.model.data)
    if table is not None:
        table.write_text(made.table.to_json())
    if plot is not None and made.sensitivity is not None:
        plot.write_bytes(sensitivity_png(made.sensitivity.layers))


def _document(made: Calibrated) -> dict[str, object]:
    table = made.table
    return {
        "method": table.method,
        "images": len(table.images),
        "tensors": len(table.ranges),
        "peak_rss_mb": _peak_rss_mb(),
        "delta_db": round(made.cost.delta_db, 4),
        "worst_db": round(min(made.cost.deltas_db), 4),
        "parity_db": round(made.cost.parity_db, 2),
        "int8_macs": round(made.int8_macs, 4),
        "float": dict(table.kept),
        "excluded": list(table.excluded),
        "coverage": made.coverage and asdict(made.coverage),
        "method_losses_db": {method: round(loss, 4) for method, loss in made.losses_db.items()},
        "explain": [asdict(each) for each in made.explanations],
        "drift": {drift.weight: [round(ratio, 3) for ratio in drift.ratios] for drift in made.drift},
        "sensitivity": made.sensitivity and asdict(made.sensitivity),
    }


def _sentence(made: Calibrated) -> str:
    table, cost = made.table, made.cost
    excluded = f", {len(table.excluded)} layers left out" if table.excluded else ""
    return (
        f"INT8 in {made.int8_macs:.1%} of the multiply-accumulates{excluded}; {len(table.ranges)} activations "
        f"calibrated by {table.method} on {len(table.images)} images; {cost.delta_db:+.3f} dB against float32, "
        f"{cost.parity_db:.1f} dB from it at worst, on {len(cost.deltas_db)} crops{_chosen(made.coverage)}"
    )


def _explanation(each: Explanation) -> str:
    return (
        f"  {each.layer}: {each.loss_db:+.4f} dB alone in INT8, most on {each.image} ({each.worst_db:+.4f} dB); "
        f"{each.macs_share:.1%} of the multiply-accumulates, {'INT8' if each.int8 else 'float'}"
    )


def _chosen(coverage: Coverage | None) -> str:
    if coverage is None or coverage.picked == coverage.pictures:
        return ""
    spans = ", ".join(f"{feature.span:.0%} of {feature.name}" for feature in coverage.features)
    return f"; the {coverage.picked} chosen of {coverage.pictures} images span {spans}"


def _peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage would count what the parent had when it forked
        peak_kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(peak_kib) / 1024, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
