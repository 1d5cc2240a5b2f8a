"""`unblur train`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.table import Table
from torch import nn

from unblur.runtime.cli.options import JsonOption, output_option
from unblur.runtime.console import log_on_stderr, print_json, progress, stages_on, stderr, stdout
from unblur.runtime.errors import BadInput
from unblur.runtime.spec import OptionValue
from unblur.train import networks
from unblur.train.checkpoint import load_checkpoint, resolve_checkpoint, start_from
from unblur.train.data import HoldOut, TrainingData, open_training_data
from unblur.train.loop import Length, Schedule
from unblur.train.loop import train as run_training
from unblur.train.losses import perceptual_loss
from unblur.train.networks import DeblurringNetwork, build_network, count_parameters, find_preset, gflop_720p
from unblur.train.networks.options import parse_options
from unblur.train.qat import fine_tuning, open_fake_quantized
from unblur.train.recipe import AdversarialKind, ContentKind, Recipe, full_iterations, recipe_of
from unblur.train.run_folder import Report

Folders = list[Path] | None


def train(
    system: Annotated[str, typer.Argument(help="A preset; --list shows them. With --qat also a checkpoint.")] = "",
    data: Annotated[Folders, typer.Option(help="Folder of blurred/sharp pairs (GoPro, ...); repeatable.")] = None,
    stills: Annotated[Folders, typer.Option(help="Folder of sharp images to blur; repeatable.")] = None,
    clips: Annotated[Folders, typer.Option(help="Folder of clips, averaged if 100 frames/s or more.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from these weights: a checkpoint, or a preset that ships.")
    ] = None,
    output: Annotated[Path | None, output_option("Folder of the run.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train for this long.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Train for this many iterations.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train for as many crops as the paper did.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run's folder.")] = False,
    hold_out: Annotated[int, typer.Option(min=0, help="Pairs of the first folder kept for validation.")] = 8,
    hold_out_matching: Annotated[
        list[str] | None, typer.Option(help="Also keep pairs with this text in their path; repeatable.")
    ] = None,
    hold_out_stills: Annotated[int, typer.Option(min=0, help="Stills kept, shaken, for validation.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps, if not the preset's.")] = None,
    attention: Annotated[str | None, typer.Option(help="none, channel, spatial or both.")] = None,
    pooling: Annotated[str | None, typer.Option(help="global or local.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the network; repeatable.")
    ] = None,
    content: Annotated[
        Literal["l1", "l2", "perceptual"] | None, typer.Option(help="Content loss, if not the recipe's.")
    ] = None,
    adversarial: Annotated[
        Literal["none", "vanilla", "minimax", "wgan-gp"] | None,
        typer.Option(help="Adversarial loss, if not the recipe's."),
    ] = None,
    vgg: Annotated[Path | None, typer.Option(help="Weights of VGG19, for a perceptual loss.")] = None,
    crop: Annotated[int | None, typer.Option(min=16, help="Side of the training crop in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per iteration, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    cooldown: Annotated[
        float | None, typer.Option(min=0.0, max=0.9, help="Share of the run over which the rate goes to zero.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and samples.")] = None,
    qat: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Tune trained weights as INT8 with this calibration table.")
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.0, help="Seconds between checkpoints.")] = 60.0,
    validate_every: Annotated[int, typer.Option(min=1, help="Iterations between validations.")] = 500,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; measured if not given.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare crops; default the other cores.")
    ] = None,
    list_presets: Annotated[bool, typer.Option("--list", help="List what can be trained.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a network on pairs, on blurred stills, on averaged clips, or on all of them."""
    if list_presets:
        _list(json)
        return
    if not system or output is None:
        raise BadInput("unblur train needs a preset and a folder for the run: unblur train lprn-s ... -o RUN")
    named = {"steps": steps, "attention": attention, "pooling": pooling}
    if qat is not None and weights is not None:
        raise BadInput("--qat tunes the weights named first, unblur train WEIGHTS --qat TABLE; leave --weights out")
    tuned = None if qat is None else _to_tune(system, qat, options or (), **named)
    preset = system if tuned is None else tuned.spec.preset
    recipe = _recipe(
        preset, content, adversarial, tune=tuned is not None,
        crop=crop, batch=batch, learning_rate=learning_rate, cooldown_share=cooldown, seed=seed,
    )  # fmt: skip
    network = tuned or _network(system, recipe.seed, weights, options or (), **named)
    discriminator = _discriminator(preset, recipe)
    perceptual = _perceptual(recipe, vgg)
    length = length_of(minutes, iterations, full_iterations(preset, recipe.batch) if full else None)
    held = HoldOut(hold_out if data else 0, tuple(hold_out_matching or ()), hold_out_stills)
    with log_on_stderr():
        training_data = open_data(data, stills, clips, held)
    with log_on_stderr(), progress() as bar:
        task = bar.add_task(system, total=1000, note="")

        def show(report: Report) -> None:
            bar.update(task, completed=round(1000 * report.share_done), note=_note(report))

        trained = run_training(
            network,
            recipe,
            training_data,
            length,
            output,
            discriminator=discriminator,
            perceptual=perceptual,
            resume=resume,
            workers=workers,
            threads=threads,
            schedule=Schedule(validate_every=validate_every, checkpoint_s=checkpoint_every),
            on_report=show,
        )
    if json:
        print_json({"weights": str(trained), "run": str(output)})
    else:
        stderr.print(f"wrote {trained}")


