"""Which few pictures stand for many, and how well they do.

A picture is a point whose coordinates are its features, each scaled so that all pictures together run from 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.calibration.picture_features import FEATURES

Points = NDArray[np.float64]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class FeatureCoverage:
    """all, picked: least, quartiles and largest of a feature. span: the share of its whole range that the picked
    ones span, 0 to 1.
    """

    name: str
    all: tuple[float, ...]
    picked: tuple[float, ...]
    span: float


@dataclass(frozen=True)
class Coverage:
    """How well the picked of all pictures stand for the others. median_distance, largest_distance: from one of the
    others to the nearest picked one, where 1 is the whole range of one feature; 0 if there are no others. farthest:
    the picture with the largest distance.
    """

    pictures: int
    picked: int
    features: tuple[FeatureCoverage, ...]
    median_distance: float
    largest_distance: float
    farthest: str | None


def farthest_points(features: Points, count: int) -> list[int]:
    """Rows of `features` (pictures, features) that cover all: `count` of them, or all, in ascending order.

    The first is the one nearest the mean, then always the one farthest from those taken; that leaves no picture
    more than twice as far as the best choice would (Gonzalez 1985). Of equals the first row wins.
    """
    if count < 1:
        raise ValueError(f"at least 1 picture has to be picked, got {count}")
    points = _scaled(features)
    picked = [int(np.argmin(_distances(points, points.mean(0))))]
    nearest = _distances(points, points[picked[0]])
    while len(picked) < min(count, len(points)):
        nearest[picked] = -1  # so that a duplicate of a picked one comes before that one again
        picked.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _distances(points, points[picked[-1]]))
    return sorted(picked)


def coverage(features: Points, picked: Sequence[int], names: Sequence[str]) -> Coverage:
    """The report on some rows of `features` (pictures, features). names: of all the pictures."""
    points = _scaled(features)
    nearest = np.min([_distances(points, points[index]) for index in picked], axis=0)
    left_out = np.setdiff1d(np.arange(len(points)), picked)
    farthest = int(left_out[np.argmax(nearest[left_out])]) if left_out.size else None
    return Coverage(
        pictures=len(points),
        picked=len(picked),
        features=tuple(
            _feature_coverage(name, features[:, column], features[list(picked), column])
            for column, name in enumerate(FEATURES)
        ),
        median_distance=float(np.median(nearest[left_out])) if left_out.size else 0.0,
        largest_distance=0.0 if farthest is None else float(nearest[farthest]),
        farthest=None if farthest is None else names[farthest],
    )


def _feature_coverage(name: str, values: Points, picked: Points) -> FeatureCoverage:
    whole = float(np.ptp(values))
    of_all, of_picked = (tuple(map(float, np.quantile(some, _QUANTILES))) for some in (values, picked))
    return FeatureCoverage(name, of_all, of_picked, float(np.ptp(picked)) / whole if whole else 1.0)


def _scaled(features: Points) -> Points:
    """A feature that is the same everywhere is 0."""
    ranges = np.ptp(features, axis=0)
    return np.asarray((features - features.min(0)) / np.where(ranges > 0, ranges, 1))


def _distances(points: Points, point: Points) -> Points:
    return np.asarray(np.linalg.norm(points - point, axis=1))
