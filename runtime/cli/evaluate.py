"""`unblur evaluate`: judge a model on a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from unblur.runtime.quality.evaluate import Row
    from unblur.runtime.quality.evaluate_report import ContactSheet
    from unblur.runtime.quality.pairs import Pair
    from unblur.runtime.runner import Runner

_SHEET_ROWS = 6


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped preset, a bundle, an .onnx or an .engine file.")],
    data: Annotated[
        Path,
        typer.Option(help="Folder of GoPro, RealBlur (or its list file), HIDE or Koehler, or of blur/ and sharp/."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for per_image.csv, summary.md and contact_sheet.png.")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Which variant of a bundle to judge.")
    ] = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the model's own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")] = None,
    device: Annotated[
        Literal["auto", "tensorrt", "cuda", "cpu"], typer.Option(help="What to run on; default the fastest here.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Judge a model on a data set: PSNR and SSIM, or MSSIM on Koehler's, of every picture and their means.

    Whole frames, 8-bit RGB, nothing cropped. On Koehler's set the best over the camera's trajectory counts.
    Pictures of RealBlur are not aligned to their references as its authors do, so figures there are lower.
    """
    from unblur.runtime.console import print_json
    from unblur.runtime.files import make_folder
    from unblur.runtime.model.open_model import open_runner
    from unblur.runtime.quality.evaluate_report import ContactSheet, Evaluation, document, print_table, write_files
    from unblur.runtime.quality.pairs import find_pairs
    from unblur.runtime.runner import RunnerOptions

    pairs, sheet = find_pairs(data), ContactSheet()
    with open_runner(model, RunnerOptions(precision, steps, threads, device)) as runner:
        if out is not None:
            make_folder(out)
        rows = _judge(runner, pairs, sheet)
        result = Evaluation(Path(model).name, data.name, runner.device, runner.precision, runner.spec.steps, rows)
    if out is not None:
        write_files(out, result, sheet)
    if json:
        print_json(document(result))
    else:
        print_table(result)


def _judge(runner: "Runner", pairs: "list[Pair]", sheet: "ContactSheet") -> "list[Row]":
    """Decode everything once, then run the loop, under progress bars; pairs at even distances go onto the sheet."""
    from unblur.runtime.console import progress
    from unblur.runtime.quality.evaluate import evaluate as judge_pairs
    from unblur.runtime.quality.pairs import check_pairs

    count = min(_SHEET_ROWS, len(pairs))
    shown = {round(index * (len(pairs) - 1) / max(count - 1, 1)) for index in range(count)}
    rows = []
    with progress("pairs") as bar:
        reading = bar.add_task("reading", total=len(pairs), note="")
        check_pairs(pairs, lambda: bar.advance(reading))
        task = bar.add_task("judging", total=len(pairs), note="")
        for index, judged in enumerate(judge_pairs(runner, pairs)):
            rows.append(judged.row)
            if index in shown:
                sheet.add(judged)
            bar.update(task, advance=1, note=f"{judged.row.restored.psnr_db:.2f} dB")
    return rows
