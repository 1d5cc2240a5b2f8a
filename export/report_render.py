"""The templates in report_page/ and what they call."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unblur.calibration.sensitivity import Sensitivity
from unblur.export.report_data import Int8Report
from unblur.export.report_format import db_text, signed_text
from unblur.export.report_int8 import low_share

_TEMPLATES = Path(__file__).parent / "report_page"
_NOISIEST = 5


def render(title: str, sections: Sequence[str], columns: Sequence[object]) -> str:
    """One HTML file. sections: templates that every column has, from top to bottom."""
    page = _environment().get_template("page.html")
    return page.render(title=title, sections=sections, columns=columns, version=version("unblur")) + "\n"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        db=db_text, signed=signed_text, mean=fmean, arrow=lambda name: name.replace("->", "\N{RIGHTWARDS ARROW}")
    )
    environment.globals.update(low_share=low_share, left_out=_left_out, noisiest=_noisiest)
    return environment


def _left_out(int8: Int8Report) -> tuple[str, ...]:
    return (*int8.kept, *int8.excluded)


def _noisiest(sensitivity: Sensitivity) -> str:
    worst = sorted(sensitivity.sqnr_db.items(), key=lambda item: item[1])[:_NOISIEST]
    return ", ".join(f"{name} {value:.1f}" for name, value in worst)
