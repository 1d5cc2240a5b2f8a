"""What a benchmark tells: figures, each with how sure it is and with what was asked of it.

ratios = [measure() for _ in range(5)]
Report("run_overhead", (of_repeats("frame rate over session.run's", "x", ratios, "higher", asked=0.95),))
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy import stats  # type: ignore[import-untyped]

from unblur.runtime.strict_json import from_json, to_json

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """One number. name: tells it from the others of its benchmark. unit: of all its numbers; "" for a plain count.

    interval: low and high, 95 percent, an end that is not known being None. It is None for what does not depend on
    the clock (decibels, bytes): two runs agree in that if it differs by at most `tolerance`, in its unit.
    asked: the bound to keep; None if none is set.
    """

    name: str
    unit: str
    value: float
    better: Better
    interval: tuple[float | None, float | None] | None = None
    tolerance: float = 0.0
    asked: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.value, self.tolerance, self.asked or 0.0]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"figure {self.name!r} has a number that is not finite: {numbers}")
        if self.interval is not None and not (len(self.interval) == 2 and self.low <= self.high):
            raise ValueError(f"figure {self.name!r} has the interval {self.interval}, expected low and high")

    @property
    def low(self) -> float:
        """The lower end of the interval, -inf if it is not known; without one, half a tolerance below the value."""
        return _end(self.interval[0], -math.inf) if self.interval else self.value - self.tolerance / 2

    @property
    def high(self) -> float:
        """The upper end, as `low`."""
        return _end(self.interval[1], math.inf) if self.interval else self.value + self.tolerance / 2

    @property
    def met(self) -> bool | None:
        """Whether what was asked is kept; None if nothing was."""
        if self.asked is None:
            return None
        return self.value <= self.asked if self.better == "lower" else self.value >= self.asked


@dataclass(frozen=True)
class Report:
    """All that one run of a benchmark found. details: whatever else is worth keeping; nothing reads it."""

    benchmark: str
    figures: tuple[Figure, ...]
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that do not keep what was asked."""
        return tuple(figure for figure in self.figures if figure.met is False)


def of_repeats(
    name: str, unit: str, values: Sequence[float], better: Better, *, asked: float | None = None
) -> Figure:
    """The mean of measurements that do not depend on each other: of processes, or of long stretches of one.

    The interval is Student's. ValueError for fewer than two, which say nothing about how sure they are.
    """
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return Figure(name, unit, mean, better, (mean - reach, mean + reach), asked=asked)


def _end(known: float | None, unknown: float) -> float:
    return unknown if known is None else known


def figure_to_json(figure: Figure) -> dict[str, Any]:
    """The fields, and whether it is met."""
    return {**vars(figure), "interval": to_json(figure.interval), "met": figure.met}


def figure_from_json(raw: object, where: str) -> Figure:
    """ValueError, which names `where` and the field, for what `figure_to_json` has not written."""
    fields = {name: value for name, value in raw.items() if name != "met"} if isinstance(raw, dict) else raw
    return from_json(Figure, fields, where)


def report_to_json(report: Report) -> dict[str, Any]:
    """The document that a benchmark prints with --json."""
    figures = [figure_to_json(figure) for figure in report.figures]
    return {"benchmark": report.benchmark, "figures": figures, "details": to_json(report.details)}


def report_from_text(text: str, where: str) -> Report:
    """ValueError for a text that is not such a document."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("figures"), list):
        raise ValueError(f"{where} has no list of figures")
    figures = tuple(figure_from_json(figure, where) for figure in raw["figures"])
    return Report(str(raw.get("benchmark")), figures, raw.get("details") or {})
