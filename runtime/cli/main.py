"""The command `unblur`: a table of commands whose modules are loaded on use.

    unblur photo.jpg    is    unblur run photo.jpg

`unblur --help` prints the table alone, so it stays fast and works with torch, onnx and tensorrt absent. The modules
of the other rooms are named, never imported, here: the runtime depends on no other room.
"""

import os
import re
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from unblur.runtime.cli import loading_ms
from unblur.runtime.errors import BadInput, MissingExtra, UnblurError, needs_extra, printable

Command = TyperCommand | TyperGroup  # what typer makes: since 0.20 it carries a click of its own
UsageError: Any = typer.BadParameter.__base__  # of that click


@dataclass(frozen=True)
class CommandEntry:
    """A row of the table: where a command is defined, and what `unblur --help` says about it.

    module: holds a function, or for a group of commands a `typer.Typer`, named as the command.
    extra: the optional dependencies that the module imports; "" for none.
    """

    module: str
    panel: str
    help: str
    extra: str = ""


_USE, _DEPLOY, _MEASURE, _TRAIN = "Use", "Deploy", "Measure", "Train"

COMMANDS: dict[str, CommandEntry] = {
    "run": CommandEntry("unblur.runtime.cli.run", _USE, "Deblur images, folders, videos or a camera."),
    "preview": CommandEntry(
        "unblur.runtime.cli.preview", _USE, "Watch a camera before and after, in a browser.", "preview"
    ),
    "gstreamer": CommandEntry(
        "unblur.runtime.cli.gstreamer", _USE, "Print where GStreamer finds the element unblur."
    ),
    "doctor": CommandEntry("unblur.runtime.cli.doctor", _USE, "Check Python, driver, GPU, TensorRT and packages."),
    "deploy": CommandEntry(
        "unblur.export.cli.deploy", _DEPLOY, "Make a bundle: fp32, fp16 and INT8, verified.", "export"
    ),
    "export": CommandEntry("unblur.export.cli.export", _DEPLOY, "Write a network as ONNX and verify it.", "export"),
    "calibrate": CommandEntry(
        "unblur.calibration.cli.calibrate", _DEPLOY, "Quantise a model to INT8 within a dB budget.", "export"
    ),
    "build": CommandEntry("unblur.export.cli.build", _DEPLOY, "Build TensorRT engines from a model.", "tensorrt"),
    "export-triton": CommandEntry(
        "unblur.export.cli.export_triton", _DEPLOY, "Write a bundle as models of a Triton server.", "triton"
    ),
    "lint": CommandEntry(
        "unblur.calibration.cli.lint",
        _DEPLOY,
        "Find what TensorRT refuses or fuses badly in an ONNX file.",
        "export",
    ),
    "table": CommandEntry(
        "unblur.calibration.cli.table", _DEPLOY, "Compare and convert calibration tables.", "export"
    ),
    "verify": CommandEntry("unblur.runtime.cli.verify", _MEASURE, "Verify a bundle on this machine."),
    "evaluate": CommandEntry("unblur.runtime.cli.evaluate", _MEASURE, "Measure PSNR and SSIM on a data set."),
    "profile": CommandEntry("unblur.runtime.cli.profile", _MEASURE, "Measure latency, and explain where it goes."),
    "report": CommandEntry("unblur.export.cli.report", _MEASURE, "Put bundles side by side on one page.", "export"),
    "train": CommandEntry("unblur.train.cli.train", _TRAIN, "Train a network.", "train"),
    "data": CommandEntry(
        "unblur.train.cli.data", _TRAIN, "Make training pairs from fast clips or stills.", "train"
    ),
}


# Option spellings of 0.1 that were renamed: an old one is refused with the new one.
_SYNTHETIC = {"--blur": "--synthetic-blur", "--count": "--max-images"}
_OUTPUT = {"--out": "--output"}
_SKIP_SHARP = {"--gate": "--skip-sharp", "--no-gate": "--no-skip-sharp"}
RENAMED_OPTIONS: dict[str, dict[str, str]] = {
    "run": {**_SKIP_SHARP, "--rate": "--fps"},
    "preview": {**_SKIP_SHARP, "--token": "--token-file"},
    "calibrate": _SYNTHETIC,
    "deploy": _SYNTHETIC,
    "evaluate": _OUTPUT,
    "train": _OUTPUT,
    "data": _OUTPUT,
    "profile": {
        **_OUTPUT,
        "--against": "--baseline",
        "--against-precision": "--baseline-precision",
        "--against-steps": "--baseline-steps",
    },
}


