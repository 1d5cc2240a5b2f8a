"""Spectral normalisation: weights are divided by their largest singular value as they are used.

Seed 004, section 4.1.4, after Miyato et al. 2018; `DeblurringNetwork.folded` divides once and for all.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations


def normalise_spectrally(network: nn.Module, *, but: nn.Module | None = None) -> None:
    """Put spectral normalisation, by one power iteration a training step, on every convolution except `but`."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module is not but:
            spectral_norm(module)


def fold_parametrizations(network: nn.Module) -> None:
    """Replace every parametrised weight by its value as it stands.

    torch's `remove_parametrizations` is not for copies: it takes the property `weight` off the class, which a deep
    copy shares with its original.
    """
    for module in network.modules():
        if is_parametrized(module, "weight"):
            weight = cast(Tensor, module.weight).detach()
            del module.parametrizations
            module.__class__ = type_before_parametrizations(module)
            module.weight = nn.Parameter(weight)
