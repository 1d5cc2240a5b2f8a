"""What `unblur profile` prints: one screen."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from unblur.runtime.console import stdout
from unblur.runtime.machine.telemetry import Spread, TelemetrySummary
from unblur.runtime.profile.document import Against, Placement, Point, Profile, SizeSweep
from unblur.runtime.profile.int8_advice import Advice
from unblur.runtime.profile.layers import Layer, Sum, by_stage, by_step
from unblur.runtime.profile.stationarity import Sustained

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDEST_NUMBER = 6


def table(title: str, first: str, *others: str) -> Table:
    """An empty table; all columns but the first hold numbers, which are never cut."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    made.add_column(first, no_wrap=True)
    for heading in others:
        made.add_column(heading, justify="right", no_wrap=True, min_width=max(len(heading), _WIDEST_NUMBER))
    return made


def number(value: float) -> str:
    """Four digits: more than a latency is known to."""
    decimals = 3 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{min(max(decimals, 0), 4)}f}"


def interval(ends: Sequence[float | None]) -> str:
    """ "9.81 to 10.2"; an end that is not known is a question mark."""
    low, high = ("?" if end is None else number(end) for end in ends)
    return f"{low} to {high}"


def bars(heights: Sequence[float]) -> str:
    """A line of bars, the highest full; nothing where there is nothing."""
    highest = max(heights)
    return "".join(
        _BLOCKS[math.ceil(height / highest * len(_BLOCKS)) - 1] if height > 0 else " " for height in heights
    )


_SHOWN = 10


def layer_tables(profile: Profile) -> Iterator[Table]:
    """Nothing for a profile without layers."""
    if profile.layers is None:
        return
    total_ms = sum(layer.ms or 0.0 for layer in profile.layers)
    placed = _placements(profile)
    yield _slowest(profile.layers, total_ms, placed)
    stages = sorted(by_stage(profile.layers).items(), key=lambda stage: stage[1].ms or 0.0, reverse=True)
    yield _sums("Stages", "stage", stages[:_SHOWN], total_ms)
    steps = list(by_step(profile.layers).items())
    if len(steps) > 1:
        yield _sums("Steps", "step", steps, total_ms)
    if profile.int8_advice:
        yield _advice(profile.int8_advice)


def _placements(profile: Profile) -> dict[int, Placement]:
    """By the identity of the layer: several layers of an engine may have one name."""
    if profile.roofline is None:
        return {}
    timed = (layer for layer in profile.layers or () if layer.ms is not None)
    return {id(layer): each for layer, each in zip(timed, profile.roofline.layers, strict=True)}


def _slowest(layers: Iterable[Layer], total_ms: float, placed: Mapping[int, Placement]) -> Table:
    slowest = sorted(layers, key=lambda layer: layer.ms or 0.0, reverse=True)[:_SHOWN]
    made = table(
        f"Layers, the slowest of {number(total_ms)} ms", "layer", *("ms", "share", "GFLOP/s"), "of its roof"
    )
    for layer in slowest:
        ms = layer.ms or 0.0
        speed = number(layer.flops / ms / 1e6) if layer.flops and ms else ""
        made.add_row(f"{layer.name} {layer.precision}", *_cost(ms, total_ms), speed, _roof(placed.get(id(layer))))
    return made


def _sums(title: str, first: str, sums: Iterable[tuple[object, Sum]], total_ms: float) -> Table:
    made = table(title, first, "ms", "share", "GFLOP", "layers")
    for name, cost in sums:
        flops = number(cost.flops / 1e9)
        made.add_row(str(name or "elsewhere"), *_cost(cost.ms or 0.0, total_ms), flops, str(cost.layers))
    return made


def _advice(advice: Sequence[Advice]) -> Table:
    made = Table("ms", "layers", "found", "what changes it", box=box.SIMPLE_HEAD, show_lines=True)
    made.title, made.title_justify = "Why INT8 is not faster", "left"
    for each in advice[:_SHOWN]:
        ms = number(each.ms) if each.ms else ""
        where = each.layer if each.layers < 2 else f"{each.layers} of {each.layer}"
        made.add_row(ms, where, each.finding, each.change)
    return made


