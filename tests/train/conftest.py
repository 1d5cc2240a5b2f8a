"""Small seeded data sets for training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from unblur.runtime.blur import shake_frame


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A real image, 96 x 128, with texture and edges."""
    return np.ascontiguousarray(photographs.chelsea()[60:156, 120:248])


@pytest.fixture
def pairs_folder(tmp_path: Path, photograph: np.ndarray) -> Path:
    """Three pairs in the plain layout."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pairs"
    for side in ("blur", "sharp"):
        (folder / side).mkdir(parents=True)
    for index in range(3):
        sharp = np.roll(photograph, 17 * index, axis=1)
        Image.fromarray(sharp).save(folder / "sharp" / f"{index}.png")
        Image.fromarray(shake_frame(sharp, rng, 8.0)).save(folder / "blur" / f"{index}.png")
    return folder


@pytest.fixture
def stills_folder(tmp_path: Path, photograph: np.ndarray) -> Path:
    """Two sharp images."""
    folder = tmp_path / "stills"
    folder.mkdir()
    Image.fromarray(photograph).save(folder / "a.png")
    Image.fromarray(photograph[::-1]).save(folder / "b.png")
    return folder
