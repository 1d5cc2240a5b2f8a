"""A machine that runs things with the noise of a real one, without running anything."""

import math

import numpy as np
from numpy.typing import NDArray


class NoisyMachine:
    """Times of one run after the other, whatever is run.

    All are multiplied by a load that wanders, correlated over `memory` runs with a standard deviation of `wander`;
    each by noise of its own, Student's t with 3 degrees of freedom to the slower side and `jitter` wide; and one in
    50 is hit by something that takes 1.5 to 4 times as long.
    """

    def __init__(self, seed: int, *, wander: float = 0.05, memory: int = 100, jitter: float = 0.03) -> None:
        self._random = np.random.default_rng(seed)
        self._wander = wander
        self._keep = math.exp(-1 / memory)
        self._jitter = jitter
        self._load = wander * float(self._random.normal())

    def run_ms(self, work_ms: float) -> float:
        """How long it takes to run what takes `work_ms` on an idle machine."""
        fresh = self._wander * math.sqrt(1 - self._keep**2)
        self._load = self._keep * self._load + fresh * float(self._random.normal())
        hit = float(self._random.uniform(1.5, 4)) if self._random.random() < 0.02 else 1.0
        own = self._jitter * abs(float(self._random.standard_t(3)))
        return work_ms * math.exp(self._load + own) * hit


def autocorrelated(samples: int, correlation: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A standard normal AR(1) process."""
    fresh = math.sqrt(1 - correlation**2) * random.normal(size=samples)
    values = np.empty(samples)
    values[0] = random.normal()
    for i in range(1, samples):
        values[i] = correlation * values[i - 1] + fresh[i]
    return values
