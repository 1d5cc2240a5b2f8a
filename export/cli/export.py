"""`unblur export` and `unblur deploy`; the other commands of this room are in files of their own."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unblur.export.cli.build import build_for_bundle, checked_targets, engine_document, step_counts
from unblur.runtime.cli.options import MaxImagesOption, SyntheticBlurOption
from unblur.runtime.console import print_json, progress, stages_on, stderr, stdout
from unblur.runtime.errors import ParityError, needs_extra
from unblur.runtime.files import atomic_file
from unblur.runtime.model.calibration_table import Method
from unblur.runtime.quality.tolerances import INT8_LOSS_LIMIT_DB

if TYPE_CHECKING:
    from onnx import ModelProto

    from unblur.calibration.images import Coverage, Sample
    from unblur.calibration.int8_from_fp32 import Calibrated
    from unblur.export.build import Stored
    from unblur.export.deploy import Deployment
    from unblur.runtime.quality.pairs import Pair
    from unblur.runtime.quality.parity import Hop, Ledger
    from unblur.train.networks import DeblurringNetwork

_Preset = Annotated[str, typer.Argument(metavar="PRESET", help="A shipped preset (lprn-s) or a checkpoint.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def export(
    preset: _Preset,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps, if not the network's own.")] = None,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Type of weights and arithmetic.")] = "fp32",
    json: _Json = False,
) -> None:
    """Write a network as ONNX, any batch and size, and prove that it still computes the same."""
    with needs_extra("export"):
        from unblur.calibration.onnx_model import check_onnx_name, onnx_bytes
    from unblur.runtime.quality.verify_report import finite_db

    check_onnx_name(output)
    with atomic_file(output) as temporary:
        network = _load(preset, steps)
        with progress() as bar:
            bar.add_task("exporting", total=None, note="")
            model, simplification = _onnx(network, precision)
        temporary.write_bytes(onnx_bytes(model))
        hop = _compare(network, temporary)
    if json:
        print_json(
            {"nodes": len(model.graph.node), "bytes": output.stat().st_size, "parity_db": finite_db(hop.psnr_db)}
        )
    else:
        stderr.print(
            f"{output}: {precision}, {network.spec.steps} steps, {len(model.graph.node)} nodes, "
            f"{output.stat().st_size:,} bytes, {finite_db(hop.psnr_db):.1f} dB from torch; {simplification}"
        )


def deploy(
    preset: _Preset,
    calibration: Annotated[Path, typer.Option(help="Folder of pictures (or pairs) to calibrate INT8 on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write, NAME.unblur.")],
    pairs: Annotated[Path | None, typer.Option(help="Folder of pairs to measure the ledger on.")] = None,
    steps: Annotated[
        str | None, typer.Option(help="Step counts of the anytime variants, e.g. 1,2,3 (the default); '' for none.")
    ] = None,
    synthetic_blur: SyntheticBlurOption = False,
    method: Annotated[Method, typer.Option(help="How INT8 ranges are chosen.")] = "minmax",
    budget_db: Annotated[
        float, typer.Option(min=0, help="Most PSNR that INT8 may lose on the calibration pictures.")
    ] = INT8_LOSS_LIMIT_DB,
    max_images: MaxImagesOption = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show in the report what each layer costs in INT8.")
    ] = False,
    keep_failed: Annotated[bool, typer.Option(help="Write the bundle even if its ledger fails.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Also build engines: tensorrt, or rtx-sm86,rtx-sm89; see `unblur build`.")
    ] = None,
    json: _Json = False,
) -> None:
    """Make a bundle: fp32, fp16 and INT8 models, golden vectors, the parity ledger and a report.

    Exits with 1 and writes nothing if a form of the model differs too much from the one before.
    """
    with needs_extra("export"):
        from unblur.calibration.int8_from_fp32 import Settings
        from unblur.export import deploy as room
    targets = checked_targets(target)
    sample, coverage = _pick(calibration, max_images, blur=synthetic_blur)
    plan = room.Plan(
        checkpoint=_checkpoint(preset),
        sample=sample,
        int8=Settings(method, budget_db=budget_db, sensitivity=sensitivity),
        coverage=coverage,
        pairs=_pairs(pairs),
        steps=None if steps is None else step_counts(steps),
        keep_failed=keep_failed,
    )
    try:
        with progress() as bar:
            deployment = room.deploy(plan, output, stages_on(bar))
    except room.RejectedBundle as rejected:
        _report(rejected.ledger, None, json)
        raise
    engines = build_for_bundle(deployment.bundle, targets) if targets else []
    _report(deployment.ledger, deployment, json, engines)
    if not deployment.ledger.passed:
        raise typer.Exit(ParityError.exit_code)


def _load(preset: str, steps: int | None) -> "DeblurringNetwork":
    from unblur.train.checkpoint import load_network, resolve_checkpoint

    return load_network(resolve_checkpoint(preset), steps=steps)


def _onnx(network: "DeblurringNetwork", precision: Literal["fp32", "fp16"]) -> "tuple[ModelProto, str]":
    from unblur.export.fp16 import fp16_from_fp32
    from unblur.export.onnx_from_network import onnx_from_network, simplify

    simplification = simplify(onnx_from_network(network))
    model = simplification.model
    return (fp16_from_fp32(model) if precision == "fp16" else model), simplification.reason


def _compare(network: "DeblurringNetwork", file: Path) -> "Hop":
    """Against torch, on the golden frame; ParityError if they differ too much."""
    from unblur.export.torch_runner import TorchRunner
    from unblur.runtime.model.golden import golden_frame
    from unblur.runtime.model.onnx_runner import OnnxRunner
    from unblur.runtime.quality.parity import compare

    with TorchRunner(network) as reference, OnnxRunner(file) as candidate:
        hop = compare(reference, candidate, [golden_frame()], name=f"torch -> {candidate.precision}")
    if not hop.passed:
        raise ParityError(f"the export differs from torch: {hop.reason}; nothing was written")
    return hop


def _pick(folder: Path, count: int | None, *, blur: bool) -> "tuple[Sample, Coverage]":
    """The pictures to calibrate on, all without a count, and how well they stand for the others."""
    from unblur.calibration.images import find_sample

    sample = find_sample(folder, synthetic_blur=blur)
    with progress("pictures") as bar:
        return sample.pick(count or len(sample), stages_on(bar)("choosing", len(sample)))


def _pairs(folder: Path | None) -> "tuple[Pair, ...]":
    from unblur.runtime.quality.pairs import find_pairs

    return () if folder is None else tuple(find_pairs(folder))


def _checkpoint(preset: str) -> Path:
    from unblur.train.checkpoint import resolve_checkpoint

    return resolve_checkpoint(preset)


def _report(
    ledger: "Ledger", deployment: "Deployment | None", json: bool, engines: Sequence["Stored"] = ()
) -> None:
    from unblur.runtime.quality.verify_report import hop_document

    if json:
        document: dict[str, object] = {
            "bundle": None if deployment is None else str(deployment.bundle),
            "hops": [hop_document(hop) for hop in ledger.hops],
            "pass": ledger.passed,
            "blurred_db": ledger.blurred_db,
            "variants": [asdict(quality) for quality in ledger.qualities],
        }
        if deployment is not None:
            document["bytes"] = sum(entry.bytes for entry in deployment.manifest.files.values())
            document["int8"] = _int8_document(deployment.calibrated)
            document["engines"] = [engine_document(engine) for engine in engines]
        print_json(document)
    else:
        _print_tables(ledger)
        if deployment is not None:
            _print_int8(deployment.calibrated)
            stderr.print(f"wrote {deployment.bundle}; open {deployment.bundle / 'report.html'} in a browser")


def _int8_document(calibrated: "Calibrated") -> dict[str, object]:
    return {
        "macs": round(calibrated.int8_macs, 4),
        "delta_db": round(calibrated.cost.delta_db, 4),
        "excluded": list(calibrated.table.excluded),
    }


def _print_int8(calibrated: "Calibrated") -> None:
    from unblur.export.report.data import low_share

    stderr.print(
        f"INT8 does {calibrated.int8_macs:.1%} of the multiply-accumulates and changes PSNR by "
        f"{calibrated.cost.delta_db:+.3f} dB on the calibration pictures"
    )
    if warning := low_share(calibrated.int8_macs):
        stderr.print(f"warning: {warning}", style="yellow")


def _print_tables(ledger: "Ledger") -> None:
    from rich.table import Table

    from unblur.runtime.quality.verify_report import hop_reasons, hop_table

    stdout.print(hop_table(ledger))
    for reason in hop_reasons(ledger):
        stdout.print(reason, soft_wrap=True)
    if ledger.blurred_db is not None:
        qualities = Table("form", "steps", "PSNR dB", "SSIM")
        qualities.add_row("blurred", "", f"{ledger.blurred_db:.2f}", "")
        for quality in ledger.qualities:
            qualities.add_row(
                quality.precision, str(quality.steps), f"{quality.db or 0:.2f}", f"{quality.ssim or 0:.4f}"
            )
        stdout.print(qualities)
