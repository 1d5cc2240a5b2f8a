"""The adversarial losses, from logits: discriminators give no probabilities.

A logit z stands for the probability sigmoid(z) that an image, or a patch of one, is sharp and not restored. The
logits of all patches are averaged ("Blind Deblurring using GANs", section 4.2.1). With softplus(z) = log(1 + e^z),
-log sigmoid(z) is softplus(-z) and -log(1 - sigmoid(z)) is softplus(z).

    kind      the discriminator minimises                   the generator minimises
    vanilla   -log D(S) - log(1 - D(G(B)))                  -log D(G(B))
    minimax   the same                                      log(1 - D(G(B)))
    wgan-gp   D(G(B)) - D(S) + gradient penalty             -D(G(B))

`minimax` is MSR-GAN's to the letter. Its gradient vanishes as soon as the discriminator is sure of itself, so the
recipes use `vanilla`, which has the same equilibrium (Goodfellow et al. 2014, section 3).
"""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.train.checkpoint import flat_optimizer_state, restore_optimizer_state
from unblur.train.recipe import Adversarial, AdversarialKind, Recipe


def discriminator_loss(kind: AdversarialKind, sharp_logits: Tensor, restored_logits: Tensor) -> Tensor:
    """What the discriminator minimises, without the gradient penalty."""
    if kind == "wgan-gp":
        return restored_logits.mean() - sharp_logits.mean()
    return F.softplus(-sharp_logits).mean() + F.softplus(restored_logits).mean()


def generator_loss(kind: AdversarialKind, restored_logits: Tensor) -> Tensor:
    """What the generator minimises, beside its content loss."""
    if kind == "wgan-gp":
        return -restored_logits.mean()
    if kind == "minimax":
        return -F.softplus(restored_logits).mean()
    return F.softplus(-restored_logits).mean()


def gradient_penalty(discriminator: nn.Module, sharp: Tensor, restored: Tensor) -> Tensor:
    """Mean over the batch of (|gradient of the critic| - 1)^2 (Gulrajani et al. 2017, section 4).

    The gradient is that of an image's mean logit, taken at a random point between the sharp image and the
    restored one; its norm is over all pixels and channels. Drawn from torch's global generator.
    """
    along = torch.rand((len(sharp), 1, 1, 1), device=sharp.device)
    between = torch.lerp(sharp, restored, along).requires_grad_()
    critic = discriminator(between).flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(critic.sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()


class DiscriminatorObjective(nn.Module):
    """A discriminator and its loss as one module, so that distributed wrappers see one forward per step."""

    def __init__(self, discriminator: nn.Module, kind: AdversarialKind, penalty_weight: float) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.kind: AdversarialKind = kind
        self.penalty_weight = penalty_weight

    def forward(self, sharp: Tensor, restored: Tensor) -> Tensor:
        """The loss of the discriminator; `restored` is detached from the generator."""
        loss = discriminator_loss(self.kind, self.discriminator(sharp), self.discriminator(restored))
        if self.kind == "wgan-gp":
            loss = loss + self.penalty_weight * gradient_penalty(self.discriminator, sharp, restored)
        return loss


class DiscriminatorTrainer:
    """Trains the discriminator, and gives the generator its adversarial loss."""

    def __init__(
        self, discriminator: nn.Module, settings: Adversarial, recipe: Recipe, accelerator: Accelerator
    ) -> None:
        optimizer = torch.optim.AdamW(
            discriminator.parameters(),
            recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self._discriminator = discriminator
        self._settings = settings
        self._accelerator = accelerator
        objective = DiscriminatorObjective(discriminator, settings.kind, settings.penalty_weight)
        self._objective, self._optimizer = accelerator.prepare(objective, optimizer)

    def learn(self, sharp: Tensor, restored: Tensor, generator_rate: float) -> None:
        """Update the discriminator on one batch, as often as the recipe says; `restored` is detached."""
        for group in self._optimizer.param_groups:
            group["lr"] = generator_rate * self._settings.rate_ratio
        for _ in range(self._settings.steps):
            self._optimizer.zero_grad()
            self._accelerator.backward(self._objective(sharp, restored))
            self._optimizer.step()

    def loss_of(self, restored: Tensor) -> Tensor:
        """The weighted adversarial term of the generator's loss; the discriminator gets no gradient from it."""
        self._discriminator.requires_grad_(False)
        logits = self._discriminator(restored)
        self._discriminator.requires_grad_(True)
        return self._settings.weight * generator_loss(self._settings.kind, logits)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The weights of the discriminator and the moments of its optimiser."""
        return self._discriminator.state_dict(), flat_optimizer_state(self._optimizer)

    def restore(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        self._discriminator.load_state_dict(dict(weights))
        restore_optimizer_state(self._optimizer, moments)
