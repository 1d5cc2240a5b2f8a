"""How the tables of a profile look: numbers of four digits, bars of a line, intervals."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

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
