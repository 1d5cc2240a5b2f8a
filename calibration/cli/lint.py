"""`unblur lint`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unblur.runtime.console import print_json, stdout
from unblur.runtime.errors import needs_extra

if TYPE_CHECKING:
    from unblur.calibration.lint import Finding

_NODES_SHOWN = 4


def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file, of unblur or not.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Name what TensorRT refuses in an ONNX file, or fuses badly; exit with 1 if something is refused.

    An error is refused by TensorRT, or computed otherwise than ONNX says; a warning costs speed or quality.
    """
    with needs_extra("export"):
        from unblur.calibration import lint as linter
    findings = linter.lint(linter.read_foreign(model))
    counts = {kind: sum(finding.severity == kind for finding in findings) for kind in ("error", "warning")}
    if json:
        documents = [vars(finding) for finding in findings]
        print_json({"errors": counts["error"], "warnings": counts["warning"], "findings": documents})
    else:
        _print(model, findings, counts)
    raise typer.Exit(1 if counts["error"] else 0)


def _print(model: Path, findings: "list[Finding]", counts: dict[str, int]) -> None:
    """One paragraph a rule: a network repeats its faults in every layer."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.rule, []).append(finding)
    for rule, group in groups.items():
        _say(f"{group[0].severity} {rule}: {group[0].mend}")
        for finding in group[:_NODES_SHOWN]:
            _say(f"  {finding.node}: {finding.what}")
        if len(group) > _NODES_SHOWN:
            _say(f"  and {len(group) - _NODES_SHOWN} more nodes")
    _say(f"{model}: {counts['error']} errors, {counts['warning']} warnings")


def _say(text: str) -> None:
    stdout.print(text, markup=False, soft_wrap=True)
