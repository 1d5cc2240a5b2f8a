"""The pictures that ranges are measured on."""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unblur.calibration.coverage import Coverage, coverage, farthest_points
from unblur.calibration.picture_features import picture_features
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame
from unblur.runtime.images import is_image_path, list_images, read_image
from unblur.runtime.pairs import find_pairs
from unblur.runtime.shake import shake_frame

MAX_PIXELS = 2**20
"""A larger picture is cropped to its centre, so that memory and time do not depend on the camera."""

MIN_PICTURES = 2
_SHAKE_PX = (8.0, 32.0)


@dataclass(frozen=True)
class Sample:
    """Pictures in a fixed order. blurred: they are sharp, lay a seeded camera shake over each. size_hw: use no more
    of a picture than its middle of this size, the one that the network will be run at.
    """

    folder: Path
    paths: tuple[Path, ...]
    blurred: bool = False
    size_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """The pictures one by one as the network will see them; BadInput names one that is damaged.

        A shake belongs to what is in the picture, so a choice of pictures, or other names, changes none.
        """
        for picture in self.pictures():
            yield shaken(picture, zlib.crc32(picture.data)) if self.blurred else picture

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


def find_sample(folder: Path, *, blurred: bool = False, size_hw: tuple[int, int] | None = None) -> Sample:
    """All pictures directly in `folder`, or the blurred side of the pairs below it; BadInput if there are none."""
    if folder.is_dir() and _holds_folders_only(folder):
        return Sample(folder, tuple(pair.blurred for pair in find_pairs(folder)), blurred, size_hw)
    return Sample(folder, tuple(list_images(folder)), blurred, size_hw)


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
