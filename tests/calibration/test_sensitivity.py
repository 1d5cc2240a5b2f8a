from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from unblur.calibration.images import Trial
from unblur.calibration.observe import observe
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import layer_macs, place
from unblur.calibration.quality_evaluator import QualityEvaluator
from unblur.calibration.search import CandidateEvaluator, LayerCost, sqnr_db
from unblur.calibration.sensitivity_plot import sensitivity_png
from unblur.runtime.frames import Padding, batch_from_frame
from unblur.runtime.model.calibration_table import TensorRange


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    rng = np.random.default_rng(5)
    return [Trial(*rng.integers(0, 256, (2, 48, 64, 3), np.uint8)) for _ in range(2)]


@pytest.fixture(scope="module")
def ranges(fp32: OnnxModel, trials: list[Trial]) -> dict[str, TensorRange]:
    batches = [batch_from_frame(trial.blurred, Padding((48, 64), (48, 64))) for trial in trials]
    seen = observe(fp32, place(fp32, cautious=False).activations, batches, kind="ranges")
    return {
        name: TensorRange(found.range.lowest, found.range.highest, found.range.magnitude)
        for name, found in seen.items()
    }


def test_a_layer_whose_range_is_too_narrow_is_found(
    fp32: OnnxModel, ranges: dict[str, TensorRange], trials: list[Trial]
) -> None:
    narrow = {name: TensorRange(0, 1, 0.02) if name.startswith("features") else it for name, it in ranges.items()}
    evaluator = CandidateEvaluator(
        fp32, place(fp32, cautious=False), narrow, layer_macs(fp32), QualityEvaluator(fp32, trials)
    )
    sensitivity = evaluator.sensitivity(frozenset({"embed.w", "tail.w"}))
    costs = {cost.layer: cost for cost in sensitivity.layers}
    assert list(costs) == ["embed.w", "body.w", "tail.w"]
    assert abs(costs["body.w"].alone_db) > 5 * abs(costs["embed.w"].alone_db)
    assert abs(costs["body.w"].spared_db) > 5 * abs(costs["tail.w"].spared_db)
    assert [cost.int8 for cost in sensitivity.layers] == [True, False, True]
    assert sum(cost.macs_share for cost in sensitivity.layers) == pytest.approx(1, abs=1e-3)  # the gate is the rest
    assert sensitivity.sqnr_db["features1"] < 10 < sensitivity.sqnr_db["blurred"]


def test_the_costliest_layer_is_named_with_the_image_where_it_costs_most(
    fp32: OnnxModel, ranges: dict[str, TensorRange], trials: list[Trial]
) -> None:
    narrow = {name: TensorRange(0, 1, 0.02) if name.startswith("features") else it for name, it in ranges.items()}
    named = [replace(trial, name=f"{index}.png") for index, trial in enumerate(trials)]
    quality = QualityEvaluator(fp32, named)
    evaluator = CandidateEvaluator(fp32, place(fp32, cautious=False), narrow, layer_macs(fp32), quality)
    explanations = evaluator.explain(frozenset({"embed.w"}))
    assert [each.loss_db for each in explanations] == sorted((each.loss_db for each in explanations), reverse=True)
    (body,) = (each for each in explanations if each.layer == "body.w")
    deltas_db = evaluator.evaluate(frozenset({"body.w"})).deltas_db
    assert body.image == f"{np.argmin(deltas_db)}.png"
    assert body.worst_db == -min(deltas_db)
    assert {each.layer for each in explanations if each.int8} == {"embed.w"}


def test_a_choice_is_judged_once(fp32: OnnxModel, ranges: dict[str, TensorRange], trials: list[Trial]) -> None:
    counted: list[None] = []
    quality = QualityEvaluator(fp32, trials)
    evaluator = CandidateEvaluator(
        fp32, place(fp32), ranges, layer_macs(fp32), quality, lambda name, total: lambda: counted.append(None)
    )
    assert evaluator.evaluate(frozenset({"body.w"})) is evaluator.evaluate(frozenset({"body.w"}))
    assert len(counted) == 1


def test_sqnr_is_that_of_rounding_and_clipping(fp32: OnnxModel) -> None:
    """Against numpy; half of the values are clipped."""
    batch = np.random.default_rng(6).random((1, 3, 32, 32), np.float32)
    rounded = np.clip(np.rint(batch / (0.5 / 127)), -128, 127) * (0.5 / 127)
    expected = 10 * np.log10(np.square(batch).sum() / np.square(batch - rounded).sum())
    measured = sqnr_db(fp32, {"blurred": TensorRange(0, 1, 0.5)}, [batch])
    assert measured["blurred"] == pytest.approx(expected, abs=0.01)


def test_a_tensor_that_is_always_zero_has_no_noise(fp32: OnnxModel) -> None:
    black = np.zeros((1, 3, 32, 32), np.float32)
    assert sqnr_db(fp32, {"blurred": TensorRange(0, 1, 1.0)}, [black]) == {"blurred": float("inf")}


def test_the_plot_has_a_row_a_layer_up_to_forty() -> None:
    costs = [LayerCost(f"layer{index}", 0.01, 0.001 * index, 0.0, index % 2 == 0) for index in range(60)]
    few, many, most = (sensitivity_png(costs[:count]) for count in (5, 40, 60))
    heights = [Image.open(BytesIO(picture)).height for picture in (few, many, most)]
    assert heights[0] < heights[1] == heights[2]
    assert sensitivity_png(costs[:5]) == few
