from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from unblur.calibration.images import Sample, find_sample
from unblur.calibration.int8_from_fp32 import Settings, apply_table, calibrate
from unblur.calibration.onnx_model import OnnxModel, described, read_onnx
from unblur.runtime.errors import CalibrationError
from unblur.runtime.images import write_image
from unblur.runtime.model.calibration_table import Measured


@pytest.fixture
def sample(pictures: Path) -> Sample:
    return find_sample(pictures)


def test_the_table_says_what_was_done(fp32: OnnxModel, sample: Sample) -> None:
    made, again = (calibrate(fp32, sample) for _ in range(2))
    assert made.model.data == again.model.data
    assert made.table.identity == again.table.identity
    assert made.table.method == "minmax"
    assert list(made.table.images) == ["a.png", "b.png", "c.png"]
    assert made.table.ranges["features1"].lowest == 0  # behind a ReLU
    assert made.table.kept["gate.w"] == "attention gate"
    assert made.table.measured == Measured(None, round(made.cost.delta_db, 4), round(made.int8_macs, 4))
    assert 0.5 < made.int8_macs < 0.6
    assert made.sensitivity is None
    assert calibrate(fp32, find_sample(sample.folder, synthetic_blur=True)).table.identity != made.table.identity


def test_within_a_budget_the_first_and_the_last_become_int8_too(fp32: OnnxModel, sample: Sample) -> None:
    made = calibrate(fp32, sample, Settings(budget_db=0.5))
    assert made.table.excluded == ()
    assert set(made.table.kept) == {"gate.w"}
    assert made.int8_macs > 0.99
    assert made.table.measured is not None
    assert made.table.measured.budget_db == 0.5


def test_layers_that_break_the_budget_are_left_out_and_told(trained: Path, photographs: Path) -> None:
    """A percentile so low that most layers clip what they need."""
    clipping = Settings("percentile", percentile=95, budget_db=0.02)
    model, sample = read_onnx(trained), find_sample(photographs, synthetic_blur=True)
    made = calibrate(model, sample, clipping)
    assert 0 < len(made.table.excluded) < 30  # of 33 layers
    assert made.cost.loss_db <= 0.02
    assert made.int8_macs < 0.9
    assert made.sensitivity is not None
    assert {cost.layer for cost in made.sensitivity.layers if not cost.int8} == set(made.table.excluded)
    everything = calibrate(model, sample, replace(clipping, budget_db=9))
    assert everything.table.excluded == ()
    assert everything.cost.loss_db > 0.02


def test_what_only_implicit_int8_needs_is_observed_if_asked_for(fp32: OnnxModel, sample: Sample) -> None:
    with_it, without = (calibrate(fp32, sample, Settings(implicit=implicit)) for implicit in (True, False))
    assert set(with_it.table.implicit) > {"body1", "sum1"}  # what the convolution and the sum write
    assert without.table.implicit == {}
    assert without.table.ranges == with_it.table.ranges
    assert without.model.data == with_it.model.data


def test_a_table_gives_the_same_model_again(fp32: OnnxModel, sample: Sample) -> None:
    made = calibrate(fp32, sample, Settings(exclude=("tail*",), budget_db=1.0))
    again = apply_table(fp32, made.table, sample, sensitivity=True)
    assert again.model.data == made.model.data
    assert (again.cost, again.int8_macs, again.table) == (made.cost, made.int8_macs, made.table)
    assert again.sensitivity is not None
    assert [cost.layer for cost in again.sensitivity.layers] == ["embed.w", "body.w"]


@pytest.mark.parametrize("use", ["calibrate", "apply"])
def test_only_fp32_is_quantised(fp32: OnnxModel, sample: Sample, use: str) -> None:
    model = OnnxModel.of(fp32.copied())
    model = described(model.proto, fp32.spec, "fp16")
    with pytest.raises(CalibrationError, match="this one is 'fp16'; export with --precision fp32"):
        calibrate(model, sample) if use == "calibrate" else apply_table(
            model, calibrate(fp32, sample).table, sample
        )


def test_two_almost_black_pictures_are_enough_to_get_a_model(fp32: OnnxModel, tmp_path: Path) -> None:
    """Whatever the scales are worth: they are positive, and the loss is a number."""
    picture = np.zeros((40, 40, 3), np.uint8)
    write_image(tmp_path / "black.png", picture)
    picture[20, 20] = 1
    write_image(tmp_path / "dark.png", picture)
    made = calibrate(fp32, find_sample(tmp_path, synthetic_blur=True), Settings(budget_db=0.1))
    scales = [numpy_helper.to_array(it) for it in made.model.graph.initializer if it.name.endswith("_scale")]
    assert all((scale > 0).all() for scale in scales)
    assert np.isfinite(made.cost.delta_db)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (1, "has 1 calibration image, expected at least 2"),
        (2, "each of the 2 calibration images .* has one colour only"),
    ],
)
def test_pictures_that_tell_nothing_are_refused(
    fp32: OnnxModel, tmp_path: Path, pictures: int, message: str
) -> None:
    for index in range(pictures):
        write_image(tmp_path / f"{index}.png", np.full((40, 40, 3), 100 * index, np.uint8))
    with pytest.raises(CalibrationError, match=message):
        calibrate(fp32, find_sample(tmp_path))


def test_weights_that_diverged_are_named_by_tensor_and_picture(fp32: OnnxModel, sample: Sample) -> None:
    model = OnnxModel.of(fp32.copied())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "embed.b")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), "embed.b"))
    with pytest.raises(CalibrationError, match=r"tensor '\w+' is not finite on calibration picture 1 \(a.png\)"):
        calibrate(model, sample)
