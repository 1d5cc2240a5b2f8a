"""Train the rows of a paper's ablation table on one small budget.

python -m benchmarks.ablations lprn-edge --data GoPro/train --stills photos --minutes 15 -o ablation
"""

import difflib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from benchmarks.ablations.ablate import Ablation, Budget, Result
from benchmarks.ablations.report import AblationReport, write_report
from benchmarks.ablations.tables import TABLES, Row, Table
from benchmarks.command import Json, run
from unblur.runtime.console import print_json, progress, stdout
from unblur.runtime.errors import BadInput
from unblur.runtime.files import make_folder
from unblur.train.cli.train import Folders, length_of, open_data
from unblur.train.data import HoldOut
from unblur.train.losses import perceptual_loss
from unblur.train.run_folder import Report


def main(
    table: Annotated[str, typer.Argument(help=", ".join(TABLES))],
    data: Annotated[list[Path], typer.Option(help="Folder of blurred/sharp pairs; repeatable.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the runs, TABLE.md and TABLE.json.")],
    stills: Annotated[Folders, typer.Option(help="Folder of sharp images to blur; repeatable.")] = None,
    clips: Annotated[Folders, typer.Option(help="Folder of clips, averaged if 100 frames/s or more.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train each row for this long.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Train each row for this many iterations.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of every network; repeatable."),
    ] = None,
    crop: Annotated[int | None, typer.Option(min=16, help="Side of the training crop in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per iteration.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and samples.")] = None,
    hold_out: Annotated[int, typer.Option(min=1, help="Pairs of the first folder to measure on.")] = 8,
    hold_out_matching: Annotated[
        list[str] | None, typer.Option(help="Also pairs with this text in their path; repeatable.")
    ] = None,
    hold_out_stills: Annotated[int, typer.Option(min=0, help="Also stills, shaken.")] = 0,
    vgg: Annotated[Path | None, typer.Option(help="Weights of VGG19, for perceptual losses; else L1.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; measured if not given.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare crops.")] = None,
    json: Json = False,
) -> None:
    """Train every row of a paper's ablation table on one small budget, with the published figures beside ours.

    A row that is done is not trained again and one that was stopped goes on: the same command completes a table.
    """
    chosen = _find_table(table)
    length = length_of(minutes, iterations)
    given = {"crop": crop, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    overrides = {name: value for name, value in given.items() if value is not None}
    budget = Budget(length, tuple(options or ()), overrides)
    perceptual = None if vgg is None else perceptual_loss(vgg)
    held = HoldOut(hold_out, tuple(hold_out_matching or ()), hold_out_stills)
    ablation = Ablation(open_data(data, stills, clips, held), budget, output, perceptual, workers, threads)
    make_folder(output)
    rows = _train(chosen, ablation)
    command = shlex.join(["python", "-m", "benchmarks.ablations", *sys.argv[1:]])
    report = AblationReport(chosen, command, length, ablation.data, ablation.blurred(), rows)
    write_report(report, output / table)
    if json:
        print_json(report.document())
    else:
        stdout.print(report.markdown(), markup=False, soft_wrap=True)


def _find_table(name: str) -> Table:
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BadInput(f"there is no table '{name}', there are {', '.join(TABLES)}{hint}")
    return TABLES[name]


def _train(table: Table, ablation: Ablation) -> list[tuple[Row, Result]]:
    """Row after row under a progress bar. Each is built once before, so that a wrong option costs no work."""
    for row in table.rows:
        ablation.network_of(row)
    rows = []
    with progress() as bar:
        for row in table.rows:
            task = bar.add_task(row.name, total=1000, note="")

            def show(report: Report, task: TaskID = task) -> None:
                bar.update(task, completed=round(1000 * report.share_done), note=f"loss {report.loss:.4f}")

            result = ablation.result_of(row, show)
            bar.update(task, completed=1000, note=f"{result.quality.psnr_db:.2f} dB")
            rows.append((row, result))
    return rows


if __name__ == "__main__":
    run(main)
