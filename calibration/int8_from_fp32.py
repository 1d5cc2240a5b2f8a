"""Images -> ranges -> the most INT8 within a budget -> what it costs: the work of `unblur calibrate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from unblur.calibration.coverage import Coverage
from unblur.calibration.images import Sample, SamplePass, find_trials
from unblur.calibration.observe import Observed, observe
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import Placement, layer_macs, place, place_as
from unblur.calibration.quality_evaluator import Cost, QualityEvaluator, trial_count, trial_side
from unblur.calibration.quantize import quantize, quantize_with
from unblur.calibration.ranges import Drift, ranges_for_steps, step_drift
from unblur.calibration.search import CandidateEvaluator, Explanation, Sensitivity, most_int8
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

    method: how a range is chosen from the values that a tensor took; "auto" compares all, everything in INT8, and
    takes the one that loses least. percentile: of that method, in percent.
    step_policy: how the steps of a recursion share ranges. budget_db: most that INT8 may lose against ground truth
    on average, and half of what it may lose on the worst image; None: no search, and convolutions that read or
    write the image stay float. exclude: names of layers that stay float, as glob patterns. sensitivity: measure
    every layer even if the search does not need it. explain: name for every layer the image where it costs most.
    implicit: also observe what TensorRT's implicit INT8 needs;
    without it no calibration cache can be made from the table. state: a file that keeps what was observed, so that
    a killed run can go on; the caller removes it.
    """

    method: Method | Literal["auto"] = "minmax"
    percentile: float = 99.99
    step_policy: StepPolicy = "per-step"
    budget_db: float | None = None
    exclude: tuple[str, ...] = ()
    sensitivity: bool = False
    explain: bool = False
    implicit: bool = True
    state: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """An INT8 model, the table it was made from, and what it loses on the calibration images.

    int8_macs: the share of multiply-accumulates that run in INT8, 0 to 1. sensitivity: None if neither the search
    nor the caller needed it. drift: how the ranges of a recursion moved from step to step, before any policy.
    coverage: how well the images represent those they were picked from; None for a table made earlier. losses_db:
    method -> what it loses with everything in INT8. explanations: see `Settings.explain`.
    """

    model: OnnxModel
    table: CalibrationTable
    cost: Cost
    int8_macs: float
    sensitivity: Sensitivity | None = None
    drift: tuple[Drift, ...] = ()
    coverage: Coverage | None = None
    losses_db: Mapping[Method, float] = field(default_factory=dict)
    explanations: tuple[Explanation, ...] = ()


_BUDGET_PARTS = (1.0, 0.5, 0.25)


