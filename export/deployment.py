"""A network -> a bundle that a device can trust.

    source -> fp32, fp16, int8, also at fewer steps -> parity ledger -> golden vectors -> report -> sealed

With SOURCE_DATE_EPOCH set a build is reproducible: equal inputs give equal bytes on one machine, the date is that
of the variable, and no latency is measured. The numbers in a bundle (ranges, parity, golden vectors) depend on the
processor in their last digits.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from typing import get_args

import numpy as np

from unblur.calibration.images import Sample, Trial, find_trials
from unblur.calibration.int8_from_fp32 import Calibrated, Settings, calibrate
from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.calibration.quantize import quantize_with
from unblur.calibration.table import at_fewer_steps
from unblur.calibration.trt_cache import CACHE_FILE, cache_from_table
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.report.bundle_page import bundle_page
from unblur.export.report.data import (
    REPORT_JSON,
    BundleReport,
    CropComparison,
    ModelFile,
    Truth,
    VariantLatency,
    int8_report,
)
from unblur.export.report.images import compare_crops, gain_db, most_detailed_crop, shrunk
from unblur.export.source_model import SourceModel
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, ParityError
from unblur.runtime.files import atomic_folder, scratch_folder
from unblur.runtime.frames import Frame, Padding, batch_from_frame
from unblur.runtime.images import write_image
from unblur.runtime.model.bundle import MANIFEST, SUFFIX, BundleManifest, Golden, Variant, seal_bundle
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.golden import make_golden
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.parity import Ledger, measure
from unblur.runtime.quality.tolerances import INT8_LOSS_LIMIT_DB
from unblur.runtime.spec import Precision

CALIBRATION_TABLE = "calibration.json"
REPORT = "report.html"
ANYTIME_STEPS = (1, 2, 3)
DEFAULT_INT8 = Settings(budget_db=INT8_LOSS_LIMIT_DB)
_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_PAIRS, _TRUTH_SIDE = 8, 720  # how many are taken or made of the sample, and their size in pixels
_REPORT_IMAGES = 3
_FRAME_HW, _RUNS, _RUNS_S = (720, 1280), 5, 3.0
_PACKAGES = ("unblur", "onnx", "onnxruntime", "torch")
_CACHE_TENSORRT = (10, 3, 0)  # JetPack 6.2's; `unblur build` puts the header of the TensorRT it finds


@dataclass(frozen=True)
class DeployPlan:
    """What to deploy and what to measure it on.

    sample: the images INT8 is calibrated on. pairs: the ledger is measured on them, against ground truth; without
    any, on those of the sample, or on pairs made of its images by synthetic blur. steps: the fewer steps that
    variants are added at; None chooses the first few below the network's own. keep_failed: seal the bundle even if
    its ledger does not pass. int8: how to calibrate.
    """

    source: SourceModel
    sample: Sample
    pairs: tuple[Pair, ...] = ()
    steps: tuple[int, ...] | None = None
    keep_failed: bool = False
    int8: Settings = DEFAULT_INT8


@dataclass(frozen=True)
class Deployment:
    """A sealed bundle. calibrated: its INT8 variant before the rest of it became float16."""

    bundle: Path
    manifest: BundleManifest
    ledger: Ledger
    calibrated: Calibrated


class RejectedBundle(ParityError):
    """The ledger did not pass, so no bundle was written; `ledger` has the figures."""

    def __init__(self, message: str, ledger: Ledger) -> None:
        super().__init__(message)
        self.ledger = ledger


def deploy(plan: DeployPlan, out: Path, stage: Stage = silent) -> Deployment:
    """Make the bundle `out`, whole or not at all; a bundle that is there already is replaced.

    Raises BadInput, SpecMismatch or CalibrationError if something given cannot be used, RejectedBundle if the
    ledger does not pass.
    """
    _check_out(out)
    own_steps = plan.source.spec.steps
    counts = _step_counts(own_steps, plan.steps)
    variants = tuple(
        Variant(precision, count, _file(precision, count, own_steps))
        for count in counts
        for precision in _PRECISIONS
    )
    with atomic_folder(out) as folder, _truth(plan) as (pairs, truth):
        calibrated = _write_models(folder, variants, plan, stage)
        ledger = _measure(folder, plan.source, variants, pairs, stage)
        if not ledger.passed and not plan.keep_failed:
            raise RejectedBundle(_verdict(ledger), ledger)
        golden = tuple(_golden(folder, variant, own_steps) for variant in variants)
        report = BundleReport(
            spec=plan.source.spec,
            parameters=plan.source.parameters,
            gflop_720p=plan.source.gflop_720p,
            models=tuple(
                ModelFile(each.precision, each.steps, (folder / each.file).stat().st_size) for each in variants
            ),
            ledger=ledger,
            int8=int8_report(calibrated),
            truth=truth,
            images=_images(folder / variants[0].file, pairs),
            latency=tuple(_latency(folder, each) for each in variants if each.steps == own_steps and not _epoch()),
            versions={package: version(package) for package in _PACKAGES},
            created=_created(),
        )
        (folder / REPORT_JSON).write_text(report.to_json())
        (folder / REPORT).write_text(bundle_page(report))
        manifest = seal_bundle(folder, _manifest(report, calibrated.table.identity, variants, golden))
    return Deployment(out, manifest, ledger, calibrated)


def _model_file(folder: Path, variant: Variant) -> ModelFile:
    return ModelFile(variant.precision, variant.steps, (folder / variant.file).stat().st_size)


def _manifest(
    report: BundleReport, calibration_id: str, variants: tuple[Variant, ...], golden: tuple[Golden, ...]
) -> BundleManifest:
    return BundleManifest(
        name=report.spec.preset,
        spec=report.spec,
        created=report.created,
        versions=report.versions,
        variants=variants,
        ledger=report.ledger.hops,
        golden=golden,
        calibration_id=calibration_id,
    )


def _check_out(out: Path) -> None:
    """Refuse early what would fail late, and never replace a folder that is not a bundle."""
    if out.suffix != SUFFIX:
        raise BadInput(f"{out} cannot be a bundle; its name ends in {SUFFIX}")
    if out.exists() and not (out / MANIFEST).is_file():
        raise BadInput(f"{out} is there already and is not a bundle; remove it or choose another name")


def _step_counts(own: int, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The network's own number of steps, then the fewer ones."""
    if wanted is not None and not all(1 <= count <= own for count in wanted):
        raise BadInput(f"cannot add variants at the steps {list(wanted)}; this network has 1 to {own}")
    fewer = set(ANYTIME_STEPS if wanted is None else wanted)
    return (own, *(count for count in sorted(fewer) if count < own))


