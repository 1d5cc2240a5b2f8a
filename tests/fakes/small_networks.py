"""Real networks, small and fresh, but without the zeros that make a fresh one the identity."""

import torch

from unblur.runtime.spec import OptionValue
from unblur.train.networks import build_network
from unblur.train.networks.base import DeblurringNetwork

NARROW_U: dict[str, OptionValue] = {"width": "8,8", "blocks": "1,1,1"}
"""Options of an edge preset of LPRN: a U of two levels."""


def small_network(preset: str, **options: object) -> DeblurringNetwork:
    """Gates and last convolutions, zero in a fresh network, get values, so that every part of it matters."""
    torch.manual_seed(0)
    network = build_network(preset, **options)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def two_images(height: int = 48, width: int = 64) -> torch.Tensor:
    """Noise, (2, 3, height, width), the same each time."""
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(1))
