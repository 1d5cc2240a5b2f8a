"""Every system, small, overfits one blurred crop: by the one loop, with the losses of its recipe."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import photograph_pair
from torch import nn

from unblur.runtime.images import write_image
from unblur.runtime.metrics import psnr_db
from unblur.runtime.quality.pairs import find_pairs
from unblur.runtime.spec import OptionValue
from unblur.train.data import TrainingData
from unblur.train.loop import Length, train
from unblur.train.networks import build_network, find_preset
from unblur.train.recipe import BlurMix, Recipe, recipe_of
from unblur.train.run_folder import Report


@dataclass(frozen=True)
class Case:
    """Settings under which a system takes few seconds; the losses and betas stay those of its recipe.

    content_only: without the adversary. Near the truth a small discriminator, still untrained, pulls as hard as the
    content loss does.
    """

    preset: str
    iterations: int
    learning_rate: float
    crop: int = 64
    options: dict[str, OptionValue] = field(default_factory=dict)
    content_only: bool = False


CASES = [
    Case("lprn-n", 200, 5e-3, options={"width": "32,32", "blocks": "1,1,1", "steps": 2}),
    Case("srn", 160, 5e-3, crop=32, options={"width": 16, "blocks": 1, "kernel": 3}),
    Case("msr-gan", 200, 5e-3, 32, {"width": 24, "blocks": 2, "msrbs": 1, "scales": 2}, content_only=True),
    Case("msrm-dffm", 100, 2e-3, options={"width": 16, "blocks": 1}),
    Case("pix2pix", 100, 2e-3, options={"width": 16, "depth": 4}),
    Case("rir", 150, 3e-3, 32, {"width": 8, "levels": 2}, content_only=True),
    Case("deblurgan", 50, 2e-3, crop=32, options={"width": 8, "blocks": 1}),
]


@pytest.fixture(scope="module")
def first_pair() -> tuple[np.ndarray, np.ndarray]:
    """Blurred and sharp, 96 x 96 of a face."""
    return photograph_pair("astronaut.png", corner=(60, 160), size_hw=(96, 96))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.preset)
def test_a_crop_is_overfitted(case: Case, first_pair: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    blurred, sharp = (image[: case.crop, : case.crop] for image in first_pair)
    data = one_crop(blurred, sharp, tmp_path / "pairs")
    torch.manual_seed(0)
    network = build_network(case.preset, **case.options)
    recipe = quick(case)
    reports: list[Report] = []
    train(
        network, recipe, data, Length(iterations=case.iterations), tmp_path / "run",
        discriminator=small_discriminator(case.preset, recipe), workers=0, threads=1, on_report=reports.append,
    )  # fmt: skip
    gain_db = (reports[-1].psnr_db or 0.0) - psnr_db(blurred, sharp)
    assert gain_db >= 6


def one_crop(blurred: np.ndarray, sharp: np.ndarray, folder: Path) -> TrainingData:
    """A data set of one pair, trained on and validated on."""
    for side, image in (("blur", blurred), ("sharp", sharp)):
        (folder / side).mkdir(parents=True)
        write_image(folder / side / "0.png", np.ascontiguousarray(image))
    pairs = find_pairs(folder)
    return TrainingData(pairs, stills=(), windows=(), held_out=pairs, held_out_stills=(), names=("one crop",))


def quick(case: Case) -> Recipe:
    recipe = recipe_of(case.preset)
    if recipe.needs_vgg:
        recipe = recipe.with_content("l1")
    if case.content_only:
        recipe = recipe.with_adversarial("none")
    return replace(
        recipe, crop=case.crop, batch=1, augmentation="none", learning_rate=case.learning_rate, gradient_clip=0.5,
        decay="cosine", warmup_share=0.1, ema_decay=0.9, mix=BlurMix(real=1, shake=0, frames=0, lens=0),
    )  # fmt: skip


def small_discriminator(preset: str, recipe: Recipe) -> nn.Module | None:
    if recipe.adversarial is None:
        return None
    return find_preset(preset).discriminator(width=4)
