"""Photographs that come with scikit-image, and small pairs of them with synthetic camera shake."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from unblur.runtime.blur import shake_frame
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image, write_image

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png")
SHAKE_PX = 8.0


def photograph_path(name: str) -> Path:
    return Path(str(files("skimage"))) / "data" / name


def photograph_pair(
    name: str, corner: tuple[int, int] = (100, 100), size_hw: tuple[int, int] = (160, 240)
) -> tuple[Frame, Frame]:
    """(blurred, sharp): a window of a photograph whose upper left is `corner` = (top, left). The same each time."""
    photograph = read_image(photograph_path(name))
    window = tuple(slice(start, start + length) for start, length in zip(corner, size_hw, strict=True))
    blurred = shake_frame(photograph, np.random.default_rng(0), SHAKE_PX)
    return np.ascontiguousarray(blurred[window]), np.ascontiguousarray(photograph[window])


def write_pairs(folder: Path, size_hw: tuple[int, int] = (160, 240)) -> Path:
    """`folder` with blur/ and sharp/, a window of each of PHOTOGRAPHS in both."""
    for side in ("blur", "sharp"):
        (folder / side).mkdir(parents=True)
    for name in PHOTOGRAPHS:
        for side, frame in zip(("blur", "sharp"), photograph_pair(name, size_hw=size_hw), strict=True):
            write_image(folder / side / name, frame)
    return folder
