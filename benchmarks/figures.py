"""What a benchmark reports: figures, each with its 95 % confidence interval and the bound it is held to.

ratios = [measure() for _ in range(5)]
Report("run_overhead", (of_repeats("frame rate over session.run's", "x", ratios, "higher", asked=0.95),))
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy import stats  # type: ignore[import-untyped]

from unblur.runtime.strict_json import to_json

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """One number. unit: of all its numbers; "" for a plain count or ratio.

    interval: low and high, 95 percent; None where it does not depend on the clock (decibels, bytes), an end that is
    not known being None. asked: the bound to keep; None if there is none.
    """

    name: str
    unit: str
    value: float
    better: Better
    interval: tuple[float | None, float | None] | None = None
    asked: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"figure '{self.name}' is {self.value}, expected a finite number")

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None if there is none."""
        if self.asked is None:
            return None
        return self.value <= self.asked if self.better == "lower" else self.value >= self.asked


@dataclass(frozen=True)
class Report:
    """All that one run of a benchmark found. details: whatever else is worth keeping in its JSON."""

    benchmark: str
    figures: tuple[Figure, ...]
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that do not keep their bound."""
        return tuple(figure for figure in self.figures if figure.met is False)

    def document(self) -> dict[str, Any]:
        """What is printed with --json."""
        figures = [{**vars(figure), "met": figure.met} for figure in self.figures]
        return {"benchmark": self.benchmark, "figures": to_json(figures), "details": to_json(self.details)}


def of_repeats(
    name: str, unit: str, values: Sequence[float], better: Better, *, asked: float | None = None
) -> Figure:
    """The mean of independent measurements, with Student's interval.

    Raises ValueError for fewer than two: they have no interval.
    """
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return Figure(name, unit, mean, better, (mean - reach, mean + reach), asked)
