import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from unblur.calibration.images import FEATURES, coverage, farthest_points

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
    with pytest.raises(ValueError, match="at least 1 picture has to be picked, got 0"):
        farthest_points(np.ones((3, 4)), 0)
