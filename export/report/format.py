"""How a report writes numbers, beside what `unblur.runtime.profile.format` has for latencies."""

import math
from collections.abc import Sequence


def db_text(value: float | None) -> str:
    """Two decimals; "equal" for infinity, nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "equal" if value > 0 else "not finite"


def signed_text(value: float | None, digits: int) -> str:
    """With its sign, and never -0; nothing for None."""
    return "" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def percent_text(share: float, digits: int = 0) -> str:
    """share: 0 to 1."""
    return f"{100 * share:.{digits}f} %"


def size_text(size_hw: Sequence[int]) -> str:
    """ "720 x 1280"."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, size_hw))
