from pathlib import Path

import numpy as np
import pytest

from unblur.calibration.images import Trial, find_sample, find_trials
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import place
from unblur.calibration.quality_evaluator import Cost, QualityEvaluator, trial_count, trial_side
from unblur.calibration.quantize import quantize
from unblur.runtime.images import write_image
from unblur.runtime.model.calibration_table import TensorRange
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.quality.pairs import find_pairs, read_pair


def _int8(fp32: OnnxModel, amax: float) -> OnnxModel:
    placement = place(fp32)
    return quantize(fp32, placement, dict.fromkeys(placement.activations, TensorRange(0, amax, amax)))


def test_a_model_loses_nothing_against_itself(fp32: OnnxModel, pictures: Path) -> None:
    judge = QualityEvaluator(fp32, find_trials(find_sample(pictures), 256, 8))
    assert judge.cost(fp32) == Cost((0.0, 0.0, 0.0), float("inf"))


def test_int8_costs_something_and_little(fp32: OnnxModel, pictures: Path) -> None:
    cost = QualityEvaluator(fp32, find_trials(find_sample(pictures), 256, 8)).cost(_int8(fp32, 2.0))
    assert 0 < abs(cost.delta_db) < 0.1
    assert 45 < cost.parity_db < 90


def test_ranges_far_too_narrow_are_seen(fp32: OnnxModel, pictures: Path) -> None:
    cost = QualityEvaluator(fp32, find_trials(find_sample(pictures), 256, 8)).cost(_int8(fp32, 0.05))
    assert cost.parity_db < 40


def test_a_restoration_that_is_perfect_is_comparable(fp32: OnnxModel) -> None:
    """The camera's constant picture: PSNR may be infinite, the difference of two is a number all the same."""
    constant = np.full((32, 32, 3), 128, np.uint8)
    cost = QualityEvaluator(fp32, [Trial(constant, constant)]).cost(fp32)
    assert cost.deltas_db == (0.0,)


def test_an_error_that_nobody_sees_costs_next_to_nothing(fp32: OnnxModel, fp32_file: Path, pictures: Path) -> None:
    """Where fp32 is right to the last bit, at 59 dB, INT8 falls by ten, and by less than a grey level."""
    (trial,) = find_trials(find_sample(pictures), 256, 1)
    with Deblurrer(fp32_file) as restore:
        solved = Trial(trial.blurred, restore(trial.blurred))
    cost = QualityEvaluator(fp32, [solved]).cost(_int8(fp32, 2.0))
    assert cost.parity_db == pytest.approx(48.5, abs=0.4)
    assert -3.5 < cost.delta_db < 0


def test_the_budget_that_is_kept_to_is_the_mean_or_half_of_the_worst() -> None:
    assert Cost((-0.1, -0.1, -0.1), 50).loss_db == pytest.approx(0.1)
    assert Cost((0.0, 0.0, -0.6), 50).loss_db == pytest.approx(0.3)
    assert Cost((0.2, 0.2, 0.2), 50).loss_db < 0


def test_without_pairs_a_picture_is_the_truth_of_its_shaken_copy(pictures: Path) -> None:
    first, *_ = trials = list(find_trials(find_sample(pictures), 256, 8))
    assert len(trials) == 3
    assert first.blurred.shape == first.sharp.shape == (33, 47, 3)
    assert first.blurred.std() < 0.8 * first.sharp.std()


@pytest.mark.parametrize(("gigamacs", "side"), [(0.001, 256), (3.7, 256), (14, 192), (300, 128)])
def test_a_heavy_network_is_judged_on_smaller_crops(gigamacs: float, side: int) -> None:
    assert trial_side(int(gigamacs * 1e9)) == side


@pytest.mark.parametrize(("gigamacs", "count"), [(0.001, 64), (8, 32), (300, 8)])
def test_a_light_network_is_judged_on_more_crops(gigamacs: float, count: int) -> None:
    assert trial_count(int(gigamacs * 1e9)) == count


def test_a_search_sees_a_few_of_the_trials(fp32: OnnxModel) -> None:
    rng = np.random.default_rng(5)
    frames = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(15)]
    everything = QualityEvaluator(fp32, [Trial(frame, frame, str(index)) for index, frame in enumerate(frames)])
    few, int8 = everything.for_search(), _int8(fp32, 2.0)
    assert few.names == ("0", "2", "4", "6", "8", "10", "12", "14")
    assert few.cost(int8).deltas_db == everything.cost(int8).deltas_db[::2]


def test_of_pairs_the_sharp_sides_are_the_truth_cropped_to_their_middle(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
        write_image(tmp_path / side / "0.png", rng.integers(0, 256, (300, 270, 3), np.uint8))
    (trial,) = find_trials(find_sample(tmp_path), 256, 8)
    blurred, sharp = read_pair(find_pairs(tmp_path)[0])
    assert np.array_equal(trial.blurred, blurred[22:278, 7:263])
    assert np.array_equal(trial.sharp, sharp[22:278, 7:263])
