"""`unblur profile`: how fast a model runs here, and how sure that is."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from unblur.runtime.cli import loading_ms
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
from unblur.runtime.console import log_on_stderr, print_json, progress, stop_on_signals
from unblur.runtime.errors import UnblurError
from unblur.runtime.files import require_parent
from unblur.runtime.profile.document import Profile, write_profile
from unblur.runtime.profile.measure import Control, Plan
from unblur.runtime.profile.profile_model import ModelChoice, ProfileRequest, profile_model
from unblur.runtime.profile.sweep import sweeps_from_text
from unblur.runtime.profile.text import print_profile
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import SpecOverrides, parse_size_hw

_INTERRUPTED = 130
_REDRAWN_EVERY_S = 0.5


@with_overrides
def profile(
    model: ModelArgument,
    size: Annotated[str, typer.Option(help="Height x width of the images.")] = "720x1280",
    tensor: Annotated[
        bool,
        typer.Option("--tensor", help="Feed floats to the network alone, not frames through `run`'s path."),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images per inference, with --tensor.")] = 1,
    precision: PrecisionOption = "auto",
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(help="How long to measure, at least 10 inferences.")] = 10,
    minutes: Annotated[
        float | None, typer.Option(help="Measure for so long instead, and look for throttling.")
    ] = None,
    warm_up: Annotated[float, typer.Option(help="Seconds to wait at most until the latency has settled.")] = 30,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Vary sizes, batches or streams: batches, or sizes=360x640,720x1280. Repeatable."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Another model to run in turn with this one: is it faster or slower?")
    ] = None,
    baseline_precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"] | None,
        typer.Option(help="Of the baseline; default as --precision."),
    ] = None,
    baseline_steps: Annotated[int | None, typer.Option(min=1, help="Of the baseline; default as --steps.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time per layer, stage and step, the roofline, why INT8 is not faster.")
    ] = False,
    telemetry: Annotated[bool, typer.Option(help="Read power, clocks and temperature meanwhile.")] = True,
    output: Annotated[Path | None, output_option("Write the profile to this file, JSON.")] = None,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Measure how long a model takes here: percentiles with intervals, once the latency has settled.

    Cold start, first inference and steady state are separate, and so are host, copies and device where the runner
    reports them. The inputs are random images that do not fit the cache together. Each sweep takes about as long
    again, up to twice with its warm-ups; --baseline takes twice as long.
    Exit code 0 whatever is found, a verdict on --baseline and throttling included; 2 if it could not be measured;
    130 if it was interrupted, which keeps what was measured so far.
    """
    if output is not None:
        require_parent(output)
    choice = ModelChoice(model, RunnerOptions(precision, steps, threads, device, overrides=overrides))
    other = ModelChoice(
        baseline or model,
        replace(choice.options, precision=baseline_precision or precision, steps=baseline_steps or steps),
    )
    request = ProfileRequest(
        choice=choice,
        plan=Plan(
            size_hw=parse_size_hw(size),
            batch=batch,
            seconds=seconds if minutes is None else 60 * minutes,
            warm_up_s=warm_up,
            sustained=minutes is not None,
            telemetry=telemetry,
            tensor=tensor,
        ),
        sweeps=sweeps_from_text(sweep) if sweep else None,
        against=None if (baseline, baseline_precision, baseline_steps) == (None, None, None) else other,
        layers=layers,
    )
    kept: list[Profile] = []
    try:
        with log_on_stderr(), controlled() as control:
            found = profile_model(request, control, import_ms=loading_ms.get("profile"), keep=kept.append)
    except UnblurError:
        if kept:  # a later section failed, which loses nothing of those before
            _report(kept[-1], output, json=json)
        raise
    _report(found, output, json=json)
    if found.interrupted:
        sys.stderr.write(f"unblur: interrupted; these are the first {found.samples} inferences\n")
        raise typer.Exit(_INTERRUPTED)


def _report(found: Profile, output: Path | None, *, json: bool) -> None:
    if output is not None:
        write_profile(output, found)
    if json:
        print_json(found.to_json())
    else:
        print_profile(found)


@contextmanager
def controlled() -> Iterator[Control]:
    """Ctrl-C ends the measurement; a bar on stderr shows how far it is, drawn between two inferences only."""
    with stop_on_signals() as stop, progress("%", auto_refresh=False) as bar:
        task = bar.add_task("first inference", total=None, note="")
        bar.refresh()
        drawn_s = 0.0

        def watch(phase: str, done: float | None) -> None:
            nonlocal drawn_s
            now_s = time.monotonic()
            if now_s - drawn_s >= _REDRAWN_EVERY_S:
                drawn_s = now_s
                percent = None if done is None else round(100 * done)
                bar.update(task, description=phase, total=None if done is None else 100, completed=percent)
                bar.refresh()

        yield Control(stop=stop, watch=watch)
