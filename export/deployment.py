"""A checkpoint -> a bundle that a device can trust.

    checkpoint -> fp32, fp16, int8, also at fewer steps -> parity ledger -> golden vectors -> report -> sealed

Equal inputs give equal bytes on one machine: nothing in a bundle says when it was made, unless SOURCE_DATE_EPOCH is
set. The numbers in it (ranges, parity, golden vectors) depend on the processor in their last digits.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from typing import get_args

from unblur.calibration.images import Sample
from unblur.calibration.int8_from_fp32 import Calibrated, Settings, calibrate
from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.calibration.quantize import quantize_with
from unblur.calibration.table import at_fewer_steps
from unblur.calibration.trt_cache import CACHE_FILE, cache_from_table
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.onnx_from_network import onnx_from_network, simplify
from unblur.export.report.bundle_page import bundle_page
from unblur.export.report.data import REPORT_JSON, BundleReport, CropComparison, ModelFile, int8_report
from unblur.export.report.pictures import compare_crops
from unblur.export.torch_runner import TorchRunner
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, ParityError
from unblur.runtime.files import atomic_folder
from unblur.runtime.frames import Frame
from unblur.runtime.model.bundle import MANIFEST, SUFFIX, BundleManifest, Golden, Variant, seal_bundle
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.golden import make_golden
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.parity import Ledger, measure
from unblur.runtime.quality.tolerances import INT8_LOSS_LIMIT_DB
from unblur.runtime.spec import Precision
from unblur.train.checkpoint import load_checkpoint
from unblur.train.networks import DeblurringNetwork
from unblur.train.networks.base import count_parameters, gflop_720p

CALIBRATION_TABLE = "calibration.json"
REPORT = "report.html"
ANYTIME_STEPS = (1, 2, 3)
DEFAULT_INT8 = Settings(budget_db=INT8_LOSS_LIMIT_DB)
_FORMS: tuple[Precision, ...] = get_args(Precision)
_PARITY_PICTURES = 4
_REPORT_PICTURES = 3
_PACKAGES = ("unblur", "onnx", "onnxruntime", "torch")
_CACHE_TENSORRT = (10, 3, 0)  # JetPack 6.2's; `unblur build` puts the header of the TensorRT it finds


@dataclass(frozen=True)
class DeployPlan:
    """What to deploy and what to judge it on.

    sample: the pictures INT8 is calibrated on. pairs: the ledger is measured on them, against ground truth;
    without any, parity alone is measured, on a few pictures of the sample. steps: the fewer steps that
    variants are added at; None chooses the first few below the network's own. keep_failed: seal the bundle even if
    its ledger fails. int8: how to calibrate.
    """

    checkpoint: Path
    sample: Sample
    pairs: tuple[Pair, ...] = ()
    steps: tuple[int, ...] | None = None
    keep_failed: bool = False
    int8: Settings = DEFAULT_INT8


@dataclass(frozen=True)
class Deployment:
    """A sealed bundle. calibrated: its INT8 form before the rest of it became float16."""

    bundle: Path
    manifest: BundleManifest
    ledger: Ledger
    calibrated: Calibrated


class RejectedBundle(ParityError):
    """The ledger failed, so no bundle was written; `ledger` says by how much."""

    def __init__(self, message: str, ledger: Ledger) -> None:
        super().__init__(message)
        self.ledger = ledger


def deploy(plan: DeployPlan, out: Path, stage: Stage = silent) -> Deployment:
    """Make the bundle `out`, whole or not at all; a bundle that is there already is replaced.

    Raises BadInput, SpecMismatch or CalibrationError if something given cannot be used, RejectedBundle if a hop of
    the ledger fails.
    """
    _check_out(out)
    network = load_checkpoint(plan.checkpoint)
    counts = _step_counts(network.spec.steps, plan.steps)
    variants = tuple(Variant(form, count, _file(form, count, network.steps)) for count in counts for form in _FORMS)
    with atomic_folder(out) as folder:
        calibrated = _write_models(folder, network, variants, plan, stage)
        ledger = _measure(folder, network, variants, plan, stage)
        if not ledger.passed and not plan.keep_failed:
            raise RejectedBundle(_verdict(ledger), ledger)
        golden = [_golden(folder, variant, network.steps) for variant in variants]
        report = _report(folder, network, variants, calibrated, ledger, plan)
        (folder / REPORT_JSON).write_text(report.to_json())
        (folder / REPORT).write_text(bundle_page(report))
        manifest = BundleManifest(
            name=network.spec.preset,
            spec=network.spec,
            created=report.created,
            versions=report.versions,
            variants=variants,
            ledger=ledger.hops,
            golden=tuple(golden),
            calibration_id=calibrated.table.identity,
        )
        manifest = seal_bundle(folder, manifest)
    return Deployment(out, manifest, ledger, calibrated)


def _check_out(out: Path) -> None:
    """Refuse early what would fail late, and never replace a folder that is no bundle."""
    if out.suffix != SUFFIX:
        raise BadInput(f"{out} cannot be a bundle; its name ends in {SUFFIX}")
    if out.exists() and not (out / MANIFEST).is_file():
        raise BadInput(f"{out} is there already and is no bundle; remove it or choose another name")


def _step_counts(own: int, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The network's own number of steps, then the fewer ones."""
    if wanted is not None and not all(1 <= count <= own for count in wanted):
        raise BadInput(f"cannot add variants at the steps {list(wanted)}; this network has 1 to {own}")
    fewer = set(ANYTIME_STEPS if wanted is None else wanted)
    return (own, *(count for count in sorted(fewer) if count < own))


