"""`unblur profile`: how fast a model runs here, and how sure that is."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from unblur.runtime.profile.document import Profile
    from unblur.runtime.profile.measure import Control

_INTERRUPTED = 130
_REDRAWN_EVERY_S = 0.5


def profile(
    model: Annotated[str, typer.Argument(help="A shipped preset, a bundle, an .onnx or an .engine file.")],
    size: Annotated[str, typer.Option(help="Height x width of the pictures.")] = "720x1280",
    batch: Annotated[int, typer.Option(min=1, help="Pictures per inference.")] = 1,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Which variant of a bundle to run.")
    ] = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the model's own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default one per core.")] = None,
    device: Annotated[
        str, typer.Option(help="What to run on: auto (the fastest here), tensorrt, cuda or cpu.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(help="How long to measure, at least 10 inferences.")] = 10,
    minutes: Annotated[
        float | None, typer.Option(help="Measure for so long instead, and look for throttling.")
    ] = None,
    warm_up: Annotated[float, typer.Option(help="Seconds to wait at most until the latency has settled.")] = 30,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Vary sizes, batches or streams: batches, or sizes=360x640,720x1280. Repeatable."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model to run in turn with this one: is it faster or slower?")
    ] = None,
    against_precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"] | None, typer.Option(help="Of the other; default as --precision.")
    ] = None,
    against_steps: Annotated[int | None, typer.Option(min=1, help="Of the other; default as --steps.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time per layer, stage and step, the roofline, why INT8 is not faster.")
    ] = False,
    telemetry: Annotated[bool, typer.Option(help="Read power, clocks and temperature meanwhile.")] = True,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the profile to this file, JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure how long a model takes here: percentiles with intervals, once the latency has settled.

    Cold start, first inference and steady state are told apart, and host, copies and device where the runner can
    tell. The inputs are random pictures that do not fit the cache together. Each sweep takes about as long again,
    up to twice with its warm-ups; --against takes twice as long.
    Exit code 0 whatever is found, a verdict of --against and throttling included; 2 if it could not be measured;
    130 if it was interrupted, which keeps what was measured so far.
    """
    import_ms = _import_runners()
    from unblur.runtime.console import log_on_stderr
    from unblur.runtime.errors import UnblurError
    from unblur.runtime.files import require_parent
    from unblur.runtime.profile.measure import Plan
    from unblur.runtime.profile.profile_model import ModelChoice, ProfileRequest, profile_model
    from unblur.runtime.profile.sweep import device_from_text, sweeps_from_text
    from unblur.runtime.runner import RunnerOptions
    from unblur.runtime.spec import parse_size_hw

    if out is not None:
        require_parent(out)
    choice = ModelChoice(model, RunnerOptions(precision, steps, threads, device_from_text(device)))
    other = ModelChoice(
        against or model,
        replace(choice.options, precision=against_precision or precision, steps=against_steps or steps),
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
        ),
        sweeps=sweeps_from_text(sweep) if sweep else None,
        against=None if (against, against_precision, against_steps) == (None, None, None) else other,
        layers=layers,
    )
    kept: list[Profile] = []
    try:
        with log_on_stderr(), controlled() as control:
            found = profile_model(request, control, import_ms=import_ms, keep=kept.append)
    except UnblurError:
        if kept:  # a later section failed, which loses nothing of those before
            _tell(kept[-1], out, json=json)
        raise
    _tell(found, out, json=json)
    if found.interrupted:
        sys.stderr.write(f"unblur: interrupted; these are the first {found.samples} inferences\n")
        raise typer.Exit(_INTERRUPTED)


def _tell(found: "Profile", out: Path | None, *, json: bool) -> None:
    from unblur.runtime.console import print_json
    from unblur.runtime.profile.document import write_profile
    from unblur.runtime.profile.text import print_profile

    if out is not None:
        write_profile(out, found)
    if json:
        print_json(found.to_json())
    else:
        print_profile(found)


def _import_runners() -> float | None:
    """Milliseconds that it took, the first part of a cold start; None if they were there already."""
    if "unblur.runtime.model.open_model" in sys.modules:
        return None
    began = time.perf_counter()
    import unblur.runtime.model.open_model  # noqa: F401

    return (time.perf_counter() - began) * 1e3


@contextmanager
def controlled() -> "Iterator[Control]":
    """Ctrl-C ends the measurement; a bar on stderr shows how far it is, drawn between two inferences only."""
    from unblur.runtime.console import progress, stop_on_signals
    from unblur.runtime.profile.measure import Control

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