def _recipe(
    preset: str,
    content: ContentKind | None,
    adversarial: AdversarialKind | Literal["none"] | None,
    *,
    tune: bool,
    **overrides: float | int | None,
) -> Recipe:
    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = recipe_of(preset)
    recipe = replace(fine_tuning(recipe) if tune else recipe, **given)  # type: ignore[arg-type]
    recipe = recipe if content is None else recipe.with_content(content)
    return recipe if adversarial is None else recipe.with_adversarial(adversarial)


def _network(
    preset: str, seed: int, weights: str | None, assignments: Sequence[str], **named: OptionValue | None
) -> DeblurringNetwork:
    """Untrained, or with the weights of a checkpoint and its options; those given replace them."""
    given = {name: value for name, value in named.items() if value is not None}
    options = {**parse_options(preset, assignments), **given}
    if weights is None:
        return _untrained(preset, seed, options)
    path = resolve_checkpoint(weights)
    trained = load_checkpoint(path)
    if trained.spec.preset != preset:
        raise BadInput(f"{path} holds weights of {trained.spec.preset}, expected {preset}")
    steps = {"steps": trained.steps} if trained.recursive else {}
    network = _untrained(preset, seed, {**trained.spec.options, **steps, **options})
    start_from(network, trained, path)
    return network


def _untrained(preset: str, seed: int, options: Mapping[str, OptionValue]) -> DeblurringNetwork:
    torch.manual_seed(seed)
    try:
        return build_network(preset, **options)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _to_tune(
    weights: str, table: Path, assignments: Sequence[str], **named: OptionValue | None
) -> DeblurringNetwork:
    if assignments or any(value is not None for value in named.values()):
        raise BadInput("--qat tunes a network as it was trained; leave --set, --steps, --attention, --pooling out")
    return open_fake_quantized(weights, table)


def _discriminator(preset: str, recipe: Recipe) -> nn.Module | None:
    make = find_preset(preset).discriminator
    if recipe.adversarial is None:
        return None
    if make is None:
        raise BadInput(f"{preset} has no discriminator to train against; leave --adversarial out")
    return make()


def _perceptual(recipe: Recipe, vgg: Path | None) -> nn.Module | None:
    if recipe.needs_vgg:
        return perceptual_loss(vgg)
    if vgg is not None:
        raise BadInput("--vgg is given but the loss is not perceptual; add --content perceptual or leave it out")
    return None


def open_data(data: Folders, stills: Folders, clips: Folders, hold_out: HoldOut) -> TrainingData:
    """List and decode the data under a progress bar; see `open_training_data`."""
    with progress("files") as bar:
        task = bar.add_task("checking the data", total=None, note="")
        return open_training_data(
            data or (), stills or (), clips or (), hold_out=hold_out, advance=lambda: bar.advance(task)
        )


def length_of(minutes: float | None, iterations: int | None, full: int | None = None) -> Length:
    """The length of a run as typed; BadInput unless it is given in one way. full: the paper's iterations."""
    if [minutes, iterations, full].count(None) != 2:
        raise BadInput("give the length of the training in one way: --minutes, --iterations or --full")
    return Length(iterations=iterations or full, minutes=minutes)


def _note(report: Report) -> str:
    psnr = "" if report.psnr_db is None else f" PSNR {report.psnr_db:.2f} dB"
    return f"iteration {report.iteration} loss {report.loss:.4f}{psnr} {report.images_per_s:.1f} images/s"


def _list(json: bool) -> None:
    with progress() as bar:
        advance = stages_on(bar)("counting", len(networks.preset_names()))
        rows = []
        for name in networks.preset_names():
            rows.append(_row(name))
            advance()
    if json:
        print_json([*rows])
        return
    stdout.print(_table(rows))


def _table(rows: Sequence[Mapping[str, str | int | float]]) -> Table:
    table = Table(caption="GFLOP: of one 1280 x 720 frame; x of: height and width are multiples of it")
    table.add_column("preset", no_wrap=True)
    for heading in ("parameters", "GFLOP", "x of"):
        table.add_column(heading, justify="right")
    table.add_column("source")
    for row in rows:
        numbers = (f"{row['parameters']:,}", f"{row['gflop_720p']:,.1f}", str(row["multiple_of"]))
        table.add_row(str(row["preset"]), *numbers, str(row["source"]))
    return table


def _row(name: str) -> dict[str, str | int | float]:
    network, preset = build_network(name), find_preset(name)
    return {
        "system": preset.system,
        "preset": name,
        "parameters": count_parameters(network),
        "gflop_720p": round(gflop_720p(network), 2),
        "multiple_of": network.spec.multiple_of,
        "source": preset.source,
    }
