"""How each system is trained: plain data, one recipe a system. It travels in the checkpoint's header."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from unblur.runtime.errors import SpecMismatch


@dataclass(frozen=True)
class BlurMix:
    """Shares of the kinds of sample; a kind without data drops out and the rest keep their proportions.

    real: photographed pairs. frames: averaged frames of clips. shake, lens: synthesised from stills.
    """

    real: float = 0.3
    shake: float = 0.55
    frames: float = 0.1
    lens: float = 0.05


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run beside the data and the length.

    crop: side of the square training crop in pixels. batch: crops per optimiser step, over all processes.
    learning_rate: the peak, after a linear warm-up over `warmup_share` of the run, then cosine down to
    `final_learning_rate`. gradient_clip: largest L2 norm of the gradient. fft_weight: see `losses.fft_l1`.
    ema_decay: of the averaged weights, which are what is validated and shipped.
    """

    crop: int = 160
    batch: int = 8
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_share: float = 0.02
    weight_decay: float = 0.0
    gradient_clip: float = 0.5
    fft_weight: float = 0.1
    ema_decay: float = 0.999
    mix: BlurMix = field(default_factory=BlurMix)
    seed: int = 0

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Raises SpecMismatch if the text was written by another version of this class."""
        try:
            raw = json.loads(text)
            return cls(**{**raw, "mix": BlurMix(**raw["mix"])})
        except (ValueError, TypeError, KeyError) as error:
            raise SpecMismatch(f"the recipe in the checkpoint cannot be read: {error}") from error


RECIPES: Mapping[str, Recipe] = {"lprn": Recipe()}
