"""How latency and throughput change with the frame size, the batch, and streams that run at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Padding
from unblur.runtime.profile.document import Percentiles, Point, SizeSweep, Sweeps, intervals_of
from unblur.runtime.profile.latency import summarise
from unblur.runtime.profile.measure import Control, Plan, Series, measure, ready_to_measure, unwatched
from unblur.runtime.runner import Runner
from unblur.runtime.spec import parse_size_hw

Size = tuple[int, int]

COUNTS = (1, 2, 4)
"""Default batches and streams of a sweep."""

_KINDS = ("sizes", "batches", "streams")


@dataclass(frozen=True)
class SweepRequest:
    """What to vary; None: not at all. sizes: (height, width); empty: some up to the size of the profile."""

    sizes: tuple[Size, ...] | None = None
    batches: tuple[int, ...] | None = None
    streams: tuple[int, ...] | None = None


def sweeps_from_text(texts: Iterable[str]) -> SweepRequest:
    """From "sizes", "streams=1,2", ...; BadInput if one is neither."""
    found: dict[str, tuple[Size, ...] | tuple[int, ...]] = {}
    for text in texts:
        kind, _, values = text.partition("=")
        if kind not in _KINDS:
            raise BadInput(f"--sweep is '{text}', expected one of {', '.join(_KINDS)}, or batches=1,2,8")
        parts = values.split(",") if values else []
        if kind == "sizes":
            found[kind] = tuple(parse_size_hw(part, "--sweep sizes") for part in parts)
        else:
            found[kind] = tuple(_count(part, kind) for part in parts) or COUNTS
    return SweepRequest(**found)  # type: ignore[arg-type]


def _count(text: str, kind: str) -> int:
    if not text.strip().isdecimal() or int(text) == 0:
        raise BadInput(f"--sweep {kind} has '{text}', expected whole numbers from 1, such as {kind}=1,2,8")
    return int(text)


SIDES = (0.25, 0.375, 0.5, 0.75, 1.0)
"""Sides of the frames of a size sweep, relative to the size asked for."""

_FEWEST_SIZES = 3


def sweep(
    request: SweepRequest, runner: Runner, open_runner: Callable[[], Runner], plan: Plan, control: Control
) -> Sweeps:
    """Run the sweeps asked for; each takes about `plan.seconds`. open_runner: opens one more like `runner`."""
    sizes = request.sizes or sizes_around(plan.size_hw, runner.spec.multiple_of)
    return Sweeps(
        sizes=None if request.sizes is None else sweep_sizes(runner, sizes, plan, control),
        batches=None if request.batches is None else sweep_batches(runner, request.batches, plan, control),
        streams=None if request.streams is None else sweep_streams(open_runner, request.streams, plan, control),
    )


def sizes_around(size_hw: Size, multiple_of: int) -> tuple[Size, ...]:
    """The sizes of a sweep up to `size_hw`, each padded, smallest first."""
    height, width = size_hw
    sides = ((round(height * side), round(width * side)) for side in SIDES)
    return tuple(sorted({Padding.to_multiple(side_hw, multiple_of).padded_hw for side_hw in sides}))


def sweep_sizes(runner: Runner, sizes: Sequence[Size], plan: Plan, control: Control) -> SizeSweep:
    """Measure all sizes in `plan.seconds`, and fit how the median grows with the pixels."""
    plan = _share(plan, len(sizes))
    return power_law(_points(runner, {_text(size): replace(plan, size_hw=size) for size in sizes}, control))


def sweep_batches(runner: Runner, batches: Sequence[int], plan: Plan, control: Control) -> tuple[Point, ...]:
    """Measure all batch sizes, as floats, in `plan.seconds`."""
    plan = replace(_share(plan, len(batches)), tensor=True)
    return _points(runner, {str(batch): replace(plan, batch=batch) for batch in batches}, control)


def sweep_streams(
    open_runner: Callable[[], Runner], counts: Sequence[int], plan: Plan, control: Control
) -> tuple[Point, ...]:
    """Measure several runners at once, each in its own thread; all counts in `plan.seconds`."""
    plan = _share(plan, len(counts))
    points = (_streams(open_runner, count, plan, control) for count in counts)
    return tuple(point for point in points if point is not None)


def power_law(points: Sequence[Point]) -> SizeSweep:
    """Fit the median latency as a power of the pixels: a straight line between logarithms, by least squares.

    The exponent is a weighted sum of the logarithms of the medians, so its interval follows from theirs, which are
    taken as independent. fit_error shows whether the law holds.
    """
    if len({point.pixels for point in points}) < _FEWEST_SIZES:
        return SizeSweep(tuple(points), None, None, None)
    pixels = np.log([point.pixels for point in points])
    medians = np.log([point.latency_ms.p50 for point in points])
    centred = pixels - pixels.mean()
    weights = centred / np.square(centred).sum()
    exponent = float(weights @ medians)
    half = float(np.linalg.norm(weights * [_half_width(point) for point in points]))
    residuals = medians - medians.mean() - exponent * centred
    return SizeSweep(
        tuple(points), exponent, (exponent - half, exponent + half), float(np.exp(np.abs(residuals).max()))
    )


def _share(plan: Plan, stops: int) -> Plan:
    """The plan for each point of a sweep; a warm-up takes at most as long as the measurement."""
    seconds = plan.seconds / stops
    return replace(plan, seconds=seconds, warm_up_s=min(plan.warm_up_s, seconds))


def _points(runner: Runner, plans: Mapping[str, Plan], control: Control) -> tuple[Point, ...]:
    """A point per plan, until interrupted."""
    points = []
    for value, plan in plans.items():
        stopwatch = ready_to_measure(runner, plan, control)
        series = measure(stopwatch, plan.seconds, control)
        if series.interrupted:  # a point that was cut short is dropped
            break
        points.append(_point(value, runner, plan, [series]))
    return tuple(points)


def _streams(open_runner: Callable[[], Runner], count: int, plan: Plan, control: Control) -> Point | None:
    """Open and warm up the runners, then run all at once. None if interrupted."""
    if control.stop.is_set():
        return None
    quiet = replace(control, watch=unwatched)
    with ExitStack() as opening, ThreadPoolExecutor(count) as threads:
        runners = [opening.enter_context(open_runner()) for _ in range(count)]
        stopwatches = [ready_to_measure(runner, plan, control) for runner in runners]
        running = [
            threads.submit(measure, stopwatch, plan.seconds, quiet if index else control)
            for index, stopwatch in enumerate(stopwatches)
        ]
        series = [each.result() for each in running]
        if any(each.interrupted for each in series):
            return None
        return _point(str(count), runners[0], plan, series)


def _point(value: str, runner: Runner, plan: Plan, streams: Sequence[Series]) -> Point:
    """Of one stream, or of several that ran at once."""
    height, width = Padding.to_multiple(plan.size_hw, runner.spec.multiple_of).padded_hw
    latency = summarise([ms for series in streams for ms in series.times_ms])
    return Point(
        value=value,
        pixels=plan.batch * height * width,
        samples=latency.samples,
        latency_ms=Percentiles.of(latency),
        intervals_ms=intervals_of(latency),
        fps=sum(plan.batch * len(series.times_ms) / series.ends_s[-1] for series in streams),
    )


def _half_width(point: Point) -> float:
    """Of the interval of the logarithm of the median."""
    ends = [np.log(end / point.latency_ms.p50) for end in point.intervals_ms["p50"] if end]
    return float(np.abs(ends).max())


def _text(size_hw: Size) -> str:
    return "x".join(map(str, size_hw))
