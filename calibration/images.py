"""The pictures that ranges are measured on."""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.blur import blur_score, shake_frame
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame
from unblur.runtime.images import is_image_path, list_images, read_image
from unblur.runtime.quality.pairs import find_pairs

FEATURES = ("blur", "brightness", "texture", "noise")

Luma = NDArray[np.float32]

_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_NOISE_BLOCK = 16  # pixels
_FLATTEST = 0.1  # share of the blocks, whose Laplacian is noise rather than texture


def picture_features(picture: Frame) -> NDArray[np.float64]:
    """The `FEATURES` of a uint8 RGB picture.

    blur: 0 sharp to 1 no detail at all. brightness: mean, 0 to 1. texture: log2(1 + mean difference of neighbours
    in 8-bit levels). noise: standard deviation in 8-bit levels.
    """
    luma = np.asarray(picture @ _LUMA_WEIGHTS, np.float32)
    differences = (np.abs(np.diff(luma, axis=0)), np.abs(np.diff(luma, axis=1)))
    return np.array(
        [
            blur_score(picture),
            float(luma.mean()) / 255,
            math.log2(1 + sum(float(difference.mean()) for difference in differences if difference.size) / 2),
            _noise(luma),
        ]
    )


def _noise(luma: Luma) -> float:
    """Immerkaer's estimate ("Fast noise variance estimation", 1996) in the flattest blocks of the picture."""
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


MAX_PIXELS = 2**20
"""A larger picture is cropped to its centre, so that memory and time do not depend on the camera."""

MIN_PICTURES = 2
_SHAKE_PX = (8.0, 32.0)


@dataclass(frozen=True)
class Sample:
    """Images in a fixed order. synthetic_blur: they are sharp, so blur each by a seeded camera shake. size_hw: use
    at most the centre of this size, the one that the network will run at.
    """

    folder: Path
    paths: tuple[Path, ...]
    synthetic_blur: bool = False
    size_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """The pictures one by one as the network will see them; BadInput names one that is damaged.

        A shake belongs to what is in the picture, so a choice of pictures, or other names, changes none.
        """
        for picture in self.pictures():
            yield shaken(picture, zlib.crc32(picture.data)) if self.synthetic_blur else picture

    def pictures(self) -> Iterator[Frame]:
        """The pictures one by one as they are stored, cropped to `size_hw`, else to `MAX_PIXELS`."""
        for path in self.paths:
            picture = read_image(path)
            yield _middle(picture, _size_hw(picture.shape[:2], self.size_hw))

    def batches(self, multiple_of: int) -> Iterator[Batch]:
        """`frames` as float32 (1, 3, H, W), padded to multiples."""
        for frame in self.frames():
            height, width = frame.shape[:2]
            yield batch_from_frame(frame, Padding.to_multiple((height, width), multiple_of))

    @property
    def names(self) -> tuple[str, ...]:
        """The paths within the folder."""
        return tuple(path.relative_to(self.folder).as_posix() for path in self.paths)

    def hashes(self) -> dict[str, str]:
        """Path within the folder -> sha256 of the file, in the order of use."""
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in zip(self.names, self.paths, strict=True)
        }

    def spread(self, count: int) -> "Sample":
        """At most `count` of the pictures, evenly spread over them."""
        return self._only(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist())

    def pick(self, count: int, progress: Callable[[], object] | None = None) -> tuple["Sample", Coverage]:
        """At most `count` of the pictures that cover the blur, brightness, texture and noise of all, and how well.

        Every picture is read. progress: called once a picture.
        """
        features = []
        for frame in self.frames():
            features.append(picture_features(frame))
            if progress is not None:
                progress()
        picked = farthest_points(np.array(features), count)
        return self._only(picked), coverage(np.array(features), picked, self.names)

    def check(self) -> None:
        """CalibrationError if ranges measured on these pictures would say nothing of any others."""
        if len(self) < MIN_PICTURES:
            raise CalibrationError(
                f"{self.folder} gives {len(self)} calibration picture, expected at least {MIN_PICTURES}, better a "
                "dozen; add pictures like those the model will see"
            )
        if all((picture == picture[0, 0]).all() for picture in self.pictures()):
            raise CalibrationError(
                f"the {len(self)} calibration pictures in {self.folder} are of one colour each; "
                "expected pictures like those the model will see"
            )

    def _only(self, indices: Sequence[int]) -> "Sample":
        return replace(self, paths=tuple(self.paths[index] for index in indices))


def find_sample(folder: Path, *, synthetic_blur: bool = False, size_hw: tuple[int, int] | None = None) -> Sample:
    """All pictures directly in `folder`, or the blurred side of the pairs below it; BadInput if there are none."""
    if folder.is_dir() and _holds_folders_only(folder):
        return Sample(folder, tuple(pair.blurred for pair in find_pairs(folder)), synthetic_blur, size_hw)
    return Sample(folder, tuple(list_images(folder)), synthetic_blur, size_hw)


def shaken(picture: Frame, seed: int) -> Frame:
    """`picture` under a random camera shake; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    return shake_frame(picture, rng, rng.uniform(*_SHAKE_PX))


def _holds_folders_only(folder: Path) -> bool:
    entries = list(folder.iterdir())
    return any(entry.is_dir() for entry in entries) and not any(is_image_path(entry) for entry in entries)


def _size_hw(stored_hw: tuple[int, int], limit_hw: tuple[int, int] | None) -> tuple[int, int]:
    """How much of a picture is used: no more than the limit; without one `MAX_PIXELS` in its own proportions."""
    if limit_hw is not None:
        return min(stored_hw[0], limit_hw[0]), min(stored_hw[1], limit_hw[1])
    height, width = stored_hw
    scale = min((MAX_PIXELS / (height * width)) ** 0.5, 1.0)
    return max(int(height * scale), 1), max(int(width * scale), 1)


def _middle(picture: Frame, size_hw: tuple[int, int]) -> Frame:
    top, left = ((stored - used) // 2 for stored, used in zip(picture.shape[:2], size_hw, strict=True))
    return np.ascontiguousarray(picture[top : top + size_hw[0], left : left + size_hw[1]])
