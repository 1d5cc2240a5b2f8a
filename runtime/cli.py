"""The command `unblur`.

The commands of the device live here; those of the other rooms are found through the entry-point group
`unblur.commands`, so that nothing here imports upward. Every command imports what it needs inside its function:
`unblur --help` stays fast and works with torch, onnx and tensorrt absent.
"""

import sys
import traceback
from importlib.metadata import entry_points
from typing import Annotated

import typer

from unblur.runtime.commands import doctor as cli_doctor
from unblur.runtime.commands import evaluate as cli_evaluate
from unblur.runtime.commands import preview as cli_preview
from unblur.runtime.commands import profile as cli_profile
from unblur.runtime.commands import run as cli_run
from unblur.runtime.commands import verify as cli_verify
from unblur.runtime.errors import UnblurError

COMMAND_GROUP = "unblur.commands"

app = typer.Typer(
    help="Deblur pictures and video on edge devices: train, export, calibrate, deploy, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command; `main` reads --debug itself, since it handles the errors."""


def add_commands() -> None:
    """Add the commands of the device and those of the other rooms that are installed. Once a process."""
    cli_run.register(app)
    cli_preview.register(app)
    cli_verify.register(app)
    cli_evaluate.register(app)
    cli_profile.register(app)
    cli_doctor.register(app)
    for entry_point in sorted(entry_points(group=COMMAND_GROUP), key=lambda entry: entry.name):
        entry_point.load()(app)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 the verdict is no, 2 it could not be done, 130 interrupted."""
    add_commands()
    try:
        app()
    except UnblurError as error:
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        sys.stderr.write(f"unblur: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
