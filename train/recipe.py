"""How each system is trained: plain data, one recipe a system. It travels in the checkpoint's header."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.strict_json import check_schema, from_json, parse_json, to_json
from unblur.train.networks import find_preset

SCHEMA = 3  # 2: no cool-down, every term at every step. 1, unnamed: L1 and its FFT, no discriminator

Augmentation = Literal["all", "turns", "mirror", "none"]
ContentKind = Literal["l1", "l2", "fft_l1", "spectrum_l1", "perceptual"]
OverOutputs = Literal["mean", "sum", "rising"]
AdversarialKind = Literal["vanilla", "minimax", "wgan-gp"]
_CRITIC_STEPS = 5  # of wgan-gp, per step of the generator (Gulrajani et al. 2017)
Decay = Literal["cosine", "power", "step", "linear"]


def _check_choice(name: str, found: str, known: object) -> None:
    if found not in get_args(known):
        raise ValueError(f"{name} is '{found}', expected one of {', '.join(get_args(known))}")


@dataclass(frozen=True)
class BlurMix:
    """Shares of the kinds of sample; a kind without data drops out and the rest keep their proportions.

    real: photographed pairs. frames: averaged frames of fast clips. shake: stills under a moving camera, with
    moving objects. lens: stills out of focus.
    """

    real: float = 0.2
    shake: float = 0.68
    frames: float = 0.08
    lens: float = 0.04


@dataclass(frozen=True)
class LossTerm:
    """One weighted term of the content loss; see `unblur.train.losses`.

    every: the term is computed at every so many iterations, with so many times its weight.
    """

    kind: ContentKind
    weight: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        _check_choice("content", self.kind, ContentKind)


@dataclass(frozen=True)
class Adversarial:
    """How the discriminator is trained and what it says counts; see `unblur.train.adversarial`.

    weight: of the adversarial term in the generator's loss. steps: updates of the discriminator per update of the
    generator, all on the same batch. rate_ratio: its learning rate over the generator's, at every moment.
    penalty_weight: of the gradient penalty of wgan-gp.
    """

    kind: AdversarialKind
    weight: float
    steps: int = 1
    rate_ratio: float = 1.0
    penalty_weight: float = 10.0

    def __post_init__(self) -> None:
        _check_choice("adversarial", self.kind, AdversarialKind)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run beside the data and the length.

    crop: side of the square training crop in pixels. batch: crops per optimiser step, over all processes.
    augmentation: crops are shifted and mirrored, with "turns" also turned by quarters, with "all" also with their
    colour channels swapped, at random; with "none" they are as they were prepared.
    content, over_outputs: terms of the content loss, and how they are taken over a network's outputs: their mean,
    their sum, or their mean with weights 1, 2, 3 ... for a recursion whose last steps count most.
    learning_rate: the peak, after a linear warm-up over `warmup_share` of the run; then `decay` brings it to
    `final_learning_rate`, and over the last `cooldown_share` it goes linearly to zero, see `unblur.train.loop`.
    betas, weight_decay: of AdamW, which without decay is Adam.
    gradient_clip: largest L2 norm of the gradient, None for no limit.
    ema_decay: of the averaged weights, which are what is validated and shipped.
    """

    crop: int = 160
    batch: int = 8
    augmentation: Augmentation = "turns"
    content: tuple[LossTerm, ...] = (LossTerm("l1"), LossTerm("fft_l1", 0.1))
    over_outputs: OverOutputs = "mean"
    adversarial: Adversarial | None = None
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_share: float = 0.02
    cooldown_share: float = 0.0
    decay: Decay = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    gradient_clip: float | None = 0.5
    ema_decay: float = 0.999
    mix: BlurMix = field(default_factory=BlurMix)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("augmentation", self.augmentation, Augmentation)
        _check_choice("decay", self.decay, Decay)
        _check_choice("over_outputs", self.over_outputs, OverOutputs)

    @property
    def needs_vgg(self) -> bool:
        """Whether a term compares features of VGG19."""
        return any(term.kind == "perceptual" for term in self.content)

    def with_content(self, kind: ContentKind) -> "Recipe":
        """The same with one term of content loss, weighted as the first was."""
        return dataclasses.replace(self, content=(LossTerm(kind, self.content[0].weight),))

    def with_adversarial(self, kind: AdversarialKind | Literal["none"]) -> "Recipe":
        """The same with another adversarial loss, weighted as the one before, or with none."""
        if kind == "none":
            return dataclasses.replace(self, adversarial=None)
        weight = self.adversarial.weight if self.adversarial else 1.0
        steps = _CRITIC_STEPS if kind == "wgan-gp" else 1
        return dataclasses.replace(self, adversarial=Adversarial(kind, weight, steps))

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Raises SpecMismatch that names the first field that this version does not know or read."""
        try:
            raw = parse_json(text)
            raw = _upgraded(raw)
            check_schema(raw, "it", SCHEMA)
            return from_json(cls, {name: value for name, value in raw.items() if name != "schema"}, "it")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecMismatch(f"the recipe in the checkpoint cannot be read: {error}") from error


def _upgraded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of schema 1 or 2 as one of this schema; others as they are."""
    if raw.get("schema", 1) not in (1, 2):
        return dict(raw)
    kept = {name: value for name, value in raw.items() if name != "fft_weight"}
    if "schema" not in raw:
        kept["content"] = to_json([LossTerm("l1"), LossTerm("fft_l1", raw["fft_weight"])])
    kept["content"] = [{"every": 1, **term} for term in kept["content"]]
    return {**cast("dict[str, Any]", to_json(Recipe())), **kept, "schema": SCHEMA}


