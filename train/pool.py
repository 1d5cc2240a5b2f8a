"""A pool of prepared crops: the training loop draws from it, worker processes refill it.

Preparing a crop (decoding, blurring) takes longer than training on it, so each is used several times, every time in
another window, orientation and order of colours. The pool is a window that slides over the numbered crops of a
`CropDataset`; which numbers it holds at an iteration, and what is drawn, are functions of the recipe alone. So a
resumed run goes on bit by bit as an unbroken one, however fast the workers are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unblur.runtime.errors import BadInput
from unblur.train.data import CropDataset
from unblur.train.recipe import Recipe

USES = 10  # of every prepared crop, on average
_FIRST = 512  # crops to begin with: they take seconds
_POOL_BYTES = 2 * 2**30
_PREFETCH = 16  # crops per worker


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process trains on."""

    process: int = 0
    processes: int = 1

    def of(self, batch: int) -> slice:
        """Raises BadInput if the processes cannot share the batch equally."""
        if batch % self.processes:
            raise BadInput(f"the batch is {batch}, expected a multiple of {self.processes} processes; see --batch")
        size = batch // self.processes
        return slice(self.process * size, (self.process + 1) * size)


class CropPool:
    """Draws batches. crops: all there are, by number. samples: how many the whole run draws at most.

    start: the iteration before the first to draw. workers: processes that prepare crops; 0 prepares them here.
    The pool lies on `device` as uint8, at most 2 GiB.
    """

    def __init__(
        self,
        crops: CropDataset,
        recipe: Recipe,
        samples: int,
        *,
        start: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
        share: Share = Share(),
    ) -> None:
        self._recipe = recipe
        self._share = share.of(recipe.batch)
        self._side = crops.side
        bytes_per_crop = 2 * 3 * crops.side**2
        self._first = min(_FIRST, samples)
        self._capacity = max(self._first, min(_POOL_BYTES // bytes_per_crop, self._first + samples // USES))
        self._made = max(0, self._numbers(start + 1).start)
        self._pool = torch.empty((self._capacity, 2, crops.side, crops.side, 3), dtype=torch.uint8, device=device)
        self._source = _prepared(crops, self._made, workers)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """(blurred, sharp) of an iteration, float32 (N, 3, crop, crop) in [0, 1], channels last."""
        numbers = self._numbers(iteration)
        while self._made < numbers.stop:
            self._pool[self._made % self._capacity] = next(self._source).to(self._pool.device)
            self._made += 1
        rng = np.random.default_rng([self._recipe.seed, 1, iteration])
        views = [self._view(numbers, rng) for _ in range(self._recipe.batch)]
        pairs = torch.stack([pair.contiguous() for pair in views[self._share]])
        images = pairs.permute(1, 0, 4, 2, 3).float().div_(255)
        blurred, sharp = (side.contiguous(memory_format=torch.channels_last) for side in images)
        return blurred, sharp

    def _numbers(self, iteration: int) -> range:
        """The crops that the pool holds at an iteration."""
        stop = self._first + (iteration - 1) * self._recipe.batch // USES
        return range(max(0, stop - self._capacity), stop)

    def _view(self, numbers: range, rng: np.random.Generator) -> Tensor:
        """A random crop of a random pair in the pool, oriented at random: (2, crop, crop, 3), not copied yet."""
        crop, augmentation = self._recipe.crop, self._recipe.augmentation
        slot = int(rng.integers(numbers.start, numbers.stop)) % self._capacity
        top, left = rng.integers(self._side - crop + 1, size=2).tolist()
        turns, mirror, swap = int(rng.integers(4)), bool(rng.integers(2)), rng.random() < 0.5
        order = rng.permutation(3).tolist()
        pair = self._pool[slot, :, top : top + crop, left : left + crop]
        if augmentation in ("all", "turns"):
            pair = torch.rot90(pair, turns, (1, 2))
        if augmentation != "none" and mirror:
            pair = pair.flip(2)
        return pair[..., order] if augmentation == "all" and swap else pair


def _prepared(crops: CropDataset, first: int, workers: int) -> Iterator[Tensor]:
    """Crops in order from number `first`."""
    loader: DataLoader[Tensor] = DataLoader(
        crops,
        batch_size=None,
        sampler=range(first, len(crops)),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
    )
    return iter(loader)