def _file(precision: Precision, steps: int, own_steps: int) -> str:
    return f"{precision}.onnx" if steps == own_steps else f"{precision}-{steps}.onnx"


def _write_models(
    folder: Path, network: DeblurringNetwork, variants: Sequence[Variant], plan: DeployPlan, stage: Stage
) -> Calibrated:
    """Write every variant, the calibration table, and its ranges for implicit INT8."""
    graphs = _write_float(folder, network, variants, stage)
    calibrated = calibrate(graphs[network.steps], plan.sample, plan.int8, stage)
    for variant in variants:
        if variant.precision == "int8":
            int8 = _int8(calibrated, graphs[variant.steps], variant.steps)
            write_onnx(folder / variant.file, int8_fp16_from_int8(int8))
    (folder / CALIBRATION_TABLE).write_text(calibrated.table.to_json())
    (folder / CACHE_FILE).write_text(cache_from_table(calibrated.table, _CACHE_TENSORRT).to_text())
    return calibrated


def _write_float(
    folder: Path, network: DeblurringNetwork, variants: Sequence[Variant], stage: Stage
) -> dict[int, OnnxModel]:
    """Write the fp32 and fp16 variants; gives the fp32 graph of every number of steps."""
    graphs: dict[int, OnnxModel] = {}
    floats = [variant for variant in variants if variant.precision != "int8"]
    advance = stage("exporting", len(floats))
    for variant in floats:
        if variant.steps not in graphs:
            graphs[variant.steps] = simplify(onnx_from_network(network.at_steps(variant.steps))).model
        fp32 = graphs[variant.steps]
        write_onnx(folder / variant.file, fp32 if variant.precision == "fp32" else fp16_from_fp32(fp32))
        advance()
    return graphs


def _int8(calibrated: Calibrated, fp32: OnnxModel, steps: int) -> OnnxModel:
    """INT8 at fewer steps needs no calibration of its own: the table has the ranges of every step."""
    if steps == calibrated.table.steps:
        return calibrated.model
    return quantize_with(fp32, at_fewer_steps(calibrated.table, fp32))


def _measure(
    folder: Path, network: DeblurringNetwork, variants: Sequence[Variant], plan: DeployPlan, stage: Stage
) -> Ledger:
    """torch -> fp32 -> fp16 -> int8 at every number of steps."""
    frames: Sequence[Frame | Pair] = plan.pairs or list(plan.sample.spread(_PARITY_PICTURES).frames())
    chains = [list(chain) for _, chain in groupby(variants, key=lambda variant: variant.steps)]
    advance = stage("measuring", len(frames) * len(chains))
    ledgers = [_chain(folder, network.at_steps(chain[0].steps), chain, frames, advance) for chain in chains]
    return Ledger(
        frames=len(frames),
        blurred_db=ledgers[0].blurred_db,
        qualities=tuple(quality for ledger in ledgers for quality in ledger.qualities[1:]),  # without torch
        hops=tuple(hop for ledger in ledgers for hop in ledger.hops),
    )


