"""The content losses of the seeds: how far restored images are from the sharp one.

Multi-scale networks give outputs of several sizes, each with a target of its size: see `DeblurringNetwork.targets`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.train.networks.base import DeblurringNetwork
from unblur.train.recipe import LossTerm, OverOutputs

Loss = Callable[[Tensor, Tensor], Tensor]


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D spectra, real and imaginary parts apart (seed 001, MIMO-UNet).

    The transform is not normalised, as in the texts: the 0.1 they weigh it with belongs to that scale.
    """
    difference = torch.fft.rfft2(restored - sharp)
    return torch.view_as_real(difference).abs().mean()


def over_outputs(loss: Loss, outputs: Sequence[Tensor], targets: Sequence[Tensor], how: OverOutputs) -> Tensor:
    """Sum or mean over the outputs of `loss`, each against its target."""
    per_output = torch.stack([loss(output, target) for output, target in zip(outputs, targets, strict=True)])
    return per_output.sum() if how == "sum" else per_output.mean()


class ContentLoss(nn.Module):
    """The weighted terms of a recipe, over all outputs of a network.

    perceptual: the loss behind the term of that name, see `unblur.train.perceptual`.
    Raises ValueError if a term needs it and it is None.
    """

    def __init__(self, terms: Sequence[LossTerm], how: OverOutputs, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.how: OverOutputs = how
        known: Mapping[str, Loss | None] = {
            "l1": F.l1_loss,
            "l2": F.mse_loss,
            "fft_l1": fft_l1,
            "perceptual": perceptual,
        }
        self._terms: list[tuple[float, Loss]] = []
        for term in terms:
            loss = known[term.kind]
            if loss is None:
                raise ValueError("a perceptual term needs a perceptual loss")
            self._terms.append((term.weight, loss))

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        return torch.stack(
            [weight * over_outputs(loss, outputs, targets, self.how) for weight, loss in self._terms]
        ).sum()


class SupervisedNetwork(nn.Module):
    """A network and its loss as one module, so that distributed wrappers see one forward per step."""

    def __init__(self, network: DeblurringNetwork, content: ContentLoss) -> None:
        super().__init__()
        self.network = network
        self.content = content

    def forward(self, blurred: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the full-scale restored image for a discriminator to judge."""
        outputs = [output.float() for output in self.network.restorations(blurred)]
        return self.content(outputs, self.network.targets(sharp, outputs)), outputs[-1]