def _cost(ms: float, total_ms: float) -> tuple[str, str]:
    return number(ms), f"{ms / total_ms:.0%}" if total_ms else ""


def _roof(placement: Placement | None) -> str:
    return "" if placement is None else f"{placement.attained:.0%} {placement.bound}"


_BINS = 32
_SHOWN_CHANNELS = 3
_PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "mean": "mean"}


def print_profile(profile: Profile) -> None:
    """Print what was measured on stdout."""
    stdout.print(_title(profile), soft_wrap=True)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _facts(profile):
        facts.add_row(name, text)
    stdout.print(facts)
    stdout.print(_latency_table(profile))
    for line in _remarks(profile):
        stdout.print(line, soft_wrap=True)
    for each in (*_sweep_tables(profile), *layer_tables(profile)):
        stdout.print(each)


def _title(profile: Profile) -> str:
    size, steps = "x".join(map(str, profile.size)), f"{profile.steps} step{'s' if profile.steps > 1 else ''}"
    cpu = profile.environment.cpu
    return (
        f"{profile.model} {profile.precision}, {steps}, {size}, batch {profile.batch}, on {profile.device}: "
        f"{cpu.model}, {cpu.threads} threads"
    )


def _facts(profile: Profile) -> Iterator[tuple[str, str | Text]]:
    cold = [f"{name} {number(ms)} ms" for name, ms in profile.cold_ms.items() if ms is not None]
    yield "cold start", ", ".join(cold).replace("first", "first inference")
    settled = ("settled", "") if profile.warmup.settled else ("did not settle", "yellow")
    hint = "" if profile.warmup.settled else ", --warm-up gives it longer"
    inferences = f"{profile.warmup.samples} inferences in {profile.warmup.seconds:.1f} s, "
    yield "warm-up", Text.assemble(inferences, settled, hint)
    yield "steady state", f"{number(profile.fps)} frames/s, {profile.samples} inferences"
    if profile.timing is not None:
        parts = {name.removesuffix("_ms").replace("_", " "): ms for name, ms in vars(profile.timing).items()}
        yield "of it", ", ".join(f"{name} {number(ms)} ms" for name, ms in parts.items() if ms)
    yield "spread", f"{_histogram(profile.times_ms)}, cv {profile.cv:.1%}"
    if profile.sustained is not None:
        yield "over time", _over_time(profile.sustained)
    if profile.telemetry is not None:
        yield from _sensors(profile.telemetry)


def _sensors(seen: TelemetrySummary) -> Iterator[tuple[str, str | Text]]:
    yield "power", _power(seen)
    if seen.temperature_c is not None:
        yield "temperature", _highest(seen.temperature_c, "C")
    if seen.clocks_mhz is not None:
        yield "clocks", _highest(seen.clocks_mhz, "MHz")
    if seen.power_mode is not None:
        yield "power mode", seen.power_mode
    if seen.jetson_clocks is not None:
        yield "jetson_clocks", "on" if seen.jetson_clocks else "off"
    if seen.throttled_percent is not None and any(seen.throttled_percent.values()):
        throttled = ", ".join(f"{name} {share:.0f} %" for name, share in seen.throttled_percent.items() if share)
        yield "throttled", Text(f"{throttled} of the time", "yellow")


def _histogram(times_ms: Sequence[float]) -> str:
    """A line of bars between the fastest and the slowest."""
    counts, edges = np.histogram(times_ms, bins=_BINS)
    return f"{number(edges[0])} ms {bars(counts.tolist())} {number(edges[-1])} ms"


