"""PatchGAN: its patch, its logits, and what spectral normalisation bounds."""

import pytest
import torch

from unblur.train.networks import PRESETS
from unblur.train.networks.discriminators import PatchDiscriminator


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_every_patch_has_a_logit(height: int, width: int) -> None:
    torch.manual_seed(0)
    logits = PatchDiscriminator(8)(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 1, height // 8 - 2, width // 8 - 2)
    assert float(logits.detach().min()) < 0  # no probability


def test_a_patch_is_70_pixels_wide() -> None:
    torch.manual_seed(0)
    layers = [layer for layer in PatchDiscriminator(4).layers if not isinstance(layer, torch.nn.InstanceNorm2d)]
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = torch.nn.Sequential(*layers)(images)
    logits[..., 7, 7].sum().backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == 70


@pytest.mark.parametrize(("preset", "normalised"), [("pix2pix", False), ("pix2pix-sa-sn", True), ("rir", True)])
def test_a_preset_normalises_both_networks_or_neither(preset: str, normalised: bool) -> None:
    make = PRESETS[preset].discriminator
    assert make is not None
    assert any("parametrizations" in name for name in make().state_dict()) is normalised
