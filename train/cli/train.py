"""`unblur train`."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unblur.runtime.cli.options import output_option
from unblur.runtime.console import print_json, progress, stages_on, stderr, stdout
from unblur.runtime.errors import BadInput, needs_extra
from unblur.runtime.spec import OptionValue
from unblur.train.networks import find_preset

if TYPE_CHECKING:
    from torch import nn

    from unblur.runtime.spec import OptionValue
    from unblur.train.data import TrainingData
    from unblur.train.loop import Length
    from unblur.train.networks import DeblurringNetwork
    from unblur.train.recipe import AdversarialKind, ContentKind, Recipe
    from unblur.train.run_folder import Report


def train(
    system: Annotated[str, typer.Argument(help="A preset; --list shows them. With --qat also a checkpoint.")] = "",
    data: Annotated[Path | None, typer.Option(help="Folder of blurred/sharp pairs (GoPro, RealBlur, ...).")] = None,
    stills: Annotated[Path | None, typer.Option(help="Folder of sharp images to blur.")] = None,
    clips: Annotated[Path | None, typer.Option(help="Folder of clips whose frames are averaged.")] = None,
    output: Annotated[Path | None, output_option("Folder of the run.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train for this long.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Train for this many steps.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run's folder.")] = False,
    hold_out: Annotated[int, typer.Option(min=0, help="Pairs, the last by name, kept for validation.")] = 8,
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
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and samples.")] = None,
    qat: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Tune trained weights as INT8 with this calibration table.")
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.0, help="Seconds between checkpoints.")] = 60.0,
    validate_every: Annotated[int, typer.Option(min=1, help="Iterations between validations.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare samples.")] = 1,
    list_presets: Annotated[bool, typer.Option("--list", help="List what can be trained.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a network on pairs, on blurred stills, on averaged clips, or on all of them."""
    with needs_extra("train"):
        from unblur.train import loop
    if list_presets:
        _list(json)
        return
    if not system or output is None:
        raise BadInput("unblur train needs a preset and a folder for the run: unblur train lprn-s ... -o RUN")
    named = {"steps": steps, "attention": attention, "pooling": pooling}
    tuned = None if qat is None else _to_tune(system, qat, options or (), **named)
    preset = system if tuned is None else tuned.spec.preset
    recipe = _recipe(
        preset, content, adversarial, tune=tuned is not None,
        crop=crop, batch=batch, learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    network = tuned or _network(system, recipe.seed, options or (), **named)
    discriminator = _discriminator(preset, recipe)
    perceptual = _perceptual(recipe, vgg)
    training_data = open_data(data, stills, clips, hold_out)
    length = length_of(minutes, iterations)
    schedule = loop.Schedule(validate_every=validate_every, checkpoint_s=checkpoint_every)
    with progress() as bar:
        task = bar.add_task(system, total=1000, note="")

        def show(report: "Report") -> None:
            bar.update(task, completed=round(1000 * report.share_done), note=_note(report))

        weights = loop.train(
            network,
            recipe,
            training_data,
            length,
            output,
            discriminator=discriminator,
            perceptual=perceptual,
            resume=resume,
            workers=workers,
            schedule=schedule,
            on_report=show,
        )
    if json:
        print_json({"weights": str(weights), "run": str(output)})
    else:
        stderr.print(f"wrote {weights}")


def _recipe(
    system: str,
    content: "ContentKind | None",
    adversarial: "AdversarialKind | Literal['none'] | None",
    *,
    tune: bool,
    **overrides: float | int | None,
) -> "Recipe":
    from unblur.train.qat import fine_tuning
    from unblur.train.recipe import recipe_of

    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = recipe_of(system)
    recipe = replace(fine_tuning(recipe) if tune else recipe, **given)  # type: ignore[arg-type]
    recipe = recipe if content is None else recipe.with_content(content)
    return recipe if adversarial is None else recipe.with_adversarial(adversarial)


def _network(
    system: str, seed: int, assignments: Sequence[str], **named: "OptionValue | None"
) -> "DeblurringNetwork":
    import torch

    from unblur.train.networks import build_network

    given = {name: value for name, value in named.items() if value is not None}
    options = {**parse_options(system, assignments), **given}
    torch.manual_seed(seed)
    try:
        return build_network(system, **options)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _to_tune(
    weights: str, table: Path, assignments: Sequence[str], **named: "OptionValue | None"
) -> "DeblurringNetwork":
    from unblur.train.qat import open_fake_quantized

    if assignments or any(value is not None for value in named.values()):
        raise BadInput("--qat tunes a network as it was trained; leave --set, --steps, --attention, --pooling out")
    return open_fake_quantized(weights, table)


def _discriminator(system: str, recipe: "Recipe") -> "nn.Module | None":
    from unblur.train.networks import find_preset

    make = find_preset(system).discriminator
    if recipe.adversarial is None:
        return None
    if make is None:
        raise BadInput(f"{system} has no discriminator to train against; leave --adversarial out")
    return make()


def _perceptual(recipe: "Recipe", vgg: Path | None) -> "nn.Module | None":
    from unblur.train.losses import perceptual_loss

    if recipe.needs_vgg:
        return perceptual_loss(vgg)
    if vgg is not None:
        raise BadInput("--vgg is given but the loss is not perceptual; add --content perceptual or leave it out")
    return None


def open_data(data: Path | None, stills: Path | None, clips: Path | None, hold_out: int) -> "TrainingData":
    """List and decode the data under a progress bar; see `open_training_data`."""
    from unblur.train.data import open_training_data

    with progress("files") as bar:
        task = bar.add_task("checking the data", total=None, note="")
        return open_training_data(
            data, stills, clips, hold_out=hold_out if data else 0, advance=lambda: bar.advance(task)
        )


def length_of(minutes: float | None, iterations: int | None) -> "Length":
    """The length of a run as typed; BadInput unless it is given in exactly one way."""
    from unblur.train.loop import Length

    if (minutes is None) == (iterations is None):
        raise BadInput("say how long to train: either --minutes or --iterations")
    return Length(iterations=iterations, minutes=minutes)


def _note(report: "Report") -> str:
    psnr = "" if report.psnr_db is None else f" PSNR {report.psnr_db:.2f} dB"
    return f"step {report.iteration} loss {report.loss:.4f}{psnr} {report.images_per_s:.1f} images/s"


def _list(json: bool) -> None:
    from rich.table import Table

    from unblur.train.networks import PRESETS

    with progress() as bar:
        advance = stages_on(bar)("counting", len(PRESETS))
        rows = []
        for name in PRESETS:
            rows.append(_row(name))
            advance()
    if json:
        print_json([*rows])
        return
    table = Table(caption="GFLOP: of one 1280 x 720 frame; x of: height and width are multiples of it")
    table.add_column("preset", no_wrap=True)
    for heading in ("parameters", "GFLOP", "x of"):
        table.add_column(heading, justify="right")
    table.add_column("source")
    for row in rows:
        table.add_row(
            str(row["preset"]),
            f"{row['parameters']:,}",
            f"{row['gflop_720p']:,.1f}",
            str(row["multiple_of"]),
            str(row["source"]),
        )
    stdout.print(table)


def _row(name: str) -> dict[str, str | int | float]:
    from unblur.train.networks import PRESETS, build_network, count_parameters, gflop_720p

    network = build_network(name)
    return {
        "system": PRESETS[name].system,
        "preset": name,
        "parameters": count_parameters(network),
        "gflop_720p": round(gflop_720p(network), 2),
        "multiple_of": network.spec.multiple_of,
        "source": PRESETS[name].source,
    }


_TRUTHS = {"true": True, "false": False}


def options_of(preset: str) -> Mapping[str, OptionValue]:
    """The options a preset's network takes, with the values the preset gives them."""
    chosen = find_preset(preset)
    parameters = inspect.signature(chosen.network).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "preset"}
    return {**defaults, **chosen.options}


def parse_options(preset: str, assignments: Sequence[str]) -> dict[str, OptionValue]:
    """["width=8", "attention=none"] -> {"width": 8, "attention": "none"}, each of the type the preset has there.

    Raises BadInput for anything but NAME=VALUE, an option the network does not have, or a value of another type.
    """
    known = options_of(preset)
    parsed = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in known:
            options = ", ".join(f"{option}={value}".lower() for option, value in known.items())
            raise BadInput(f"--set '{assignment}', expected NAME=VALUE; {preset} has {options}")
        parsed[name] = _parse(name, text, like=known[name])
    return parsed


def _parse(name: str, text: str, *, like: OptionValue) -> OptionValue:
    try:
        return _TRUTHS[text] if isinstance(like, bool) else type(like)(text)
    except (KeyError, ValueError) as error:
        wanted = "true or false" if isinstance(like, bool) else f"a value like {like}"
        raise BadInput(f"--set {name}={text}: '{text}' is not {wanted}") from error
