"""`unblur report`: what is known of bundles and how fast they are here, on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unblur.runtime.console import print_json, progress, stderr
from unblur.runtime.errors import needs_extra
from unblur.runtime.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from unblur.export.report.measure import Subject
    from unblur.runtime.profile.measure import Plan


def report(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Shipped presets or bundle folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write, HTML.")],
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="What `unblur profile BUNDLE -o FILE` wrote, of any device and steps. Repeatable."),
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Folder of pairs to judge what was profiled on.")] = None,
    seconds: Annotated[
        float, typer.Option(help="How long to profile each number of steps, of bundles without a --profile.")
    ] = 5,
    size: Annotated[str, typer.Option(help="Height x width to profile at.")] = "720x1280",
    no_profile: Annotated[bool, typer.Option("--no-profile", help="Measure no times now.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the data of the page as JSON on stdout.")] = False,
) -> None:
    """Put bundles on one page, side by side: model cards, parity, pictures, latency, layers, INT8, power.

    Bundles without a --profile are profiled now, for a short time at every number of steps.
    """
    with needs_extra("export"):
        from unblur.export.report.measure import SCHEMA, read_subjects
        from unblur.export.report.measured_page import measured_page
    from unblur.runtime.profile.measure import Plan
    from unblur.runtime.profile.sweep import size_from_text

    plan = None if no_profile else Plan(size_hw=size_from_text(size), seconds=seconds, warm_up_s=2 * seconds)
    with atomic_file(output) as temporary:
        subjects = _measured(read_subjects(bundles, profile or ()), plan, pairs)
        temporary.write_text(measured_page(subjects), encoding="utf-8")
    if json:
        documents = [subject.document() for subject in subjects]
        print_json({"schema": SCHEMA, "output": str(output), "bundles": documents})
    else:
        stderr.print(f"wrote {output}; open it in a browser")


def _measured(subjects: "list[Subject]", plan: "Plan | None", pairs: Path | None) -> "list[Subject]":
    """The subjects with profiles and quality, as far as they are asked for and not there."""
    from unblur.export.report.measure import with_profiles, with_quality
    from unblur.runtime.quality.pairs import find_pairs

    found = None if pairs is None else find_pairs(pairs)
    with progress(auto_refresh=False) as bar:  # a thread that draws would be measured too

        def stage(name: str, total: int) -> "Callable[[], object]":
            task = bar.add_task(name, total=total, note="")
            bar.refresh()
            return lambda: bar.update(task, advance=1, refresh=True)

        if plan is not None:
            subjects = [each if each.profiles else with_profiles(each, plan, stage) for each in subjects]
        if found is not None:
            subjects = [with_quality(each, found, stage) for each in subjects]
    return subjects