def _chain(
    folder: Path,
    network: DeblurringNetwork,
    variants: Sequence[Variant],
    frames: Sequence[Frame | Pair],
    advance: Callable[[], object],
) -> Ledger:
    forms = ["torch", *(variant.precision for variant in variants)]
    names = [f"{earlier} -> {later}" for earlier, later in pairwise(forms)]
    with ExitStack() as stack:
        runners = [stack.enter_context(_open_as_it_runs(folder, variant)) for variant in variants]
        return measure([TorchRunner(network), *runners], frames, advance, names=names)


def _open_as_it_runs(folder: Path, variant: Variant) -> OnnxRunner:
    """As `unblur verify` does; INT8 as an engine will run it, without graph optimisation: see OnnxRunner."""
    return OnnxRunner(folder / variant.file, graph_optimization=variant.precision != "int8")


def _golden(folder: Path, variant: Variant, own_steps: int) -> Golden:
    """Small at fewer steps: float images do not compress, and these would be a quarter of a bundle."""
    with OnnxRunner(folder / variant.file, graph_optimization=False) as runner:
        return make_golden(folder, runner, small=variant.steps != own_steps)


def _report(
    folder: Path,
    network: DeblurringNetwork,
    variants: Sequence[Variant],
    calibrated: Calibrated,
    ledger: Ledger,
    plan: DeployPlan,
) -> BundleReport:
    sizes = [ModelFile(each.precision, each.steps, (folder / each.file).stat().st_size) for each in variants]
    return BundleReport(
        spec=network.spec,
        parameters=count_parameters(network),
        gflop_720p=gflop_720p(network.at_steps(network.steps)),  # on a copy: it leaves the network without weights
        models=tuple(sizes),
        ledger=ledger,
        int8=int8_report(calibrated),
        exhibits=_exhibits(folder, variants, plan),
        versions={package: version(package) for package in _PACKAGES},
        created=_created(),
    )


def _exhibits(folder: Path, variants: Sequence[Variant], plan: DeployPlan) -> tuple[CropComparison, ...]:
    """Restored by the forms at all steps, which come first; see `_step_counts`."""
    fp32, int8 = (next(each for each in variants if each.precision == form) for form in ("fp32", "int8"))
    with _open_as_it_runs(folder, fp32) as exact, _open_as_it_runs(folder, int8) as rounded:
        in_fp32, in_int8 = Deblurrer(exact), Deblurrer(rounded)
        return tuple(
            compare_crops(name, blurred, in_fp32(blurred), in_int8(blurred), sharp)
            for name, blurred, sharp in _shown(plan)
        )


def _shown(plan: DeployPlan) -> Iterator[tuple[str, Frame, Frame | None]]:
    """The first few frames of those the ledger is measured on: name, blurred, sharp."""
    if plan.pairs:
        for pair in plan.pairs[:_REPORT_PICTURES]:
            yield (pair.name, *read_pair(pair))
    else:
        sample = plan.sample.spread(_REPORT_PICTURES)
        for path, frame in zip(sample.paths, sample.frames(), strict=True):
            yield path.name, frame, None


def _verdict(ledger: Ledger) -> str:
    failed = [hop for hop in ledger.hops if not hop.passed]
    return (
        f"the parity ledger fails at '{failed[0].name}' ({failed[0].steps} steps): {failed[0].reason}; "
        "no bundle was written; a network that is hardly trained amplifies rounding: train on, or --keep-failed "
        "writes it all the same"
    )


def _created() -> str:
    """UTC in ISO 8601 from SOURCE_DATE_EPOCH; empty without it, so that equal inputs give equal bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        return ""
    return datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
