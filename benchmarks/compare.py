"""What changed between two runs of a benchmark, as far as it is larger than what they do not know.

Intervals of 95 percent that do not touch differ by chance in fewer than one of a hundred. What they cannot know is
how the machine itself differs from one day to another: of that tells the benchmark `machine`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Figure

Verdict = Literal["better", "worse", "another unit", "new", "gone"]


@dataclass(frozen=True)
class Change:
    """A figure that differs. before: None if it is new. after: None if it is gone."""

    verdict: Verdict
    before: Figure | None
    after: Figure | None


def changes(before: Sequence[Figure], after: Sequence[Figure]) -> Iterator[Change]:
    """The figures of `after` that differ, in their order, then those that are gone."""
    old = {figure.name: figure for figure in before}
    for figure in after:
        verdict = _verdict(old.get(figure.name), figure)
        if verdict is not None:
            yield Change(verdict, old.get(figure.name), figure)
    names = {figure.name for figure in after}
    yield from (Change("gone", figure, None) for figure in before if figure.name not in names)


def _verdict(before: Figure | None, after: Figure) -> Verdict | None:
    if before is None:
        return "new"
    if before.unit != after.unit:
        return "another unit"
    if before.low <= after.high and after.low <= before.high:
        return None
    return "better" if (after.value < before.value) == (after.better == "lower") else "worse"
