"""What every benchmark shares on the command line: progress on stderr, figures on stdout, one exit code.

    def main(repeats: int = 3, json: Json = False) -> None:
        log("first of three")
        print_report(Report("name", figures), json=json)

    if __name__ == "__main__":
        run(main)

Exit codes: 0 every bound is kept, 1 one is missed, 2 it could not be measured; stderr says why in one line.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from shutil import which
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.figures import Figure, Report
from unblur.runtime.console import print_json, stdout
from unblur.runtime.errors import UnblurError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Model = Annotated[str, typer.Option(help="A shipped preset or a bundle.")]


class NotMeasured(UnblurError):
    """A benchmark that cannot be run here, or whose subject failed."""


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line; an error of unblur becomes one line and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except UnblurError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def log(line: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def print_report(report: Report, *, json: bool) -> None:
    """Print the figures, as a table or as JSON, and exit with 1 if one of them misses its bound."""
    if json:
        print_json(report.document())
    else:
        table = Table("figure", "got", "95 %", "asked", "", title=report.benchmark, title_justify="left")
        for figure in report.figures:
            table.add_row(figure.name, *cells(figure))
        stdout.print(table)
    raise typer.Exit(1 if report.missed else 0)


def cells(figure: Figure) -> tuple[str, str, str, str]:
    """The value, its interval, the bound, and "met" or "MISSED", for a row of a table."""
    sign = "at most" if figure.better == "lower" else "at least"
    asked = "" if figure.asked is None else f"{sign} {number(figure.asked)}"
    verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
    return f"{number(figure.value)} {figure.unit}".strip(), _interval(figure), asked, verdict


def _interval(figure: Figure) -> str:
    if figure.interval is None:
        return ""
    low, high = figure.interval
    return f"{'less' if low is None else number(low)} to {'more' if high is None else number(high)}"


def number(value: float) -> str:
    """Four digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def output_of(command: Sequence[str]) -> str:
    """What a process printed; NotMeasured with its last words if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"{' '.join(command)} ended with {done.returncode}: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line that is not empty; of a traceback, the message."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def unblur(*arguments: str) -> list[str]:
    """The command `unblur`, as installed for this Python."""
    return [sys.executable, "-m", "unblur.runtime.cli.main", *arguments]


def require_program(name: str) -> None:
    """NotMeasured unless a program is on the path."""
    if which(name) is None:
        raise NotMeasured(f"it needs {name}, which is not installed; on Debian and Ubuntu: apt-get install {name}")
