"""Adversarial losses against plain numpy."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unblur.train.adversarial import DiscriminatorObjective, discriminator_loss, generator_loss, gradient_penalty
from unblur.train.recipe import AdversarialKind


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SHARP, RESTORED = draw((2, 1, 3, 3), 1), draw((2, 1, 3, 3), 2)  # logits of 9 patches


def probability(logits: Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.double().numpy()))


def test_the_discriminator_maximises_the_log_likelihood() -> None:
    """E[log D(S)] + E[log(1 - D(G(B)))] of MSR-GAN, negated."""
    expected = -np.log(probability(SHARP)).mean() - np.log(1 - probability(RESTORED)).mean()
    for kind in ("vanilla", "minimax"):
        np.testing.assert_allclose(discriminator_loss(kind, SHARP, RESTORED).item(), expected, rtol=1e-5)


def test_what_the_generator_minimises() -> None:
    expected = {
        "vanilla": -np.log(probability(RESTORED)).mean(),
        "minimax": np.log(1 - probability(RESTORED)).mean(),
        "wgan-gp": -RESTORED.double().numpy().mean(),
    }
    for kind in get_args(AdversarialKind):
        np.testing.assert_allclose(generator_loss(kind, RESTORED).item(), expected[kind], rtol=1e-5)


def test_the_critic_widens_the_gap() -> None:
    expected = RESTORED.double().numpy().mean() - SHARP.double().numpy().mean()
    np.testing.assert_allclose(discriminator_loss("wgan-gp", SHARP, RESTORED).item(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", get_args(AdversarialKind))
def test_logits_of_any_size_give_finite_losses(kind: AdversarialKind) -> None:
    logits = torch.tensor([[-1e4], [1e4]])
    assert torch.isfinite(discriminator_loss(kind, logits, logits))
    assert torch.isfinite(generator_loss(kind, logits))


class Quadratic(nn.Module):
    """Two patch logits, a . x and a . x^2: their mean has the gradient (a + 2 a x) / 2."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weights = nn.Parameter(draw(shape, 3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([(self.weights * images).sum((1, 2, 3)), (self.weights * images**2).sum((1, 2, 3))], 1)


def test_the_gradient_penalty_equals_numpy() -> None:
    sharp, restored = draw((2, 3, 4, 5), 4), draw((2, 3, 4, 5), 5)
    critic = Quadratic((3, 4, 5))
    torch.manual_seed(6)
    penalty = gradient_penalty(critic, sharp, restored)
    torch.manual_seed(6)
    along = torch.rand((2, 1, 1, 1)).double().numpy()
    between = (1 - along) * sharp.double().numpy() + along * restored.double().numpy()
    weights = critic.weights.detach().double().numpy()
    norms = np.sqrt((((weights + 2 * weights * between) / 2) ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(penalty.item(), ((norms - 1) ** 2).mean(), rtol=1e-5)


def test_the_penalty_trains_the_critic() -> None:
    sharp, restored = draw((2, 3, 4, 5), 4), draw((2, 3, 4, 5), 5)
    critic = Quadratic((3, 4, 5))
    objective = DiscriminatorObjective(critic, "wgan-gp", penalty_weight=10.0)
    torch.manual_seed(6)
    loss = objective(sharp, restored)
    torch.manual_seed(6)
    expected = critic(restored).mean() - critic(sharp).mean() + 10 * gradient_penalty(critic, sharp, restored)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert critic.weights.grad is not None
