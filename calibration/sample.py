"""The pictures that ranges are measured on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame
from unblur.runtime.images import is_image_path, list_images, read_image
from unblur.runtime.pairs import find_pairs
from unblur.runtime.shake import shake_frame

MAX_PIXELS = 2**20
"""A larger picture is cropped to its centre, so that memory and time do not depend on the camera."""

_SHAKE_PX = (8.0, 32.0)


@dataclass(frozen=True)
class Sample:
    """Pictures in a fixed order. blurred: they are sharp, lay a seeded camera shake over each."""

    folder: Path
    paths: tuple[Path, ...]
    blurred: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """The pictures one by one as the network will see them; BadInput names one that is damaged."""
        for index, picture in enumerate(self.pictures()):
            yield shaken(picture, index) if self.blurred else picture

    def pictures(self) -> Iterator[Frame]:
        """The pictures one by one as they are stored, cropped to at most `MAX_PIXELS`."""
        for path in self.paths:
            yield _centre(read_image(path))

    def batches(self, multiple_of: int) -> Iterator[Batch]:
        """`frames` as float32 (1, 3, H, W), padded to multiples."""
        for frame in self.frames():
            height, width = frame.shape[:2]
            yield batch_from_frame(frame, Padding.to_multiple((height, width), multiple_of))

    def hashes(self) -> dict[str, str]:
        """Path within the folder -> sha256 of the file, in the order of use."""
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.paths
        }

    def spread(self, count: int) -> "Sample":
        """At most `count` of the pictures, evenly spread over them."""
        indices = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return Sample(self.folder, tuple(self.paths[index] for index in indices), self.blurred)


def find_sample(folder: Path, *, blurred: bool = False) -> Sample:
    """All pictures directly in `folder`, or the blurred side of the pairs below it; BadInput if there are none."""
    if folder.is_dir() and _holds_folders_only(folder):
        return Sample(folder, tuple(pair.blurred for pair in find_pairs(folder)), blurred)
    return Sample(folder, tuple(list_images(folder)), blurred)


def shaken(picture: Frame, index: int) -> Frame:
    """`picture` under the camera shake that belongs to its place in the sample."""
    rng = np.random.default_rng(index)
    return shake_frame(picture, rng, rng.uniform(*_SHAKE_PX))


def _holds_folders_only(folder: Path) -> bool:
    entries = list(folder.iterdir())
    return any(entry.is_dir() for entry in entries) and not any(is_image_path(entry) for entry in entries)


def _centre(picture: Frame) -> Frame:
    height, width = picture.shape[:2]
    if height * width <= MAX_PIXELS:
        return picture
    scale = (MAX_PIXELS / (height * width)) ** 0.5
    rows, columns = max(int(height * scale), 1), max(int(width * scale), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(picture[top : top + rows, left : left + columns])