def _power(seen: TelemetrySummary) -> str:
    """Of the rails that make up the whole, or of all; and the energy of a frame, or why it is unknown."""
    rails = {rail: watts for rail, watts in (seen.power_w or {}).items() if rail in (seen.joules_of or (rail,))}
    parts = [f"{rail} {number(watts.mean)} W (max {number(watts.max)})" for rail, watts in rails.items()]
    if seen.joules_per_frame is not None:
        parts.append(f"{number(seen.joules_per_frame)} J per frame")
    else:
        parts.append(f"energy per frame not available: {seen.not_available['joules_per_frame']}")
    return ", ".join(parts)


def _highest(spreads: Mapping[str, Spread], unit: str) -> str:
    """The three that went highest; the document has all."""
    ranked = sorted(spreads.items(), key=lambda named: named[1].max, reverse=True)
    parts = [f"{name} {spread.mean:.0f} (max {spread.max:.0f}) {unit}" for name, spread in ranked[:_SHOWN_CHANNELS]]
    more = len(ranked) - len(parts)
    return ", ".join([*parts, f"{more} more"] if more else parts)


def _over_time(run: Sustained) -> str:
    """Whether it kept its speed, and the medians of its windows as bars."""
    low, high = run.slowdown_interval
    since = "" if run.onset_s is None else f" from {run.onset_s:.0f} s on"
    causes = "".join(f"; {cause}" for cause in run.causes)
    return (
        f"{bars([window.p50_ms for window in run.windows])} {run.verdict}{since}, {run.slowdown:+.1%} in the end "
        f"({low:+.1%} to {high:+.1%}) after {run.seconds:.0f} s{causes}"
    )


def _latency_table(profile: Profile) -> Table:
    made = table("Latency", "", "ms", "95 % interval")
    for name, title in _PERCENTILES.items():
        made.add_row(title, number(getattr(profile.latency_ms, name)), interval(profile.intervals_ms[name]))
    return made


def _remarks(profile: Profile) -> Iterator[str | Text]:
    """What a reader has to know before trusting the figures; then what was compared."""
    open_ended = [title for name, title in _PERCENTILES.items() if profile.intervals_ms[name][1] is None]
    if open_ended:
        names = ", ".join(open_ended)
        yield f"{profile.samples} inferences are too few to bound {names} from above: measure longer"
    if not profile.stationary:
        yield Text("the latency did not keep its level meanwhile: the machine was busy, or throttles", "yellow")
    if profile.against is not None:
        yield _verdict(profile, profile.against)


def _verdict(profile: Profile, other: Against) -> str:
    low, high = ("?" if end is None else f"{end:.3f}" for end in other.ratio_interval)
    return (
        f"{other.verdict}: {other.model} {other.precision}, {other.steps} steps, takes "
        f"{other.ratio:.3f} times as long as {profile.model} {profile.precision}, {profile.steps} steps "
        f"(99 % interval {low} to {high}; p50 {number(other.latency_ms.p50)} ms, run in turn)"
    )


def _sweep_tables(profile: Profile) -> Iterator[Table]:
    sweeps = profile.sweeps
    if sweeps is None:
        return
    if sweeps.sizes is not None:
        yield _points_table(_law(sweeps.sizes), "size", sweeps.sizes.points)
    if sweeps.batches is not None:
        yield _points_table("Batches", "batch", sweeps.batches)
    if sweeps.streams is not None:
        yield _points_table("Streams side by side", "streams", sweeps.streams)


def _law(sweep: SizeSweep) -> str:
    if sweep.exponent is None or sweep.exponent_interval is None or sweep.fit_error is None:
        return "Sizes"
    low, high = sweep.exponent_interval
    return f"Sizes: pixels ** {sweep.exponent:.2f} ({low:.2f} to {high:.2f}), within {sweep.fit_error - 1:.0%}"


def _points_table(title: str, first: str, points: Sequence[Point]) -> Table:
    made = table(title, first, "p50 ms", "95 % interval", "p99 ms", "frames/s", "samples")
    for point in points:
        latency, median = point.latency_ms, interval(point.intervals_ms["p50"])
        made.add_row(
            point.value,
            number(latency.p50),
            median,
            number(latency.p99),
            number(point.fps),
            str(point.samples),
        )
    return made
