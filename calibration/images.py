"""The images that ranges are measured on: each is decoded once and blurred one way."""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unblur.calibration.coverage import Coverage, Points, coverage, farthest_points, image_features
from unblur.calibration.onnx_model import padding_of
from unblur.runtime.blur import shake_frame
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.frames import Batch, Frame, batch_from_frame
from unblur.runtime.images import is_image_path, list_images, read_image
from unblur.runtime.quality.pairs import Pair, find_pairs, read_pair
from unblur.runtime.spec import ModelSpec

MAX_PIXELS = 2**20
"""A larger image is cropped to its centre, so that memory and time do not depend on the camera."""

MIN_IMAGES = 2
_SHAKE_PX = (8.0, 32.0)


@dataclass(frozen=True, eq=False)
class Trial:
    """An image to restore and what it should become, uint8 RGB (H, W, 3). name: of the image within its folder."""

    blurred: Frame
    sharp: Frame
    name: str = ""


@dataclass(frozen=True, eq=False)
class CalibrationImage:
    """A decoded image of a sample. stored: what the file holds, cropped. frame: what the network sees; another one
    only if it was blurred. truth: the sharp side, if it comes from a pair. All uint8 RGB (H, W, 3).
    """

    name: str
    sha256: str
    stored: Frame
    frame: Frame
    truth: Frame | None

    def batch(self, spec: ModelSpec) -> Batch:
        """`frame` as float32 (1, 3, H, W), padded for a network."""
        height, width = self.frame.shape[:2]
        return batch_from_frame(self.frame, padding_of(spec, (height, width)))

    def trial(self, side: int) -> Trial:
        """The centre, at most `side` pixels high and wide.

        Where there is no pair the image itself is the truth of its blurred copy: that does not show how well a
        network deblurs, but it does show how much of it INT8 loses.
        """
        truth = self.stored if self.truth is None else self.truth
        blurred = self.frame
        if self.truth is None and self.frame is self.stored:
            blurred = shaken(self.stored)
        return Trial(_centre(blurred, (side, side)), _centre(truth, (side, side)), self.name)


@dataclass(frozen=True)
class Sample:
    """Images in a fixed order. synthetic_blur: they are sharp, so blur each by a seeded camera shake. size_hw: use
    at most the centre of this size, the one that the network will run at. pairs: the pair of each path, if they are
    the blurred sides of pairs. coverage: how well they represent the images that they were picked from.
    """

    folder: Path
    paths: tuple[Path, ...]
    synthetic_blur: bool = False
    size_hw: tuple[int, int] | None = None
    pairs: tuple[Pair, ...] = ()
    coverage: Coverage | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """The paths within the folder."""
        return tuple(path.relative_to(self.folder).as_posix() for path in self.paths)

    def images(self, *, truth: frozenset[int] = frozenset()) -> Iterator[CalibrationImage]:
        """Decode the images one by one. truth: indices of those whose sharp side is needed too, if they are pairs.

        Raises BadInput, naming the file, if one is damaged.
        """
        for index, (name, path) in enumerate(zip(self.names, self.paths, strict=True)):
            sharp = None
            if self.pairs and index in truth:
                blurred, sharp = (self._cropped(side) for side in read_pair(self.pairs[index]))
            else:
                blurred = self._cropped(read_image(path))
            seen = shaken(blurred) if self.synthetic_blur else blurred
            yield CalibrationImage(name, hashlib.sha256(path.read_bytes()).hexdigest(), blurred, seen, sharp)

    def frames(self) -> Iterator[Frame]:
        """The images one by one as the network sees them, uint8 RGB (H, W, 3)."""
        return (image.frame for image in self.images())

    def fitting(self, spec: ModelSpec) -> "Sample":
        """Cropped to the only size that a network takes, if it has one."""
        return self if spec.fixed_hw is None else replace(self, size_hw=spec.fixed_hw)

    def spread(self, count: int) -> "Sample":
        """At most `count` of the images, evenly spread over them."""
        return self._only(self.spread_indices(count))

    def spread_indices(self, count: int) -> list[int]:
        """Where the images of `spread` are."""
        indices: list[int] = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()
        return indices

    def pick(self, count: int, progress: Callable[[], object] | None = None) -> "Sample":
        """At most `count` of the images that cover the blur, brightness, texture and noise of all.

        Every image is read. progress: called once per image.
        """
        rows = []
        for frame in self.frames():
            rows.append(image_features(frame))
            if progress is not None:
                progress()
        features = np.array(rows)
        picked = farthest_points(features, count)
        return replace(self._only(picked), coverage=coverage(features, picked, self.names))

    def _cropped(self, image: Frame) -> Frame:
        return _centre(image, _size_hw(image.shape[:2], self.size_hw))

    def _only(self, indices: Sequence[int]) -> "Sample":
        paths = tuple(self.paths[index] for index in indices)
        return replace(self, paths=paths, pairs=tuple(self.pairs[index] for index in indices if self.pairs))


