"""What the sections of a report are made of."""

import base64
import math
from collections.abc import Sequence


def html_table(headings: Sequence[str], rows: str) -> str:
    """rows: the `<tr>` elements."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def data_uri(picture: bytes, kind: str) -> str:
    """A picture inside the page. kind: "jpeg" or "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def db_text(value: float | None) -> str:
    """Two decimals; "equal" for infinity, nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "equal" if value > 0 else "not finite"


def signed_text(value: float, digits: int) -> str:
    """With its sign, and never -0."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0 turns -0.0 into 0.0
