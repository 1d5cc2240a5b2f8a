import itertools
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from unblur.calibration.coverage import FEATURES, coverage, farthest_points, image_features
from unblur.runtime.blur import shake_frame
from unblur.runtime.frames import Frame

Points = NDArray[np.float64]
SMALL = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(4)), elements=st.floats(0, 1, width=16))


def _unit(features: Points) -> Points:
    ranges = np.ptp(features, axis=0)
    return (features - features.min(0)) / np.where(ranges > 0, ranges, 1)


def _radius(points: Points, picked: tuple[int, ...]) -> float:
    return float(max(min(np.linalg.norm(point - points[index]) for index in picked) for point in points))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SMALL, st.integers(1, 9))
def test_no_picture_is_more_than_twice_as_far_as_the_best_choice_leaves_it(features: Points, count: int) -> None:
    picked = farthest_points(features, count)
    assert picked == sorted(set(picked))
    assert len(picked) == min(count, len(features))
    points = _unit(features)
    choices = itertools.combinations(range(len(points)), len(picked))
    assert _radius(points, tuple(picked)) <= 2 * min(_radius(points, choice) for choice in choices) + 1e-9


def test_a_feature_counts_by_its_share_of_the_range_not_by_its_unit() -> None:
    features = np.zeros((4, 4))
    features[:, 0] = [0.0, 0.001, 0.0, 0.0001]
    features[:, 2] = [0.0, 0.0, 900.0, 90.0]
    assert farthest_points(features, 3) == [1, 2, 3]


def test_pictures_that_are_all_alike_are_picked_in_order() -> None:
    assert farthest_points(np.ones((5, 4)), 3) == [0, 1, 2]


def test_the_report_tells_spans_quantiles_and_who_is_left_out() -> None:
    features = np.zeros((5, 4))
    features[:, 0] = [0, 1, 2, 3, 4]
    features[:, 1] = [0, 0, 0, 0, 8]
    report = coverage(features, [1, 3], list("abcde"))
    blur, brightness, texture, noise = report.features
    assert [feature.name for feature in report.features] == list(FEATURES)
    assert blur.all == (0, 1, 2, 3, 4)
    assert blur.picked == (1, 1.5, 2, 2.5, 3)
    assert blur.span == 0.5
    assert brightness.span == 0
    assert texture.span == noise.span == 1  # all are the same
    assert (report.farthest, report.largest_distance) == ("e", pytest.approx(np.hypot(0.25, 1)))
    assert report.median_distance == pytest.approx(0.25)  # of a, c and e
    assert json.loads(json.dumps(asdict(report)))["pictures"] == 5


def test_nothing_left_out_is_full_coverage() -> None:
    report = coverage(np.random.default_rng(0).random((3, 4)), [0, 1, 2], list("abc"))
    assert all(feature.span == 1 for feature in report.features)
    assert (report.median_distance, report.largest_distance, report.farthest) == (0, 0, None)


def test_one_picture_is_covered_by_itself() -> None:
    assert farthest_points(np.ones((1, 4)), 5) == [0]
    assert coverage(np.ones((1, 4)), [0], ["a"]).features[0].span == 1


def test_no_picture_is_no_choice() -> None:
    with pytest.raises(ValueError, match="at least 1 image has to be picked, got 0"):
        farthest_points(np.ones((3, 4)), 0)


def _scene(size_hw: tuple[int, int] = (64, 96)) -> Frame:
    """Squares of mid brightness under a soft wave."""
    rows, columns = np.indices(size_hw)
    waves = 90 + 20 * np.sin(rows / 7) + 30 * np.sign(np.sin(columns / 9) * np.sin(rows / 8))
    return np.repeat(waves[..., None], 3, axis=2).astype(np.uint8)


def _noisy(picture: Frame, sigma: float) -> Frame:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape[:2])[..., None]
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _feature(picture: Frame, name: str) -> float:
    return float(image_features(picture)[FEATURES.index(name)])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("blur", lambda scene: shake_frame(scene, np.random.default_rng(1), 12.0)),
        ("brightness", lambda scene: scene + np.uint8(40)),
        ("texture", lambda scene: (scene.astype(int) * 2 - 100).clip(0, 255).astype(np.uint8)),
        ("noise", lambda scene: _noisy(scene, 6)),
    ],
)
def test_a_feature_rises_with_what_it_is_named_for(name: str, more: Callable[[Frame], Frame]) -> None:
    assert _feature(more(_scene()), name) > _feature(_scene(), name) + 0.05


def test_brightness_is_the_mean_luma() -> None:
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    assert _feature(green, "brightness") == pytest.approx(0.587)


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_noise_is_its_standard_deviation(sigma: float) -> None:
    flat = np.full((256, 256, 3), 128, np.uint8)
    assert _feature(_noisy(flat, sigma), "noise") == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (40, 1), (15, 15), (17, 33)])
@pytest.mark.parametrize("constant", [True, False])
def test_any_picture_has_finite_features(size_hw: tuple[int, int], constant: bool) -> None:
    picture = np.full((*size_hw, 3), 7, np.uint8)
    if not constant:
        picture = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    features = image_features(picture)
    assert np.isfinite(features).all()
    assert 0 <= features[FEATURES.index("blur")] <= 1
    if constant:
        assert features == pytest.approx([1, 7 / 255, 0, 0], abs=1e-5)
