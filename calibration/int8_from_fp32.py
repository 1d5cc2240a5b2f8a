"""Images -> ranges -> the most INT8 within a budget -> what it costs: the work of `unblur calibrate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unblur.calibration.coverage import Coverage
from unblur.calibration.images import Sample, SamplePass, find_trials
from unblur.calibration.observe import Observed, observe
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import Placement, layer_macs, place, place_as
from unblur.calibration.quality_evaluator import Cost, trial_side
from unblur.calibration.quantize import quantize, quantize_with
from unblur.calibration.ranges import Drift, ranges_for_steps, step_drift
from unblur.calibration.search import CandidateEvaluator, Sensitivity, most_int8
from unblur.calibration.table import table_of
from unblur.calibration.trt_cache import cache_tensors
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import NetworkValues
from unblur.runtime.model.calibration_table import (
    CalibrationTable,
    Measured,
    Method,
    StepPolicy,
    TensorRange,
    preprocessing_of,
)


@dataclass(frozen=True)
class Settings:
    """How to calibrate.

    method: how a range is chosen from the values that a tensor took. percentile: of that method, in percent.
    step_policy: how the steps of a recursion share ranges. budget_db: most that INT8 may lose against ground truth
    on average, and half of what it may lose on the worst image; None: no search, and convolutions that read or
    write the image stay float. exclude: names of layers that stay float, as glob patterns. sensitivity: measure
    every layer even if the search does not need it. implicit: also observe what TensorRT's implicit INT8 needs;
    without it no calibration cache can be made from the table. state: a file that keeps what was observed, so that
    a killed run can go on; the caller removes it.
    """

    method: Method = "minmax"
    percentile: float = 99.99
    step_policy: StepPolicy = "per-step"
    budget_db: float | None = None
    exclude: tuple[str, ...] = ()
    sensitivity: bool = False
    implicit: bool = True
    state: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """An INT8 model, the table it was made from, and what it loses on the calibration images.

    int8_macs: the share of multiply-accumulates that run in INT8, 0 to 1. sensitivity: None if neither the search
    nor the caller needed it. drift: how the ranges of a recursion moved from step to step, before any policy.
    coverage: how well the images represent those they were picked from; None for a table made earlier.
    """

    model: OnnxModel
    table: CalibrationTable
    cost: Cost
    int8_macs: float
    sensitivity: Sensitivity | None = None
    drift: tuple[Drift, ...] = ()
    coverage: Coverage | None = None


def calibrate(
    model: OnnxModel, sample: Sample, settings: Settings | None = None, stage: Stage = silent
) -> Calibrated:
    """The INT8 variant of an fp32 graph, with ranges measured on the images; each is decoded once.

    Raises CalibrationError if `model` is not fp32, there are too few images or each has one colour, nothing can be
    quantised, a tensor is not finite or the budget cannot be met; BadInput for a damaged image.
    """
    settings = settings or Settings()
    _check_precision(model)
    macs = layer_macs(model)
    images = SamplePass(sample, model.spec.multiple_of, trial_side(sum(macs.values())))
    candidates = place(model, settings.exclude, cautious=settings.budget_db is None)
    observed = observe(
        model,
        (*candidates.activations, *_implicit(model, candidates, settings)),
        map(NetworkValues(model.spec).taken, images.batches()),
        kind="ranges" if settings.method == "minmax" else "histograms",
        names=sample.names,
        progress=stage("observing", len(sample)),
        state=settings.state,
    )
    ranges = _ranges(model, observed, settings)
    evaluator = CandidateEvaluator(model, candidates, ranges, macs, images.trials, stage)
    chosen = frozenset(candidates.layers)
    if settings.budget_db is not None:
        chosen = most_int8(evaluator.macs, evaluator.evaluate, settings.budget_db)
    placement, cost = candidates.only(chosen), evaluator.evaluate(chosen)
    needed = (*placement.activations, *_implicit(model, placement, settings))
    table = table_of(
        model,
        placement,
        {name: ranges[name] for name in needed},
        method=settings.method,
        images=images.hashes,
        preprocessing=preprocessing_of(model.spec, size_hw=sample.size_hw, blurred=sample.synthetic_blur),
        percentile=settings.percentile if settings.method == "percentile" else None,
        step_policy=settings.step_policy,
        measured=Measured(settings.budget_db, round(cost.delta_db, 4), round(evaluator.share(chosen), 4)),
    )
    return Calibrated(
        model=quantize(model, placement, ranges),
        table=table,
        cost=cost,
        int8_macs=evaluator.share(chosen),
        sensitivity=evaluator.sensitivity(chosen) if settings.sensitivity or placement.excluded else None,
        drift=step_drift(model, {name: observed[name].range for name in placement.activations}),
        coverage=images.coverage,
    )


def apply_table(
    model: OnnxModel, table: CalibrationTable, sample: Sample, stage: Stage = silent, *, sensitivity: bool = False
) -> Calibrated:
    """The INT8 variant that `table` was made for, judged on the images; CalibrationError if it is another's."""
    _check_precision(model)
    int8 = quantize_with(model, table)
    placement, macs = place_as(model, table.kept, table.excluded), layer_macs(model)
    trials = find_trials(sample, trial_side(sum(macs.values())))
    evaluator = CandidateEvaluator(model, placement, table.ranges, macs, trials, stage)
    chosen = frozenset(placement.layers)
    measured = evaluator.sensitivity(chosen) if sensitivity else None
    return Calibrated(int8, table, evaluator.evaluate(chosen), evaluator.share(chosen), measured)


def _check_precision(model: OnnxModel) -> None:
    if model.precision != "fp32":
        raise CalibrationError(
            f"INT8 is made from the fp32 model, this one is '{model.precision}'; export with --precision fp32"
        )


def _implicit(model: OnnxModel, placement: Placement, settings: Settings) -> tuple[str, ...]:
    """The tensors that implicit INT8 needs and explicit does not."""
    if not settings.implicit:
        return ()
    return tuple(name for name in cache_tensors(model, placement) if name not in placement.activations)


def _ranges(model: OnnxModel, observed: Mapping[str, Observed], settings: Settings) -> dict[str, TensorRange]:
    chosen = ranges_for_steps(model, observed, settings.method, settings.step_policy, settings.percentile)
    return {
        name: TensorRange(seen.range.lowest, seen.range.highest, chosen[name].magnitude)
        for name, seen in observed.items()
    }
