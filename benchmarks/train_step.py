"""What a training step costs beside the network: its time over that of a bare forward and backward.

    python -m benchmarks.train_step lprn-s --data ../shared/data

The bare step runs the same network on the same batch, in the same precision, with the mean absolute difference as
its loss; the whole one draws its batch from the pool (refilled by one process), takes the losses of the recipe,
clips, steps the optimiser and averages the weights. Both run in turn, several times. Wants a machine that does
nothing else.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.command import Json, log, print_report, run
from benchmarks.figures import Report, of_repeats
from unblur.train.compute import has_fast_bf16, thread_count
from unblur.train.data import TrainingData, open_training_data
from unblur.train.loop import Length, Schedule, train
from unblur.train.networks import build_network
from unblur.train.recipe import Recipe, recipe_of
from unblur.train.run_folder import Report as TrainingReport

MOST_RATIO = 1.43
_NEVER = 10**9


def main(
    preset: Annotated[str, typer.Argument(help="A preset to train.")] = "lprn-s",
    data: Annotated[Path, typer.Option(help="Folder with gopro_train and stills_train.")] = Path("../shared/data"),
    iterations: Annotated[int, typer.Option(min=20, help="Of each measurement.")] = 60,
    repeats: Annotated[int, typer.Option(min=2)] = 4,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of both.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare crops.")] = 1,
    json: Json = False,
) -> None:
    """Measure both; exit 1 above 1.43."""
    recipe = recipe_of(preset)
    training_data = open_training_data([data / "gopro_train"], [data / "stills_train"])
    bare_ms, whole_ms = list[float](), list[float]()
    for number in range(1, repeats + 1):
        bare_ms.append(_bare_ms(preset, recipe, iterations, threads))
        whole_ms.append(_whole_ms(preset, recipe, training_data, iterations, threads, workers))
        log(f"{number}: forward and backward {bare_ms[-1]:.1f} ms, training step {whole_ms[-1]:.1f} ms")
    ratios = [whole / bare for whole, bare in zip(whole_ms, bare_ms, strict=True)]
    figures = (
        of_repeats("training step over forward and backward", "", ratios, "lower", asked=MOST_RATIO),
        of_repeats("training step", "ms", whole_ms, "lower"),
        of_repeats("forward and backward", "ms", bare_ms, "lower"),
    )
    print_report(Report("train_step", figures), json=json)


def _bare_ms(preset: str, recipe: Recipe, iterations: int, threads: int) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(preset).train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape = (recipe.batch, 3, recipe.crop, recipe.crop)
    blurred, sharp = (torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last) for _ in "bs")
    with thread_count(threads):
        for iteration in range(iterations):
            if iteration == iterations // 4:
                _wait(device)
                began_s = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device.type)):
                restored = network(blurred)
            (restored.float() - sharp).abs().mean().backward()
            network.zero_grad()
        _wait(device)
        return 1e3 * (time.perf_counter() - began_s) / (iterations - iterations // 4)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _whole_ms(
    preset: str, recipe: Recipe, data: TrainingData, iterations: int, threads: int, workers: int
) -> float:
    """Between the reports at a quarter and at the end, so that the first crops of the pool do not count."""
    reports: list[TrainingReport] = []
    schedule = Schedule(report_every=iterations // 4, validate_every=_NEVER, checkpoint_s=_NEVER)
    with tempfile.TemporaryDirectory() as folder:
        train(
            build_network(preset),
            recipe,
            data,
            Length(iterations=2 * iterations),  # the last report validates; those before it do not
            Path(folder) / "run",
            threads=threads,
            workers=workers,
            schedule=schedule,
            on_report=reports.append,
        )
    first = next(report for report in reports if report.iteration >= iterations // 4)
    last = next(report for report in reports if report.iteration >= iterations)
    return 1e3 * (last.elapsed_s - first.elapsed_s) / (last.iteration - first.iteration)


if __name__ == "__main__":
    run(main)
