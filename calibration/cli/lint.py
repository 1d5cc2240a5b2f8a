"""`unblur lint`."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from unblur.calibration.lint import Finding
from unblur.calibration.lint import lint as findings_of
from unblur.calibration.lint_targets import verdicts
from unblur.calibration.onnx_model import read_onnx, read_proto
from unblur.runtime.cli.options import JsonOption, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, stdout
from unblur.runtime.spec import SpecOverrides

_NODES_SHOWN = 4


@with_overrides
def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file, of unblur or not.")],
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Name what TensorRT refuses in an ONNX file, or fuses badly; exit with 1 if something is refused.

    An error is refused by TensorRT, or computed differently from what ONNX says; a warning costs speed or quality;
    a note says what remains in float in an INT8 model, and why. Last, for each target, whether it builds and in
    which precision it will run. With an option that states what the network takes, only what `unblur build` would
    take of the file is looked at: the named output and what it needs.
    """
    with log_on_stderr():
        proto = read_proto(model) if overrides == SpecOverrides() else read_onnx(model, overrides).proto
    findings = findings_of(proto)
    counts = Counter(finding.severity for finding in findings)
    errors, warnings, notes = (counts[severity] for severity in ("error", "warning", "note"))
    found = verdicts(proto, findings)
    if json:
        documents = [vars(finding) for finding in findings]
        targets = [vars(verdict) for verdict in found]
        print_json(
            {"errors": errors, "warnings": warnings, "notes": notes, "findings": documents, "targets": targets}
        )
    else:
        _print(findings)
        for verdict in found:
            _say(str(verdict))
        _say(f"{model}: {errors} errors, {warnings} warnings, {notes} notes")
    raise typer.Exit(1 if errors else 0)


def _print(findings: list[Finding]) -> None:
    """One paragraph per rule: a network repeats its faults in every layer."""
    for rule, group in groupby(findings, key=lambda finding: finding.rule):
        first, *others = group
        _say(f"{first.severity} {rule}: {first.fix}")
        for finding in (first, *others[: _NODES_SHOWN - 1]):
            _say(f"  {finding.node}: {finding.what}")
        if len(others) >= _NODES_SHOWN:
            _say(f"  and {len(others) + 1 - _NODES_SHOWN} more nodes")


def _say(text: str) -> None:
    stdout.print(text, soft_wrap=True)
