"""What `unblur profile` says to people: one screen."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from unblur.runtime.console import stdout
from unblur.runtime.profile import Against, Point, Profile, SizeSweep

_BLOCKS = "▁▂▃▄▅▆▇█"
_BINS = 32
_PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "mean": "mean"}


def print_profile(profile: Profile) -> None:
    """Print what was measured on stdout."""
    stdout.print(escape(_title(profile)), soft_wrap=True)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _facts(profile):
        facts.add_row(name, text)
    stdout.print(facts)
    stdout.print(_latency_table(profile))
    for line in _remarks(profile):
        stdout.print(line, soft_wrap=True)
    for table in _sweep_tables(profile):
        stdout.print(table)


def _title(profile: Profile) -> str:
    size, steps = "x".join(map(str, profile.size)), f"{profile.steps} step{'s' if profile.steps > 1 else ''}"
    cpu = profile.environment.cpu
    return (
        f"{profile.model} {profile.precision}, {steps}, {size}, batch {profile.batch}, on {profile.device}: "
        f"{cpu.model}, {cpu.threads} threads"
    )


def _facts(profile: Profile) -> Iterator[tuple[str, str]]:
    cold = [f"{name} {_number(ms)} ms" for name, ms in profile.cold_ms.items() if ms is not None]
    yield "cold start", ", ".join(cold).replace("first", "first inference")
    settled = "settled" if profile.warmup.settled else "[yellow]did not settle[/]"
    yield "warm-up", f"{profile.warmup.samples} inferences in {profile.warmup.seconds:.1f} s, {settled}"
    yield "steady state", f"{_number(profile.fps)} pictures a second, {profile.samples} inferences"
    if profile.parts_ms is not None:
        parts = {name.replace("_", " "): ms for name, ms in vars(profile.parts_ms).items()}
        yield "of it", ", ".join(f"{name} {_number(ms)} ms" for name, ms in parts.items() if ms)
    yield "spread", f"{_histogram(profile.times_ms)}, cv {profile.cv:.1%}"


def _histogram(times_ms: Sequence[float]) -> str:
    """A line of bars between the fastest and the slowest."""
    counts, edges = np.histogram(times_ms, bins=_BINS)
    bars = "".join(
        " " if count == 0 else _BLOCKS[int(np.ceil(count / counts.max() * len(_BLOCKS))) - 1] for count in counts
    )
    return f"{_number(edges[0])} ms {bars} {_number(edges[-1])} ms"


def _latency_table(profile: Profile) -> Table:
    table = _table("Latency", "", "ms", "95 % interval")
    for name, title in _PERCENTILES.items():
        table.add_row(title, _number(getattr(profile.latency_ms, name)), _interval(profile.intervals_ms[name]))
    return table


def _remarks(profile: Profile) -> Iterator[str]:
    """What a reader has to know before trusting the figures; then what was compared."""
    if profile.intervals_ms["p999"][1] is None:
        yield f"p99.9 of {profile.samples} inferences is not bounded from above: measure longer for it"
    if not profile.stationary:
        yield "[yellow]the latency did not keep its level meanwhile: the machine was busy, or throttles[/]"
    if profile.against is not None:
        yield _verdict(profile, profile.against)


def _verdict(profile: Profile, other: Against) -> str:
    low, high = (f"{end:.3f}" for end in other.ratio_interval if end is not None)
    return (
        f"[bold]{other.verdict}[/]: {escape(other.model)} {other.precision}, {other.steps} steps, takes "
        f"{other.ratio:.3f} times as long as {escape(profile.model)} {profile.precision}, {profile.steps} steps "
        f"(99 % interval {low} to {high}; p50 {_number(other.latency_ms.p50)} ms, run in turn)"
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
    if sweep.exponent is None or sweep.exponent_interval is None or sweep.misfit is None:
        return "Sizes"
    low, high = sweep.exponent_interval
    return f"Sizes: pixels ** {sweep.exponent:.2f} ({low:.2f} to {high:.2f}), within {sweep.misfit - 1:.0%}"


def _points_table(title: str, first: str, points: Sequence[Point]) -> Table:
    table = _table(title, first, "p50 ms", "95 % interval", "p99 ms", "pictures/s", "samples")
    for point in points:
        latency, interval = point.latency_ms, _interval(point.intervals_ms["p50"])
        table.add_row(
            point.value,
            _number(latency.p50),
            interval,
            _number(latency.p99),
            _number(point.fps),
            str(point.samples),
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _interval(ends: tuple[float | None, ...]) -> str:
    low, high = ends
    return f"{'?' if low is None else _number(low)} to {'?' if high is None else _number(high)}"


def _number(value: float) -> str:
    """Four digits: more than a latency is known to."""
    return f"{value:,.{max(0, 3 - int(np.floor(np.log10(value))))}f}" if value > 0 else "0"
