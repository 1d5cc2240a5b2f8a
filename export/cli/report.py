"""`unblur report`: what is known of bundles, and how fast they are here, on one page."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from unblur.export.report.measure import SCHEMA, MeasuredBundle, read_bundles, with_profiles, with_quality
from unblur.export.report.measured_page import measured_page
from unblur.runtime.cli.options import JsonOption, output_option, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, progress, stderr
from unblur.runtime.files import atomic_file
from unblur.runtime.profile.measure import Plan
from unblur.runtime.quality.pairs import find_pairs
from unblur.runtime.spec import SpecOverrides, parse_size_hw


@with_overrides
def report(
    bundles: Annotated[
        list[str], typer.Argument(metavar="BUNDLE...", help="Shipped presets, bundle folders or .onnx files.")
    ],
    output: Annotated[Path, output_option("The page to write, HTML.")],
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="What `unblur profile BUNDLE -o FILE` wrote, of any device and steps. Repeatable."),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Folder of pairs to measure the quality of what was profiled on.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="How long to profile each number of steps, of bundles without a --profile.")
    ] = 5,
    size: Annotated[str, typer.Option(help="Height x width to profile at.")] = "720x1280",
    no_profile: Annotated[bool, typer.Option("--no-profile", help="Do not measure times now.")] = False,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Put bundles on one page, side by side: model cards, parity, images, latency, layers, INT8, power.

    Bundles without a --profile are profiled now, for a short time at every number of steps.
    """
    plan = None if no_profile else Plan(size_hw=parse_size_hw(size), seconds=seconds, warm_up_s=2 * seconds)
    with log_on_stderr(), atomic_file(output) as temporary:
        measured = _measured(read_bundles(bundles, profile or (), overrides), plan, pairs)
        temporary.write_text(measured_page(measured), encoding="utf-8")
    if json:
        documents = [bundle.document() for bundle in measured]
        print_json({"schema": SCHEMA, "output": str(output), "bundles": documents})
    else:
        stderr.print(f"wrote {output}; open it in a browser")


def _measured(measured: list[MeasuredBundle], plan: Plan | None, pairs: Path | None) -> list[MeasuredBundle]:
    """The bundles with profiles and quality, where these are asked for and missing."""
    found = None if pairs is None else find_pairs(pairs)
    with progress(auto_refresh=False) as bar:  # a thread that draws would be measured too

        def stage(name: str, total: int) -> Callable[[], object]:
            task = bar.add_task(name, total=total, note="")
            bar.refresh()
            return lambda: bar.update(task, advance=1, refresh=True)

        if plan is not None:
            measured = [each if each.profiles else with_profiles(each, plan, stage) for each in measured]
        if found is not None:
            measured = [with_quality(each, found, stage) for each in measured]
    return measured
