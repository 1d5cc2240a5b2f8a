"""The losses of the seeds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.train.networks.base import DeblurringNetwork


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D spectra, real and imaginary parts apart (seed 001, MIMO-UNet).

    The transform is not normalised, as in the texts: the 0.1 they weigh it with belongs to that scale.
    """
    difference = torch.fft.rfft2(restored - sharp)
    return torch.view_as_real(difference).abs().mean()


def restoration_loss(outputs: list[Tensor], sharp: Tensor, fft_weight: float) -> Tensor:
    """Mean over the outputs of L1 + fft_weight * fft_l1, each against the sharp image (systems.md, 1)."""
    per_output = [F.l1_loss(output, sharp) + fft_weight * fft_l1(output, sharp) for output in outputs]
    return torch.stack(per_output).mean()


class SupervisedNetwork(nn.Module):
    """A network and its loss as one module, so that distributed wrappers see one forward per step."""

    def __init__(self, network: DeblurringNetwork, fft_weight: float) -> None:
        super().__init__()
        self.network = network
        self.fft_weight = fft_weight

    def forward(self, blurred: Tensor, sharp: Tensor) -> Tensor:
        outputs = [output.float() for output in self.network.restorations(blurred)]
        return restoration_loss(outputs, sharp, self.fft_weight)