def find_sample(folder: Path, *, synthetic_blur: bool = False, size_hw: tuple[int, int] | None = None) -> Sample:
    """All images directly in `folder`, or the blurred sides of the pairs below it; BadInput if there are none."""
    if not (folder.is_dir() and _holds_folders_only(folder)):
        return Sample(folder, tuple(list_images(folder)), synthetic_blur, size_hw)
    if synthetic_blur:
        raise BadInput(f"{folder} holds pairs, whose images are blurred already; leave out --synthetic-blur")
    pairs = tuple(find_pairs(folder))
    return Sample(folder, tuple(pair.blurred for pair in pairs), synthetic_blur, size_hw, pairs)


class SamplePass:
    """One pass over a sample: gives each image to the network and keeps what later steps need of it.

    side: of the crops to judge INT8 on, in pixels. judged: how many of these. hashes: name -> sha256 of the
    file, in the order of use.
    Raises CalibrationError if there are fewer than two images, and at the end if each has one colour only.
    """

    def __init__(self, sample: Sample, spec: ModelSpec, side: int, judged: int) -> None:
        if len(sample) < MIN_IMAGES:
            raise CalibrationError(
                f"{sample.folder} has {len(sample)} calibration image, expected at least {MIN_IMAGES}, better "
                "dozens; add images like those the model will see"
            )
        self._sample, self._spec, self._side = sample, spec, side
        self._judged = frozenset(sample.spread_indices(judged))
        self._features: list[Points] = []
        self.hashes: dict[str, str] = {}
        self.trials: list[Trial] = []

    def batches(self) -> Iterator[Batch]:
        """The images as the network takes them, float32 (1, 3, H, W), padded."""
        plain = True
        for index, image in enumerate(self._sample.images(truth=self._judged)):
            plain = plain and bool((image.stored == image.stored[0, 0]).all())
            self.hashes[image.name] = image.sha256
            if self._sample.coverage is None:
                self._features.append(image_features(image.frame))
            if index in self._judged:
                self.trials.append(image.trial(self._side))
            yield image.batch(self._spec)
        if plain:
            raise CalibrationError(
                f"each of the {len(self._sample)} calibration images in {self._sample.folder} has one colour only; "
                "expected images like those the model will see"
            )

    @property
    def coverage(self) -> Coverage:
        """How well the images represent those they were picked from; known after the pass."""
        return self._sample.coverage or coverage(
            np.array(self._features), range(len(self._features)), self._sample.names
        )


def find_trials(sample: Sample, side: int, count: int) -> Iterator[Trial]:
    """Crops from the centre of at most `count` images, spread over the sample. side: in pixels, at most."""
    chosen = sample.spread(count)
    return (image.trial(side) for image in chosen.images(truth=frozenset(range(len(chosen)))))


def shaken(image: Frame) -> Frame:
    """`image` under a random camera shake that depends on nothing but its content."""
    rng = np.random.default_rng(zlib.crc32(image.data))
    return shake_frame(image, rng, rng.uniform(*_SHAKE_PX))


def _holds_folders_only(folder: Path) -> bool:
    entries = list(folder.iterdir())
    return any(entry.is_dir() for entry in entries) and not any(is_image_path(entry) for entry in entries)


def _size_hw(stored_hw: tuple[int, int], limit_hw: tuple[int, int] | None) -> tuple[int, int]:
    """How much of an image is used: no more than the limit; without one `MAX_PIXELS` in its own proportions."""
    if limit_hw is not None:
        return limit_hw
    height, width = stored_hw
    scale = min((MAX_PIXELS / (height * width)) ** 0.5, 1.0)
    return max(int(height * scale), 1), max(int(width * scale), 1)


def _centre(image: Frame, limit_hw: tuple[int, int]) -> Frame:
    """The centre of an image, at most `limit_hw`."""
    height, width = (min(stored, limit) for stored, limit in zip(image.shape[:2], limit_hw, strict=True))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