class LazyGroup(TyperGroup):
    """A group that lists `COMMANDS` from the table and loads the module of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """The row of the table as a command without parameters: enough for `--help` and for suggestions."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if looks_like_source(args[0]):
            args = ["run", *args]
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:
            return None, None, rest
        refuse_renamed_options(name, rest)
        try:
            return name, load_command(name), rest
        except MissingExtra as error:
            if "--help" not in rest:
                raise
            text = f"{COMMANDS[name].help}\n\nFor its options, {escape(str(error))}"
            return name, TyperCommand(name, help=text), rest


def looks_like_source(text: str) -> bool:
    """Whether the first argument is a file, a folder, a pattern or an address rather than a command."""
    return text not in COMMANDS and (Path(text).exists() or re.search(r"[./*?:]", text) is not None)


def refuse_renamed_options(command: str, arguments: list[str]) -> None:
    """Raise BadInput with the new spelling if an argument is an option that was renamed."""
    renamed = RENAMED_OPTIONS.get(command, {})
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in renamed:
            raise BadInput(f"unblur {command} has no {option} any more; use {renamed[option]}")


def load_command(name: str) -> Command:
    """The command of that name with its parameters; MissingExtra if its module needs what is not installed."""
    entry = COMMANDS[name]
    began, new = time.perf_counter(), entry.module not in sys.modules
    with needs_extra(entry.extra):
        target = getattr(import_module(entry.module), name.replace("-", "_"))
    if new:
        loading_ms[name] = (time.perf_counter() - began) * 1e3
    if isinstance(target, typer.Typer):
        return cast(Command, typer.main.get_command(target))
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(target)
    return cast(Command, typer.main.get_command(single))


app = typer.Typer(
    cls=LazyGroup,
    help="Deblur images and video on edge devices: run, deploy, measure and train deblurring networks.\n\n"
    "`unblur photo.jpg` writes photo_unblurred.jpg beside it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"unblur {version('unblur')}\n")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that stand before the command; `main` reads --debug itself, since it handles the errors."""


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 the verdict is no, 2 it could not be done, 130 interrupted."""
    _open_standard_streams()
    if not sys.warnoptions and "--debug" not in sys.argv[1:]:
        warnings.simplefilter("ignore")  # of libraries, to who uses them: not one of our lines
    try:
        try:
            code = app(standalone_mode=False, prog_name="unblur")
        finally:
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except UnblurError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        _refuse_usage(error)
    except RecursionError:
        _fail("the input is nested too deeply to be read; is it damaged?", 2)
    except MemoryError as error:
        _fail(f"there is not enough memory ({error}); give a smaller image or model", 2)
    except OSError as error:
        _discard(sys.stdout)
        _fail(f"cannot use {error.filename or 'standard output'}: {error.strerror or error}", 2)
    finally:
        try:
            sys.stderr.flush()
        except OSError:  # nobody can be told
            _discard(sys.stderr)


def _open_standard_streams() -> None:
    """Where one is closed, the next file to be opened would take its number, and be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # writing fails, as it does where it is closed
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _discard(stream: TextIO) -> None:
    """Python flushes it once more at its end, and would exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _refuse_usage(error: UsageError) -> NoReturn:
    """A mistyped option or value in one line, without the list of all options."""
    if error.ctx is not None and not sys.argv[1:]:
        sys.stderr.write(f"{error.ctx.get_help()}\n")
        sys.exit(error.exit_code)
    message = error.format_message()
    command = "unblur" if error.ctx is None else error.ctx.command_path
    _fail(f"{message[:1].lower()}{message[1:].rstrip('.?')}; see {command} --help", error.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    if "--debug" in sys.argv[1:]:
        traceback.print_exc()
    with suppress(OSError):
        sys.stderr.write(f"unblur: {printable(message)}\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
