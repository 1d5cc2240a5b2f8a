"""Times that only go on."""

from collections.abc import Iterable
from fractions import Fraction

import pytest

from unblur.runtime.media.interfaces import TIME_BASE, StreamClock


def times(given: Iterable[object], arrived: Iterable[float]) -> list[float]:
    clock = StreamClock(iter(arrived).__next__)
    return [float(clock.at(None if time is None else Fraction(str(time)))) for time in given]


@pytest.mark.parametrize(
    ("given", "arrived", "expected"),
    [
        ([7, 7.5, 8], [0, 0.1, 0.2], [0, 0.5, 1]),  # what the stream says, not when it came
        ([7, 7.5, 8, 8.5], [0, 9, 9, 9], [0, 0.5, 1, 1.5]),  # it was held up on the way
        ([None, None, 5, 6], [3, 4, 6, 6.5], [0, 1, 3, 4]),  # it says nothing
        ([7, 7.5, 0, 0.5], [0, 0.5, 4, 4.5], [0, 0.5, 4, 4.5]),  # it was opened again after a gap
        ([7, 7.5, 900, 900.5], [0, 0.5, 1, 1.5], [0, 0.5, 1, 1.5]),  # its clock was set
        ([7, 7, 7], [0, 0.5, 0.75], [0, 0.5, 0.75]),  # it stands still
    ],
)
def test_times(given: list[object], arrived: list[float], expected: list[float]) -> None:
    assert times(given, arrived) == expected


def test_no_two_are_the_same() -> None:
    clock = StreamClock(lambda: 5.0)
    assert [clock.at(None) / TIME_BASE for _ in range(3)] == [0, 1, 2]
