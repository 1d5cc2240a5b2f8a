"""The discriminator of an adversarial run, with its optimiser."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unblur.train.adversarial import JudgedImages, generator_loss
from unblur.train.checkpoint import flat_optimizer_state, restore_optimizer_state
from unblur.train.recipe import Adversarial, Recipe


class Opponent:
    """Learns to tell restored images from sharp ones, and tells the generator how well it passes."""

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
        judged = JudgedImages(discriminator, settings.kind, settings.penalty_weight)
        self._judged, self._optimizer = accelerator.prepare(judged, optimizer)

    def learn(self, sharp: Tensor, restored: Tensor, generator_rate: float) -> None:
        """Update the discriminator on one batch, as often as the recipe says; `restored` is detached."""
        for group in self._optimizer.param_groups:
            group["lr"] = generator_rate * self._settings.rate_ratio
        for _ in range(self._settings.steps):
            self._optimizer.zero_grad()
            self._accelerator.backward(self._judged(sharp, restored))
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
