"""`unblur doctor`: what runs on this machine, and the command that fixes what does not."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from unblur.runtime.cli.options import JsonOption, with_overrides
from unblur.runtime.console import print_json, stdout
from unblur.runtime.machine.doctor import examine, examine_model
from unblur.runtime.machine.facts import read_facts
from unblur.runtime.model.open_model import shipped_presets
from unblur.runtime.spec import SpecOverrides


@with_overrides
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(help="A shipped preset, a bundle, an .onnx file or an engine: does it run here?"),
    ] = None,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Check Python, the driver, the GPU, JetPack, TensorRT and the packages of this machine.

    Exit code 0 if all is well, 1 if something needs fixing; the command that fixes it stands beside it.
    """
    facts = read_facts()
    checks = examine(facts)
    if model is not None:
        checks += examine_model(shipped_presets().get(model, Path(model)), facts, overrides)
    if json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        table = Table("", "", "found", "what to do", box=None)
        for check in checks:
            table.add_row("ok" if check.ok else "NO", check.name, check.detail, check.fix)
        stdout.print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
