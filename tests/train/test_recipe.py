"""Recipes are data: they survive JSON, those of older checkpoints too."""

import json

import pytest
from safetensors import safe_open

from unblur.runtime.errors import SpecMismatch
from unblur.train.checkpoint import shipped_checkpoint
from unblur.train.networks import PRESETS
from unblur.train.recipe import RECIPES, Adversarial, LossTerm, Recipe, full_iterations, recipe_of


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("preset", ["lprn-n", "lprn-s"])
def test_the_recipe_of_shipped_weights_is_read(preset: str) -> None:
    with safe_open(shipped_checkpoint(preset), framework="pt") as file:
        Recipe.from_json(file.metadata()["unblur.recipe"])


def test_recipes_of_older_checkpoints_are_read() -> None:
    second = json.loads(Recipe(content=(LossTerm("l1"), LossTerm("fft_l1", 0.1))).to_json())
    del second["cooldown_share"], second["content"][0]["every"], second["content"][1]["every"]
    first = {name: value for name, value in second.items() if name not in ("schema", "content", "adversarial")}
    expected = Recipe(content=(LossTerm("l1"), LossTerm("fft_l1", 0.1)))
    assert Recipe.from_json(json.dumps({**second, "schema": 2})) == expected
    assert Recipe.from_json(json.dumps({**first, "fft_weight": 0.1})) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "recipe in the checkpoint cannot be read"),
        ("[1]", "recipe in the checkpoint cannot be read"),
        ('{"crop": 3}', "recipe in the checkpoint cannot be read: 'fft_weight'"),
        (
            '{"schema": 4}',
            "recipe in the checkpoint cannot be read: it has schema 4, this version of",
        ),
        (
            RECIPES["srn"].to_json().replace("power", "logarithmic"),
            "decay is 'logarithmic', expected one of",
        ),
        (RECIPES["srn"].to_json().replace("crop", "patch"), "cannot be read: it: crop is missing"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecMismatch, match=message):
        Recipe.from_json(text)


def test_choices_are_checked() -> None:
    with pytest.raises(ValueError, match="content is 'l3', expected one of l1, l2, fft_l1, spectrum_l1"):
        LossTerm("l3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="adversarial is 'hinge', expected one of vanilla, minimax, wgan-gp"):
        Adversarial("hinge", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="augmentation is 'noise', expected one of all, turns, mirror"):
        Recipe(augmentation="noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="over_outputs is 'last', expected one of mean, sum, rising"):
        Recipe(over_outputs="last")  # type: ignore[arg-type]


def test_every_preset_has_a_recipe_that_fits() -> None:
    for name, preset in PRESETS.items():
        recipe = recipe_of(name)
        assert recipe.adversarial is None or preset.discriminator is not None, name


@pytest.mark.parametrize(
    ("preset", "iterations"),
    [
        ("srn-edrb1", 262_875),  # 2000 epochs of 2103 pairs, 16 at a time
        ("msr-gan", 450_000),
        ("msrm-dffm", 1_577_250),  # 3000 epochs, 4 at a time
        ("pix2pix-all", 26_288),  # 50 epochs
        ("rir-large", 157_725),  # 300 epochs
        ("deblurgan-edges", 157_725),
    ],
)
def test_full_runs_are_as_long_as_the_papers(preset: str, iterations: int) -> None:
    assert full_iterations(preset, recipe_of(preset).batch) == iterations


@pytest.mark.parametrize(
    ("preset", "content"),
    [("pix2pix", "l1"), ("pix2pix-all", "perceptual"), ("rir", "perceptual"), ("rir-large", "l1")],
)
def test_rows_of_one_system_have_their_own_losses(preset: str, content: str) -> None:
    """Tables 5.1 and 5.2 of "Blind Deblurring using GANs"."""
    assert [term.kind for term in recipe_of(preset).content] == [content]


def test_losses_can_be_exchanged() -> None:
    recipe = RECIPES["deblurgan"].with_content("l1").with_adversarial("vanilla")
    assert recipe.content == (LossTerm("l1", 100.0),)
    assert recipe.adversarial == Adversarial("vanilla", 1.0, steps=1)
    assert not recipe.needs_vgg
    assert recipe.with_adversarial("wgan-gp").adversarial == RECIPES["deblurgan"].adversarial
    assert recipe.with_adversarial("none").adversarial is None
