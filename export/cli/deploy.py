"""`unblur deploy`: a bundle with fp32, fp16 and INT8, verified."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from unblur.calibration.cli.calibrate import picked
from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Calibrated, Settings
from unblur.export.build import StoredEngine
from unblur.export.cli.build import build_for_bundle, checked_targets, engine_document, step_counts
from unblur.export.cli.export import SettingsOption, SourceArgument, WeightsOption
from unblur.export.deployment import REPORT, Deployment, DeployPlan, RejectedBundle
from unblur.export.deployment import deploy as deploy_bundle
from unblur.export.report.data import low_share
from unblur.export.source_model import find_source
from unblur.export.torch_module import settings_from_text
from unblur.runtime.cli.options import (
    JsonOption,
    MaxImagesOption,
    SyntheticBlurOption,
    output_option,
    with_overrides,
)
from unblur.runtime.console import log_on_stderr, print_json, progress, stages_on, stderr, stdout
from unblur.runtime.errors import ParityError
from unblur.runtime.model.calibration_table import Method
from unblur.runtime.quality.pairs import find_pairs
from unblur.runtime.quality.parity import Ledger
from unblur.runtime.quality.tolerances import INT8_LOSS_LIMIT_DB
from unblur.runtime.quality.verify_report import hop_document, hop_reasons, hop_table
from unblur.runtime.spec import SpecOverrides


@with_overrides
def deploy(
    model: SourceArgument,
    calibration: Annotated[Path, typer.Option(help="Folder of images (or pairs) to calibrate INT8 on.")],
    output: Annotated[Path, output_option("The bundle to write, NAME.unblur.")],
    pairs: Annotated[
        Path | None,
        typer.Option(help="Folder of pairs to measure quality on; default pairs made by synthetic blur."),
    ] = None,
    weights: WeightsOption = None,
    settings: SettingsOption = None,
    steps: Annotated[
        str | None, typer.Option(help="Step counts of the anytime variants, e.g. 1,2,3 (the default); '' for none.")
    ] = None,
    synthetic_blur: SyntheticBlurOption = False,
    method: Annotated[
        Literal["auto", Method], typer.Option(help="How INT8 ranges are chosen; auto takes what loses least.")
    ] = "auto",
    budget_db: Annotated[
        float, typer.Option(min=0, help="Most PSNR that INT8 may lose on the calibration images.")
    ] = INT8_LOSS_LIMIT_DB,
    max_images: MaxImagesOption = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show in the report what each layer costs in INT8.")
    ] = False,
    keep_failed: Annotated[bool, typer.Option(help="Write the bundle even if its ledger fails.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Also build engines: tensorrt, or rtx-sm86,rtx-sm89; see `unblur build`.")
    ] = None,
    json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Make a bundle: fp32, fp16 and INT8 models, golden vectors, the parity ledger and a report.

    Exits with 1 and writes nothing if a variant of the model differs too much from the one before.
    """
    targets = checked_targets(target)
    with log_on_stderr():
        source = find_source(
            model, weights=weights, settings=settings_from_text(settings or ()), overrides=overrides
        )
    plan = DeployPlan(
        source=source,
        sample=picked(find_sample(calibration, synthetic_blur=synthetic_blur), max_images),
        pairs=() if pairs is None else tuple(find_pairs(pairs)),
        steps=None if steps is None else step_counts(steps),
        keep_failed=keep_failed,
        int8=Settings(method, budget_db=budget_db, sensitivity=sensitivity),
    )
    try:
        with progress() as bar:
            deployment = deploy_bundle(plan, output, stages_on(bar))
    except RejectedBundle as rejected:
        _report(rejected.ledger, None, json)
        raise
    engines = build_for_bundle(deployment.bundle, targets) if targets else []
    _report(deployment.ledger, deployment, json, engines)
    if not deployment.ledger.passed:
        raise typer.Exit(ParityError.exit_code)


def _report(
    ledger: Ledger, deployment: Deployment | None, json: bool, engines: Sequence[StoredEngine] = ()
) -> None:
    if json:
        print_json(_document(ledger, deployment, engines))
        return
    _print_tables(ledger)
    if deployment is not None:
        _print_int8(deployment.calibrated)
        stderr.print(f"wrote {deployment.bundle}; open {deployment.bundle / REPORT} in a browser")


def _document(ledger: Ledger, deployment: Deployment | None, engines: Sequence[StoredEngine]) -> dict[str, object]:
    document: dict[str, object] = {
        "bundle": None if deployment is None else str(deployment.bundle),
        "hops": [hop_document(hop) for hop in ledger.hops],
        "pass": ledger.passed,
        "blurred_db": ledger.blurred_db,
        "variants": [asdict(quality) for quality in ledger.qualities],
    }
    if deployment is not None:
        calibrated = deployment.calibrated
        document |= {
            "bytes": sum(entry.bytes for entry in deployment.manifest.files.values()),
            "int8": {
                "macs": round(calibrated.int8_macs, 4),
                "delta_db": round(calibrated.cost.delta_db, 4),
                "excluded": list(calibrated.table.excluded),
            },
            "engines": [engine_document(engine) for engine in engines],
        }
    return document


def _print_int8(calibrated: Calibrated) -> None:
    stderr.print(
        f"INT8 does {calibrated.int8_macs:.1%} of the multiply-accumulates and changes PSNR by "
        f"{calibrated.cost.delta_db:+.3f} dB on the calibration images"
    )
    if warning := low_share(calibrated.int8_macs):
        stderr.print(f"warning: {warning}", style="yellow")


def _print_tables(ledger: Ledger) -> None:
    stdout.print(hop_table(ledger))
    for reason in hop_reasons(ledger):
        stdout.print(reason, soft_wrap=True)
    if ledger.blurred_db is not None:
        table = Table("variant", "steps", "PSNR dB", "SSIM")
        table.add_row("blurred", "", f"{ledger.blurred_db:.2f}", "")
        for quality in ledger.qualities:
            table.add_row(
                quality.precision, str(quality.steps), f"{quality.db or 0:.2f}", f"{quality.ssim or 0:.4f}"
            )
        stdout.print(table)
