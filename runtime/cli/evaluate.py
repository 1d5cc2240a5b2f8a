"""`unblur evaluate`: measure a model on a data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from unblur.runtime.cli.options import (
    DeviceOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    StepsOption,
    ThreadsOption,
    output_option,
    with_overrides,
)
from unblur.runtime.console import log_on_stderr, print_json, progress
from unblur.runtime.files import make_folder
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.quality.evaluate import Row
from unblur.runtime.quality.evaluate import evaluate as evaluate_pairs
from unblur.runtime.quality.evaluate_report import ContactSheet, Evaluation, document, print_table, write_files
from unblur.runtime.quality.pairs import Pair, check_pairs, find_pairs
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import SpecOverrides

_SHEET_ROWS = 6


@with_overrides
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Option(help="Folder of GoPro, RealBlur (or its list file), HIDE or Koehler, or of blur/ and sharp/."),
    ],
    output: Annotated[
        Path | None, output_option("Folder for per_image.csv, summary.md and contact_sheet.png.")
    ] = None,
    precision: PrecisionOption = "auto",
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Measure a model on a data set: PSNR and SSIM, or MSSIM on Koehler's, of every image and their means.

    Whole frames, 8-bit RGB, nothing cropped. On Koehler's set the best over the camera's trajectory counts.
    Images of RealBlur are not aligned to their references as its authors do, so figures there are lower.
    """
    pairs, sheet = find_pairs(data), ContactSheet()
    options = RunnerOptions(precision, steps, threads, device, overrides=overrides)
    with log_on_stderr(), open_runner(model, options) as runner:
        with _folder_for(output):
            rows = _rows(runner, pairs, sheet)
        result = Evaluation(Path(model).name, data.name, runner.device, runner.precision, runner.spec.steps, rows)
    if output is not None:
        write_files(output, result, sheet)
    if json:
        print_json(document(result))
    else:
        print_table(result)


@contextmanager
def _folder_for(output: Path | None) -> Iterator[None]:
    """The folder is there before the work that may take hours; one that was made for nothing is removed again."""
    made = output is not None and not output.exists()
    if output is not None:
        make_folder(output)
    try:
        yield
    except BaseException:
        if output is not None and made:
            output.rmdir()
        raise


def _rows(runner: Runner, pairs: list[Pair], sheet: ContactSheet) -> list[Row]:
    """Decode everything once, then measure, under progress bars; evenly spaced pairs go onto the sheet."""
    count = min(_SHEET_ROWS, len(pairs))
    shown = {round(index * (len(pairs) - 1) / max(count - 1, 1)) for index in range(count)}
    rows = []
    with progress("pairs") as bar:
        reading = bar.add_task("reading", total=len(pairs), note="")
        check_pairs(pairs, lambda: bar.advance(reading))
        task = bar.add_task("measuring", total=len(pairs), note="")
        for index, judged in enumerate(evaluate_pairs(runner, pairs)):
            rows.append(judged.row)
            if index in shown:
                sheet.add(judged)
            bar.update(task, advance=1, note=f"{judged.row.restored.psnr_db:.2f} dB")
    return rows
