"""The pool of prepared crops: what it draws is fixed by the recipe, whoever prepares, shares or resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unblur.runtime.errors import BadInput
from unblur.runtime.images import write_image
from unblur.train import pool as pools
from unblur.train.data import CropDataset, open_training_data
from unblur.train.pool import CropPool, Share
from unblur.train.recipe import Augmentation, BlurMix, Recipe

RECIPE = Recipe(crop=32, batch=4, augmentation="all", mix=BlurMix(real=1, shake=0, frames=0, lens=0))


@pytest.fixture
def crops(pairs_folder: Path) -> CropDataset:
    return CropDataset(open_training_data([pairs_folder]), RECIPE)


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight crops, two of them to begin with, so that it slides within a few batches."""
    monkeypatch.setattr(pools, "_FIRST", 2)
    monkeypatch.setattr(pools, "_POOL_BYTES", 8 * 2 * 3 * 64**2)
    monkeypatch.setattr(pools, "USES", 2)


def test_batches_are_images_in_channels_last_order(crops: CropDataset) -> None:
    blurred, sharp = CropPool(crops, RECIPE, 100).batch(1)
    for images in (blurred, sharp):
        assert images.shape == (4, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert 0 < float((blurred - sharp).abs().mean()) < float(sharp.std())


@pytest.mark.usefixtures("small_pool")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pool_that_starts_later_draws_the_same(workers: int, crops: CropDataset) -> None:
    whole = CropPool(crops, RECIPE, 1000)
    batches = [whole.batch(iteration) for iteration in range(1, 13)]
    resumed = CropPool(crops, RECIPE, 1000, start=9, workers=workers)
    for iteration in (10, 11, 12):
        torch.testing.assert_close(resumed.batch(iteration), batches[iteration - 1], rtol=0, atol=0)


@pytest.mark.usefixtures("small_pool")
def test_the_pool_is_refilled_while_it_is_used(crops: CropDataset) -> None:
    pool = CropPool(crops, RECIPE, 1000)
    held = {iteration: set(pool._numbers(iteration)) for iteration in (1, 4, 40)}
    assert held[1] == {0, 1}
    assert held[4] == set(range(8))
    assert held[40] == set(range(72, 80))


def test_processes_share_a_batch(crops: CropDataset) -> None:
    (whole, _), *parts = (
        CropPool(crops, RECIPE, 100, share=share).batch(3) for share in (Share(), Share(0, 2), Share(1, 2))
    )
    torch.testing.assert_close(torch.cat([blurred for blurred, _ in parts]), whole, rtol=0, atol=0)
    with pytest.raises(BadInput, match="the batch is 4, expected a multiple of 3 processes; see --batch"):
        CropPool(crops, RECIPE, 100, share=Share(0, 3))


@pytest.mark.parametrize(("augmentation", "orientations"), [("none", 1), ("mirror", 2), ("turns", 8), ("all", 48)])
def test_orientations(
    augmentation: Augmentation, orientations: int, photograph: np.ndarray, tmp_path: Path
) -> None:
    """Of one pair that is as large as a prepared crop, seen at its middle: 48 are 8 times 6 orders of colours."""
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
        noise = np.random.default_rng(0).integers(256, size=(3,), dtype=np.uint8)
        square = np.zeros((64, 64, 3), np.uint8) + noise
        square[:32, :32], square[:32, 32:] = photograph[40, 40], photograph[60, 60]
        write_image(tmp_path / side / "square.png", square)
    recipe = replace(RECIPE, augmentation=augmentation, crop=64, batch=600)
    dataset = CropDataset(open_training_data([tmp_path]), replace(recipe, crop=32, augmentation="all"))
    blurred, _ = CropPool(dataset, recipe, 600).batch(1)
    assert len({image.numpy().tobytes() for image in blurred}) == orientations
