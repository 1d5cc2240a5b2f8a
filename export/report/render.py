"""The templates of the pages and what they call."""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from unblur.calibration.search import Sensitivity
from unblur.export.report.data import Int8Report, low_share
from unblur.runtime.profile.text import interval, number


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


_TEMPLATES = Path(__file__).parent / "templates"
_NOISIEST = 5
_BACKTICKS = re.compile("`([^`]*)`")


def render(*, title: str, sections: Sequence[str], columns: Sequence[object], overview: object, data: str) -> str:
    """One HTML file.

    sections: templates that every column has, from top to bottom. overview: what stands above several columns, or
    None. data: where the same is as JSON.
    """
    page = (
        _environment()
        .get_template("page.html")
        .render(
            title=title, sections=sections, columns=columns, overview=overview, data=data, version=version("unblur")
        )
    )
    return page + "\n"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        arrow=_arrow,
        by_reason=_by_reason,
        code=_code,
        db=db_text,
        interval=interval,
        mean=fmean,
        number=_number,
        percent=percent_text,
        signed=signed_text,
        size=size_text,
    )
    environment.globals.update(low_share=low_share, left_out=_left_out, noisiest=_noisiest)
    return environment


def _arrow(hop: str) -> str:
    return hop.replace("->", "\N{RIGHTWARDS ARROW}")


def _code(text: str) -> Markup:
    """What stands in backticks as code."""
    return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(text))))


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _by_reason(not_available: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """What is missing, put together by why."""
    names: dict[str, list[str]] = {}
    for name, reason in not_available.items():
        names.setdefault(reason, []).append(name)
    return list(names.items())


def _left_out(int8: Int8Report) -> tuple[str, ...]:
    return (*int8.kept, *int8.excluded)


def _noisiest(sensitivity: Sensitivity) -> str:
    worst = sorted(sensitivity.sqnr_db.items(), key=lambda item: item[1])[:_NOISIEST]
    return ", ".join(f"{name} {value:.1f}" for name, value in worst)