def _file(precision: Precision, steps: int, own_steps: int) -> str:
    return f"{precision}.onnx" if steps == own_steps else f"{precision}-{steps}.onnx"


@contextmanager
def _truth(plan: DeployPlan) -> Iterator[tuple[tuple[Pair, ...], Truth]]:
    """The pairs to measure on, and where they come from; those that are made are there inside the block."""
    sample = plan.sample.fitting(plan.source.spec)
    pairs = plan.pairs or sample.spread(_PAIRS).pairs
    if pairs:
        yield pairs, "pairs"
        return
    with scratch_folder() as folder:
        trials = enumerate(find_trials(sample, _TRUTH_SIDE, _PAIRS))
        yield tuple(_written(trial, folder / str(index)) for index, trial in trials), "synthetic blur"


def _written(trial: Trial, stem: Path) -> Pair:
    """The two images as files, as pairs are."""
    blurred, sharp = (stem.with_name(f"{stem.name}-{side}.png") for side in ("blurred", "sharp"))
    write_image(blurred, trial.blurred)
    write_image(sharp, trial.sharp)
    return Pair(trial.name, blurred, sharp)


def _write_models(folder: Path, variants: Sequence[Variant], plan: DeployPlan, stage: Stage) -> Calibrated:
    """Write every variant, the calibration table, and its ranges for implicit INT8."""
    graphs = _write_float(folder, plan.source, variants, stage)
    calibrated = calibrate(graphs[plan.source.spec.steps], plan.sample, plan.int8, stage)
    for variant in variants:
        if variant.precision == "int8":
            int8 = _int8(calibrated, graphs[variant.steps], variant.steps)
            write_onnx(folder / variant.file, int8_fp16_from_int8(int8))
    (folder / CALIBRATION_TABLE).write_text(calibrated.table.to_json())
    (folder / CACHE_FILE).write_text(cache_from_table(calibrated.table, _CACHE_TENSORRT).to_text())
    return calibrated