# Crops, batches, losses, learning rates and their decay are the papers'. What a paper leaves open is stated beside
# it. The average of the weights is ours everywhere: the papers ship the last ones.

# Ours: the paper's training is not described. The rate stays up, at 10 % of its peak before the cool-down, and only
# after that a run can be compared.
_LPRN = Recipe(
    augmentation="all",
    over_outputs="rising",
    content=(LossTerm("l1"), LossTerm("spectrum_l1", 0.1, every=3)),
    final_learning_rate=1e-4,
    cooldown_share=0.1,
    betas=(0.9, 0.99),
    weight_decay=1e-4,
    ema_decay=0.9995,
)

# kappa is 1 at every scale (Tao et al. 2018), so the sum over scales of kappa / N * L2 is a sum of mean squares.
# They clip the ConvLSTM's gradient at a norm of 3; here it is that of all weights.
_SRN = Recipe(
    crop=256,
    batch=16,
    content=(LossTerm("l2"),),
    over_outputs="sum",
    learning_rate=1e-4,
    final_learning_rate=1e-6,
    warmup_share=0.0,
    decay="power",
    gradient_clip=3.0,
)

# 1 / (2 K) of a sum over K scales is half their mean. The weight 1e-4 is the text's, and enough: for a restored
# image of 26 dB the adversarial gradient of an untrained discriminator has 0.4 times the norm of the content's.
# DeepDeblur's code weighs it 4 times less, 1e-4 / log 2 beside the whole sum.
_MSR_GAN = Recipe(
    crop=256,
    batch=4,
    content=(LossTerm("l2", 0.5),),
    adversarial=Adversarial("vanilla", weight=1e-4),
    learning_rate=5e-5,
    final_learning_rate=5e-6,
    warmup_share=0.0,
    decay="step",
    gradient_clip=None,
)

_MSRM_DFFM = Recipe(
    crop=256,
    batch=4,
    augmentation="mirror",
    over_outputs="sum",
    learning_rate=1e-4,
    final_learning_rate=1e-6,
    warmup_share=0.0,
    gradient_clip=None,
)

# "Blind Deblurring using GANs" names the losses of some rows of its tables. Their weights and Adam's settings are
# those of Isola et al. 2017 for Pix2Pix, of Kupyn et al. 2018 for DeblurGAN and for the perceptual loss; RiR is
# trained as Pix2Pix. The batch is ours.
_PIX2PIX = Recipe(
    crop=256,
    batch=4,
    content=(LossTerm("l1", 100.0),),
    adversarial=Adversarial("vanilla", weight=1.0),
    learning_rate=2e-4,
    final_learning_rate=0.0,
    warmup_share=0.0,
    decay="linear",
    betas=(0.5, 0.999),
    gradient_clip=None,
)
_PIX2PIX_PERCEPTUAL = dataclasses.replace(_PIX2PIX, content=(LossTerm("perceptual", 100.0),))
_DEBLURGAN = dataclasses.replace(
    _PIX2PIX_PERCEPTUAL,
    adversarial=Adversarial("wgan-gp", weight=1.0, steps=_CRITIC_STEPS),
    learning_rate=1e-4,
)

RECIPES: Mapping[str, Recipe] = {
    "lprn": _LPRN,
    "srn": _SRN,
    "msr-gan": _MSR_GAN,
    "msrm-dffm": _MSRM_DFFM,
    "pix2pix": _PIX2PIX,
    "pix2pix-all": _PIX2PIX_PERCEPTUAL,
    "rir": _PIX2PIX_PERCEPTUAL,
    "rir-large": _PIX2PIX,
    "deblurgan": _DEBLURGAN,
}
"""By system, or by preset where the paper trains one differently; see `recipe_of`."""


_GOPRO_PAIRS = 2103  # of its training set, on which all of them trained
PAPER_CROPS: Mapping[str, int] = {
    "srn": 2000 * _GOPRO_PAIRS,
    "msr-gan": 450_000 * _MSR_GAN.batch,
    "msrm-dffm": 3000 * _GOPRO_PAIRS,
    "pix2pix": 50 * _GOPRO_PAIRS,
    "rir": 300 * _GOPRO_PAIRS,
    "deblurgan": 300 * _GOPRO_PAIRS,
}
"""By system: the crops that the paper's run takes, one of each pair in an epoch. LPRN's text does not say."""


def full_iterations(preset: str, batch: int) -> int:
    """How many iterations of that batch the paper's run takes; BadInput if no paper says."""
    system = find_preset(preset).system
    if system not in PAPER_CROPS:
        raise BadInput(f"no text says how long {preset} is trained; leave --full out and give --minutes")
    return -(-PAPER_CROPS[system] // batch)


def recipe_of(preset: str) -> Recipe:
    """The recipe of a preset, the default one for a system of another package; BadInput for an unknown preset."""
    return RECIPES.get(preset) or RECIPES.get(find_preset(preset).system, Recipe())
