"""Losses against plain numpy."""

import numpy as np
import torch

from unblur.train.losses import SupervisedNetwork, fft_l1, restoration_loss
from unblur.train.networks import build_network


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((2, 3, 16, 24), generator=generator), torch.rand((2, 3, 16, 24), generator=generator)


def test_fft_l1_equals_numpy() -> None:
    restored, sharp = images()
    spectrum = np.fft.rfft2((restored - sharp).numpy().astype(np.float64))
    expected = (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2
    np.testing.assert_allclose(fft_l1(restored, sharp).item(), expected, rtol=1e-5)


def test_restoration_loss_is_the_mean_over_outputs() -> None:
    restored, sharp = images()
    one = float(np.abs((restored - sharp).numpy()).mean()) + 0.1 * fft_l1(restored, sharp).item()
    loss = restoration_loss([restored, sharp], sharp, fft_weight=0.1)
    np.testing.assert_allclose(loss.item(), one / 2, rtol=1e-5)


def test_every_step_is_supervised() -> None:
    blurred, sharp = images()
    network = build_network("lprn-n", width=8, steps=3, pooling="global")
    supervised = SupervisedNetwork(network, fft_weight=0.1)
    expected = restoration_loss(network.restorations(blurred), sharp, 0.1)
    torch.testing.assert_close(supervised(blurred, sharp), expected)