def _write_float(
    folder: Path, source: SourceModel, variants: Sequence[Variant], stage: Stage
) -> dict[int, OnnxModel]:
    """Write the fp32 and fp16 variants; gives the fp32 graph of every number of steps."""
    graphs: dict[int, OnnxModel] = {}
    floats = [variant for variant in variants if variant.precision != "int8"]
    advance = stage("exporting", len(floats))
    for variant in floats:
        if variant.steps not in graphs:
            graphs[variant.steps] = source.onnx(variant.steps)
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
    folder: Path, source: SourceModel, variants: Sequence[Variant], pairs: Sequence[Pair], stage: Stage
) -> Ledger:
    """torch -> fp32 -> fp16 -> int8 at every number of steps; without torch where there is only a graph."""
    chains = [list(chain) for _, chain in groupby(variants, key=lambda variant: variant.steps)]
    advance = stage("measuring", len(pairs) * len(chains))
    ledgers = [_chain(folder, source, chain, pairs, advance) for chain in chains]
    return Ledger(
        frames=len(pairs),
        blurred_db=ledgers[0].blurred_db,
        qualities=tuple(quality for ledger in ledgers for quality in ledger.qualities),
        hops=tuple(hop for ledger in ledgers for hop in ledger.hops),
    )


def _chain(
    folder: Path,
    source: SourceModel,
    variants: Sequence[Variant],
    pairs: Sequence[Pair],
    advance: Callable[[], object],
) -> Ledger:
    """The ledger at one number of steps; its qualities are those of the variants alone."""
    reference = source.reference(variants[0].steps)
    first = [] if reference is None else [reference]
    names = [*("torch" for _ in first), *(variant.precision for variant in variants)]
    with ExitStack() as stack:
        runners = [*first, *(_open_as_it_runs(folder, variant) for variant in variants)]
        for runner in runners:
            stack.enter_context(runner)
        ledger = measure(
            runners, pairs, advance, names=[f"{earlier} -> {later}" for earlier, later in pairwise(names)]
        )
    return Ledger(ledger.frames, ledger.blurred_db, ledger.qualities[len(first) :], ledger.hops)


def _open_as_it_runs(folder: Path, variant: Variant) -> OnnxRunner:
    """As `unblur verify` does; INT8 as an engine will run it, without graph optimisation: see OnnxRunner."""
    return OnnxRunner(folder / variant.file, graph_optimization=variant.precision != "int8")


def _golden(folder: Path, variant: Variant, own_steps: int) -> Golden:
    """Small at fewer steps: float images do not compress, and these would be a quarter of a bundle."""
    with OnnxRunner(folder / variant.file, graph_optimization=False) as runner:
        return make_golden(folder, runner, small=variant.steps != own_steps)


def _images(fp32: Path, pairs: Sequence[Pair]) -> tuple[CropComparison, ...]:
    """Crops of a few pairs: that with the least gain, the median and the most."""
    found = []
    with OnnxRunner(fp32) as runner:
        deblur = Deblurrer(runner)
        for pair in pairs[:: max(1, len(pairs) // _PAIRS)]:
            blurred, sharp = read_pair(pair)
            restored, crop = shrunk(deblur(blurred), runner.spec.scale), most_detailed_crop(sharp)
            frames = (blurred, restored, sharp)
            found.append((gain_db(crop, *frames), pair.name, compare_crops(pair.name, crop, *frames)))
    found.sort(key=lambda each: each[:2])
    chosen = sorted({round(index * (len(found) - 1) / (_REPORT_IMAGES - 1)) for index in range(_REPORT_IMAGES)})
    return tuple(found[index][2] for index in chosen)


def _latency(folder: Path, variant: Variant) -> VariantLatency:
    """The median of a few frames of 720p, or of the only size, after one to warm up."""
    with OnnxRunner(folder / variant.file) as runner:
        size_hw = runner.spec.usual_hw(_FRAME_HW)
        frame: Frame = np.full((*size_hw, 3), 128, np.uint8)
        batch = batch_from_frame(frame, Padding.to_multiple(size_hw, runner.spec.multiple_of))
        runner.infer(batch)
        times_ms: list[float] = []
        while len(times_ms) < _RUNS and sum(times_ms) < _RUNS_S * 1e3:
            began = time.perf_counter()
            runner.infer(batch)
            times_ms.append((time.perf_counter() - began) * 1e3)
        median_ms = round(statistics.median(times_ms), 3)
        return VariantLatency(variant.precision, variant.steps, runner.device, size_hw, median_ms, len(times_ms))


def _verdict(ledger: Ledger) -> str:
    failed = [hop for hop in ledger.hops if not hop.passed]
    return (
        f"the parity ledger fails at '{failed[0].name}' ({failed[0].steps} steps): {failed[0].reason}; "
        "no bundle was written; a network that is hardly trained amplifies rounding: train on, or --keep-failed "
        "writes it all the same"
    )


def _epoch() -> str:
    """SOURCE_DATE_EPOCH; empty if it is not set or not a number."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return epoch if epoch.isdecimal() else ""


def _created() -> str:
    """UTC in ISO 8601; empty without SOURCE_DATE_EPOCH."""
    epoch = _epoch()
    return datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if epoch else ""
