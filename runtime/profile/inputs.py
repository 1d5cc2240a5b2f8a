"""What a profile feeds a network: random batches, taken in turn, more than the caches hold.

One batch over and over would be read from the cache, where no frame of a camera ever is; zeros would let hardware
and kernels skip work.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Padding
from unblur.runtime.spec import ModelSpec

FEWEST_BUFFERS = 4
SMALLEST_CACHE = 32 << 20
"""Bytes that the last-level cache is taken to have at least: not every device tells."""

_MOST_PIXELS = 100_000_000
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CACHE_SIZE = re.compile(r"(\d+)K")


@dataclass(frozen=True)
class RandomBatches:
    """Different batches of one shape, uniform over the value range of the network, the same for the same seed."""

    batches: Sequence[Batch]
    seed: int

    @property
    def size_hw(self) -> tuple[int, int]:
        height, width = self.batches[0].shape[2:]
        return height, width

    @property
    def nbytes(self) -> int:
        return sum(batch.nbytes for batch in self.batches)


def random_batches(spec: ModelSpec, size_hw: tuple[int, int], batch: int, *, seed: int = 0) -> RandomBatches:
    """Batches of `batch` pictures of `size_hw`, padded as the runtime pads frames.

    Together they are twice as large as the last-level cache, and at least 4. Raises BadInput if one has more than
    100 million pixels, or if they do not fit the memory.
    """
    height, width = Padding.to_multiple(size_hw, spec.multiple_of).padded_hw
    if batch * height * width > _MOST_PIXELS:
        raise BadInput(
            f"a batch of {batch} pictures of {height}x{width} is more than {_MOST_PIXELS:,} pixels; "
            "choose a smaller size or batch"
        )
    shape = (batch, 3, height, width)
    count = max(FEWEST_BUFFERS, math.ceil(2 * last_level_cache() / (4 * math.prod(shape))))
    try:
        batches = np.random.default_rng(seed).random((count, *shape), np.float32)
    except MemoryError as error:
        raise BadInput(
            f"{count} batches of {batch} pictures of {height}x{width} do not fit the memory; "
            "choose a smaller size or batch"
        ) from error
    low, high = spec.value_range
    batches *= high - low
    batches += low
    return RandomBatches(list(batches), seed)


def last_level_cache(caches: Path = _CACHES) -> int:
    """Bytes of the largest cache of the first core that Linux tells, at least `SMALLEST_CACHE`."""
    sizes = [_CACHE_SIZE.match(file.read_text()) for file in caches.glob("index*/size")]
    return max([SMALLEST_CACHE, *(int(size[1]) << 10 for size in sizes if size)])
