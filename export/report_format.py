"""How a report writes numbers."""

import math


def db_text(value: float | None) -> str:
    """Two decimals; "equal" for infinity, nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "equal" if value > 0 else "not finite"


def signed_text(value: float | None, digits: int) -> str:
    """With its sign, and never -0; nothing for None."""
    return "" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0 turns -0.0 into 0.0
