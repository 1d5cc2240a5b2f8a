"""Pictures -> ranges -> the most INT8 within a budget -> what it costs: the work of `unblur calibrate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from unblur.calibration.images import Sample
from unblur.calibration.observe import Observed, observe
from unblur.calibration.onnx_model import precision_of, spec_of
from unblur.calibration.placement import Placement, layer_macs, place, place_as
from unblur.calibration.quality_evaluator import Cost, find_trials, trial_side
from unblur.calibration.quantize import quantize, quantize_with
from unblur.calibration.ranges import Drift, ranges_for_steps, step_drift
from unblur.calibration.search import CandidateEvaluator, Sensitivity, most_int8
from unblur.calibration.table import table_of
from unblur.calibration.trt_cache import cache_tensors
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import CalibrationError
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
    in the mean, and half of what it may lose in the worst picture; None is no search, and convolutions that read or
    write the image stay float. exclude: names of layers that stay float, as glob patterns. sensitivity: measure
    every layer even if the search does not need it. implicit: observe what TensorRT's implicit INT8 needs beside;
    without it no calibration cache can be made of the table. state: a file that keeps what was seen, so that a run
    that is killed goes on; the caller removes it.
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
    """An INT8 model, the table it was made from, and what it loses on the calibration pictures.

    int8_macs: the share of multiply-accumulates that run in INT8, 0 to 1. sensitivity: None if neither the search
    nor the user wanted to know. drift: how the ranges of a recursion moved from step to step, before any policy.
    """

    model: ModelProto
    table: CalibrationTable
    cost: Cost
    int8_macs: float
    sensitivity: Sensitivity | None = None
    drift: tuple[Drift, ...] = ()


def calibrate(
    model: ModelProto, sample: Sample, settings: Settings | None = None, stage: Stage = silent
) -> Calibrated:
    """The INT8 form of an fp32 graph, with ranges measured on the pictures.

    Raises CalibrationError if `model` is not fp32, the pictures are too few or of one colour, nothing can be
    quantised, a tensor is not finite or the budget cannot be met; BadInput for a bad picture.
    """
    settings = settings or Settings()
    _check_precision(model)
    sample.check()
    candidates = place(model, settings.exclude, cautious=settings.budget_db is None)
    observed = _observed(model, candidates, sample, settings, stage)
    ranges = _ranges(model, observed, settings)
    evaluator = _bench(model, candidates, ranges, sample, stage)
    chosen = frozenset(candidates.layers)
    if settings.budget_db is not None:
        chosen = most_int8(evaluator.macs, evaluator.evaluate, settings.budget_db)
    placement, cost = candidates.only(chosen), evaluator.evaluate(chosen)
    measured = Measured(settings.budget_db, round(cost.delta_db, 4), round(evaluator.share(chosen), 4))
    return Calibrated(
        model=quantize(model, placement, ranges),
        table=_table(model, placement, sample, settings, ranges, measured),
        cost=cost,
        int8_macs=evaluator.share(chosen),
        sensitivity=evaluator.sensitivity(chosen) if settings.sensitivity or placement.excluded else None,
        drift=step_drift(model, {name: observed[name].range for name in placement.activations}),
    )


def apply_table(
    model: ModelProto, table: CalibrationTable, sample: Sample, stage: Stage = silent, *, sensitivity: bool = False
) -> Calibrated:
    """The INT8 form that `table` was made for, judged on the pictures; CalibrationError if it is another's."""
    _check_precision(model)
    int8 = quantize_with(model, table)
    placement = place_as(model, table.kept, table.excluded)
    evaluator = _bench(model, placement, table.ranges, sample, stage)
    chosen = frozenset(placement.layers)
    measured = evaluator.sensitivity(chosen) if sensitivity else None
    return Calibrated(int8, table, evaluator.evaluate(chosen), evaluator.share(chosen), measured)


def _check_precision(model: ModelProto) -> None:
    if precision_of(model) != "fp32":
        raise CalibrationError(
            f"INT8 is made from the fp32 model, this one is '{precision_of(model)}'; export with --precision fp32"
        )


def _observed(
    model: ModelProto, placement: Placement, sample: Sample, settings: Settings, stage: Stage
) -> dict[str, Observed]:
    return observe(
        model,
        (*placement.activations, *_implicit(model, placement, settings)),
        sample.batches(spec_of(model).multiple_of),
        kind="ranges" if settings.method == "minmax" else "histograms",
        names=sample.names,
        progress=stage("observing", len(sample)),
        state=settings.state,
    )


def _implicit(model: ModelProto, placement: Placement, settings: Settings) -> tuple[str, ...]:
    """The tensors that implicit INT8 needs and explicit does not."""
    if not settings.implicit:
        return ()
    return tuple(name for name in cache_tensors(model, placement) if name not in placement.activations)


def _ranges(model: ModelProto, observed: Mapping[str, Observed], settings: Settings) -> dict[str, TensorRange]:
    chosen = ranges_for_steps(model, observed, settings.method, settings.step_policy, settings.percentile)
    return {
        name: TensorRange(seen.range.lowest, seen.range.highest, chosen[name].magnitude)
        for name, seen in observed.items()
    }


def _bench(
    model: ModelProto, candidates: Placement, ranges: Mapping[str, TensorRange], sample: Sample, stage: Stage
) -> CandidateEvaluator:
    macs = layer_macs(model)
    return CandidateEvaluator(
        model, candidates, ranges, macs, find_trials(sample, trial_side(sum(macs.values()))), stage
    )


def _table(
    model: ModelProto,
    placement: Placement,
    sample: Sample,
    settings: Settings,
    ranges: Mapping[str, TensorRange],
    measured: Measured,
) -> CalibrationTable:
    needed = (*placement.activations, *_implicit(model, placement, settings))
    return table_of(
        model,
        placement,
        {name: ranges[name] for name in needed},
        method=settings.method,
        images=sample.hashes(),
        preprocessing=preprocessing_of(spec_of(model), size_hw=sample.size_hw, blurred=sample.synthetic_blur),
        percentile=settings.percentile if settings.method == "percentile" else None,
        step_policy=settings.step_policy,
        measured=measured,
    )
