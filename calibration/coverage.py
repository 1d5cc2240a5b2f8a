"""How images differ, which few of them cover all, and how well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.blur import blur_score
from unblur.runtime.frames import Frame

FEATURES = ("blur", "brightness", "texture", "noise")

Luma = NDArray[np.float32]
Points = NDArray[np.float64]

_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_NOISE_BLOCK = 16  # pixels
_FLATTEST = 0.1  # share of the blocks, whose Laplacian is noise rather than texture
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class FeatureCoverage:
    """all, picked: minimum, quartiles and maximum of a feature. span: the share of its whole range that the picked
    images span, 0 to 1.
    """

    name: str
    all: tuple[float, ...]
    picked: tuple[float, ...]
    span: float


@dataclass(frozen=True)
class Coverage:
    """How well the picked images represent the others. median_distance, largest_distance: from an image that was
    left out to the nearest picked one, where 1 is the whole range of one feature; 0 if all were picked. farthest:
    the image with the largest distance.
    """

    pictures: int
    picked: int
    features: tuple[FeatureCoverage, ...]
    median_distance: float
    largest_distance: float
    farthest: str | None


def image_features(image: Frame) -> Points:
    """The `FEATURES` of a uint8 RGB image (H, W, 3), float64 (4,).

    blur: 0 sharp to 1 no detail, see `blur_score`. brightness: mean, 0 to 1. texture: log2(1 + mean difference of
    neighbours in 8-bit levels). noise: standard deviation in 8-bit levels.
    """
    luma = np.asarray(image @ _LUMA_WEIGHTS, np.float32)
    differences = [float(np.abs(np.diff(luma, axis=axis)).mean()) for axis in (0, 1) if luma.shape[axis] > 1]
    brightness, texture = float(luma.mean()) / 255, math.log2(1 + sum(differences) / 2)
    return np.array([blur_score(image), brightness, texture, _noise(luma)])


def _noise(luma: Luma) -> float:
    """Immerkaer's estimate ("Fast noise variance estimation", 1996) in the flattest blocks of the image."""
    p = np.pad(luma, 1, "edge")
    rows = p[:-2] - 2 * p[1:-1] + p[2:]
    response = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    return math.sqrt(math.pi / 2) / 6 * float(np.quantile(_block_means(response), _FLATTEST))


def _block_means(values: Luma) -> Luma:
    """Means of the whole blocks; of everything if there is none."""
    rows, columns = (side // _NOISE_BLOCK for side in values.shape)
    if rows == 0 or columns == 0:
        return np.full((1, 1), values.mean(), np.float32)
    whole = values[: rows * _NOISE_BLOCK, : columns * _NOISE_BLOCK]
    return np.asarray(whole.reshape(rows, _NOISE_BLOCK, columns, _NOISE_BLOCK).mean((1, 3)))


def farthest_points(features: Points, count: int) -> list[int]:
    """Rows of `features` (images, features) that cover all: `count` of them, or all, in ascending order.

    The first is the one nearest the mean, then always the one farthest from those taken; that leaves no image
    more than twice as far as the best choice would (Gonzalez 1985). Among equals the first row wins.
    """
    if count < 1:
        raise ValueError(f"at least 1 image has to be picked, got {count}")
    points = _scaled(features)
    picked = [int(np.argmin(_distances(points, points.mean(0))))]
    nearest = _distances(points, points[picked[0]])
    while len(picked) < min(count, len(points)):
        nearest[picked] = -1  # so that a duplicate of a picked one comes before that one again
        picked.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _distances(points, points[picked[-1]]))
    return sorted(picked)


def coverage(features: Points, picked: Sequence[int], names: Sequence[str]) -> Coverage:
    """How well some rows of `features` (images, features) represent all. names: of all the images."""
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
    """Each feature in units of its range; one that is the same everywhere is 0."""
    ranges = np.ptp(features, axis=0)
    return np.asarray((features - features.min(0)) / np.where(ranges > 0, ranges, 1))


def _distances(points: Points, point: Points) -> Points:
    return np.asarray(np.linalg.norm(points - point, axis=1))
