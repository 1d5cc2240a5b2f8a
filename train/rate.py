"""The learning rate over a run, from 0 to 1 of its length: warm-up, then one of the seeds' ways down.

cosine  half a cosine (LPRN; seed 001, after Loshchilov and Hutter 2017)
power   the remaining share of the run to the power of 0.3 (seed 003)
step    the peak for a third of the run, the final rate after it (seed 000: 1.5e5 of 4.5e5 iterations)
linear  the peak for half the run, then straight down (Isola et al. 2017, Kupyn et al. 2018)
"""

import math
from collections.abc import Callable, Mapping

from unblur.train.recipe import Decay, Recipe

_WARMUP_FROM = 0.05  # of the peak
_DECAYS: Mapping[Decay, Callable[[float], float]] = {
    "cosine": lambda phase: (1 + math.cos(math.pi * phase)) / 2,
    "power": lambda phase: (1 - phase) ** 0.3,
    "step": lambda phase: float(phase < 1 / 3),
    "linear": lambda phase: min(1.0, 2 * (1 - phase)),
}


def learning_rate_at(share_done: float, recipe: Recipe) -> float:
    """The generator's learning rate when `share_done` of the run lies behind."""
    if share_done < recipe.warmup_share:
        return recipe.learning_rate * (_WARMUP_FROM + (1 - _WARMUP_FROM) * share_done / recipe.warmup_share)
    phase = (share_done - recipe.warmup_share) / (1 - recipe.warmup_share)
    above_final = _DECAYS[recipe.decay](phase) * (recipe.learning_rate - recipe.final_learning_rate)
    return recipe.final_learning_rate + above_final
