"""The learning rate of each recipe, against the formulas of the papers."""

import math

import pytest

from unblur.train.loop import learning_rate_at
from unblur.train.recipe import RECIPES, Recipe


def test_it_warms_up_and_ends_low() -> None:
    recipe = Recipe(learning_rate=1e-3, final_learning_rate=1e-6, warmup_share=0.1)
    rates = [learning_rate_at(share / 100, recipe) for share in range(101)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 10
    assert rates[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("system", "share_done", "expected"),
    [
        ("srn", 0.0, 1e-4),
        ("srn", 0.5, 1e-6 + (1e-4 - 1e-6) * 0.5**0.3),
        ("srn", 1.0, 1e-6),
        ("msr-gan", 1.4e5 / 4.5e5, 5e-5),
        ("msr-gan", 1.6e5 / 4.5e5, 5e-6),
        ("msrm-dffm", 0.0, 1e-4),
        ("msrm-dffm", 0.25, 1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi / 4)) / 2),
        ("msrm-dffm", 1.0, 1e-6),
        ("pix2pix", 0.5, 2e-4),
        ("deblurgan", 0.75, 0.5e-4),
        ("deblurgan", 1.0, 0.0),
    ],
)
def test_it_follows_the_text(system: str, share_done: float, expected: float) -> None:
    assert learning_rate_at(share_done, RECIPES[system]) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_cool_down_brings_the_final_rate_to_zero() -> None:
    recipe = RECIPES["lprn"]
    before = 1 - recipe.cooldown_share
    assert learning_rate_at(before, recipe) == pytest.approx(0.1 * recipe.learning_rate)
    assert learning_rate_at((1 + before) / 2, recipe) == pytest.approx(0.05 * recipe.learning_rate)
    assert learning_rate_at(1.0, recipe) == 0