def calibrate(
    model: OnnxModel, sample: Sample, settings: Settings | None = None, stage: Stage = silent
) -> Calibrated:
    """The INT8 variant of an fp32 graph, with ranges measured on the images; each is decoded once.

    Raises CalibrationError if `model` is not fp32, there are too few images or each has one colour, nothing can be
    quantised, a tensor is not finite or the budget cannot be met; BadInput for a damaged image.
    """
    settings = settings or Settings()
    _check_precision(model)
    sample = sample.fitting(model.spec)
    macs = layer_macs(model)
    total = sum(macs.values())
    images = SamplePass(sample, model.spec, trial_side(total), trial_count(total))
    candidates = place(model, settings.exclude, cautious=settings.budget_db is None)
    observed = _observed(model, candidates, images, sample, settings, stage)
    quality = QualityEvaluator(model, images.trials)

    def evaluator_of(method: Method, trials: QualityEvaluator) -> CandidateEvaluator:
        ranges = _ranges(model, observed, method, settings)
        return CandidateEvaluator(model, candidates, ranges, macs, trials, stage)

    evaluators = {method: evaluator_of(method, quality) for method in _methods(settings)}
    losses_db = {each: evaluator.evaluate(evaluator.everything).loss_db for each, evaluator in evaluators.items()}
    method = min(losses_db, key=lambda each: losses_db[each])
    evaluator, ranges = evaluators[method], _ranges(model, observed, method, settings)
    searcher = evaluator_of(method, quality.for_search(evaluator.evaluate(evaluator.everything).deltas_db))
    chosen = _within(settings.budget_db, evaluator, searcher)
    placement, cost = candidates.only(chosen), evaluator.evaluate(chosen)
    needed = (*placement.activations, *_implicit(model, placement, settings))
    table = table_of(
        model,
        placement,
        {name: ranges[name] for name in needed},
        method=method,
        images=images.hashes,
        preprocessing=preprocessing_of(model.spec, size_hw=sample.size_hw, blurred=sample.synthetic_blur),
        percentile=settings.percentile if method == "percentile" else None,
        step_policy=settings.step_policy,
        measured=Measured(settings.budget_db, round(cost.delta_db, 4), round(evaluator.share(chosen), 4)),
    )
    return Calibrated(
        model=quantize(model, placement, ranges),
        table=table,
        cost=cost,
        int8_macs=evaluator.share(chosen),
        sensitivity=searcher.sensitivity(chosen) if settings.sensitivity or placement.excluded else None,
        drift=step_drift(model, {name: observed[name].range for name in placement.activations}),
        coverage=images.coverage,
        losses_db=losses_db,
        explanations=searcher.explain(chosen) if settings.explain else (),
    )


def _methods(settings: Settings) -> tuple[Method, ...]:
    """Those to compare."""
    return get_args(Method) if settings.method == "auto" else (settings.method,)


def _observed(
    model: OnnxModel, candidates: Placement, images: SamplePass, sample: Sample, settings: Settings, stage: Stage
) -> dict[str, Observed]:
    return observe(
        model,
        (*candidates.activations, *_implicit(model, candidates, settings)),
        images.batches(),
        kind="ranges" if settings.method == "minmax" else "histograms",
        names=sample.names,
        progress=stage("observing", len(sample)),
        state=settings.state,
    )


def _within(budget_db: float | None, evaluator: CandidateEvaluator, searcher: CandidateEvaluator) -> frozenset[str]:
    """The most INT8 that keeps to the budget on all trials; the search sees a few of them, so it may have to be
    repeated with less to spend.
    """
    if budget_db is None or evaluator.evaluate(evaluator.everything).loss_db <= budget_db:
        return evaluator.everything
    for part in _BUDGET_PARTS:
        chosen = most_int8(searcher.macs, searcher.evaluate, budget_db * part)
        if evaluator.evaluate(chosen).loss_db <= budget_db:
            return chosen
    raise CalibrationError(
        f"no choice of INT8 layers keeps to a loss of {budget_db:g} dB on all images; the last one tried loses "
        f"{evaluator.evaluate(chosen).loss_db:.2g} dB: raise the budget, or use fp16"
    )


def apply_table(
    model: OnnxModel, table: CalibrationTable, sample: Sample, stage: Stage = silent, *, sensitivity: bool = False
) -> Calibrated:
    """The INT8 variant that `table` was made for, judged on the images; CalibrationError if it is another's."""
    _check_precision(model)
    int8 = quantize_with(model, table)
    placement, macs = place_as(model, table.kept, table.excluded), layer_macs(model)
    total = sum(macs.values())
    quality = QualityEvaluator(
        model, find_trials(sample.fitting(model.spec), trial_side(total), trial_count(total))
    )
    evaluator = CandidateEvaluator(model, placement, table.ranges, macs, quality, stage)
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


def _ranges(
    model: OnnxModel, observed: Mapping[str, Observed], method: Method, settings: Settings
) -> dict[str, TensorRange]:
    chosen = ranges_for_steps(model, observed, method, settings.step_policy, settings.percentile)
    return {
        name: TensorRange(seen.range.lowest, seen.range.highest, chosen[name].magnitude)
        for name, seen in observed.items()
    }
