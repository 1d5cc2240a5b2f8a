"""`unblur data`: make pairs of a blurred and a sharp image."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unblur.runtime.cli.options import output_option

data = typer.Typer(help="Make pairs to train on, from fast clips or from stills.", no_args_is_help=True)


Output = Annotated[Path, output_option("Folder of pairs; what is there from before is kept.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@data.command("gopro")
def gopro(
    clips: Annotated[list[Path], typer.Argument(help="Videos of 100 frames/s or more, or folders of frames.")],
    output: Output,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Average 7 to 23 frames of fast clips in linear light, as GoPro was made; the middle frame is the sharp one.

    Each clip becomes a scene, CLIP/blur and CLIP/sharp. A slower clip is taken with a warning: its blur has gaps.
    """
    from unblur.runtime.console import log_on_stderr, print_json, progress, stdout
    from unblur.runtime.errors import BadInput
    from unblur.runtime.files import make_folder
    from unblur.train.pair_folder import pairs_from_clip, scene_name

    scenes: dict[str, Path] = {}
    for clip in clips:
        if not clip.exists():
            raise BadInput(f"{clip} does not exist; expected a video or a folder of frames")
        if scenes.setdefault(scene_name(clip), clip) != clip:
            raise BadInput(f"{scenes[scene_name(clip)]} and {clip} would become one scene; rename one")
    make_folder(output)
    made = {}
    with log_on_stderr(), progress("frames") as bar:
        for name, clip in scenes.items():
            advance = partial(bar.advance, bar.add_task(name, total=None, note=""))
            made[name] = pairs_from_clip(clip, output, seed=seed, advance=advance)
    if json:
        print_json({"folder": str(output), "pairs": sum(made.values()), "scenes": made})
    else:
        stdout.print(f"{output} holds {sum(made.values())} pairs of {len(made)} clips", soft_wrap=True)


@data.command("synth")
def synth(
    stills: Annotated[Path, typer.Argument(help="Folder of sharp images.")],
    output: Output,
    per_still: Annotated[int, typer.Option(min=1, help="Pairs to make of each image.")] = 1,
    lens: Annotated[float, typer.Option(min=0, max=1, help="Share blurred by the lens, not by a shake.")] = 0.1,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Blur stills by random camera shakes of 4 to 40 px, or by a lens out of focus, with noise and saturation."""
    from unblur.runtime.console import print_json, progress, stdout
    from unblur.runtime.images import list_images
    from unblur.train.pair_folder import Synthesis, pairs_from_stills

    paths = list_images(stills)
    with progress("pairs") as bar:
        task = bar.add_task("blurring", total=len(paths) * per_still, note="")
        pairs = pairs_from_stills(
            paths, output, Synthesis(seed, per_still, lens), advance=lambda: bar.advance(task)
        )
    if json:
        print_json({"folder": str(output), "pairs": pairs, "stills": len(paths)})
    else:
        stdout.print(f"{output} holds {pairs} pairs of {len(paths)} stills", soft_wrap=True)
