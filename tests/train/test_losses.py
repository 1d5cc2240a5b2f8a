"""Content losses against plain numpy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.fakes.small_networks import NARROW_U
from unblur.train.losses import ContentLoss, SupervisedNetwork
from unblur.train.networks import build_network
from unblur.train.networks.msr_gan import gaussian_half
from unblur.train.recipe import RECIPES, LossTerm


def image(seed: int, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def outputs() -> list[Tensor]:
    """At 1/4, 1/2 and full size."""
    return [image(1, 4, 6), image(2, 8, 12), image(3)]


@pytest.fixture
def sharp() -> Tensor:
    return image(0)


@pytest.fixture
def targets(outputs: list[Tensor], sharp: Tensor) -> list[Tensor]:
    return build_network("srn", width=8).targets(sharp, outputs)


def area_mean(array: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    batch, channels, height, width = array.shape
    cells = array.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return cells.mean((3, 5))


def differences(outputs: list[Tensor], sharp: Tensor) -> list[NDArray[np.float64]]:
    """Output minus target at each scale, 1/4, 1/2, 1."""
    truth = sharp.double().numpy()
    return [output.double().numpy() - area_mean(truth, factor) for output, factor in zip(outputs, (4, 2, 1))]  # noqa: B905


def spectral(difference: NDArray[np.float64]) -> float:
    spectrum = np.fft.rfft2(difference)
    return float(np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2


def content(system: str) -> ContentLoss:
    return ContentLoss(RECIPES[system].content, RECIPES[system].over_outputs)


def test_targets_are_area_means(targets: list[Tensor], sharp: Tensor) -> None:
    for target, factor in zip(targets, (4, 2, 1), strict=True):
        np.testing.assert_allclose(target.numpy(), area_mean(sharp.double().numpy(), factor), atol=1e-6)


def test_targets_of_msr_gan_are_a_gaussian_pyramid(outputs: list[Tensor], sharp: Tensor) -> None:
    network = build_network("msr-gan", width=8, blocks=1)
    half = gaussian_half(sharp)
    torch.testing.assert_close(network.targets(sharp, outputs), [gaussian_half(half), half, sharp])


def test_srn_sums_mean_squares_over_scales(outputs: list[Tensor], targets: list[Tensor], sharp: Tensor) -> None:
    """sum_i kappa_i / N_i ||I_i - I_i,true||^2 of Tao et al. 2018 with kappa_i = 1."""
    expected = sum((d**2).sum() / d.size for d in differences(outputs, sharp))
    np.testing.assert_allclose(content("srn")(outputs, targets).item(), expected, rtol=1e-5)


def test_msr_gan_halves_the_mean_over_scales(outputs: list[Tensor], targets: list[Tensor], sharp: Tensor) -> None:
    """1 / (2 K) sum_k 1 / (c w h) ||L_k - S_k||^2 of MSR-GAN, a mean over the batch."""
    per_image = [
        sum((d[image] ** 2).sum() / d[image].size for d in differences(outputs, sharp)) / 6 for image in range(2)
    ]
    np.testing.assert_allclose(content("msr-gan")(outputs, targets).item(), np.mean(per_image), rtol=1e-5)


def test_msrm_dffm_sums_l1_and_its_spectrum_over_scales(
    outputs: list[Tensor], targets: list[Tensor], sharp: Tensor
) -> None:
    """Equations 4 to 6 of Wan et al. 2023, both L1 norms as means."""
    expected = sum(np.abs(d).mean() + 0.1 * spectral(d) for d in differences(outputs, sharp))
    np.testing.assert_allclose(content("msrm-dffm")(outputs, targets).item(), expected, rtol=1e-5)


@pytest.mark.parametrize("iteration", [1, 3])
def test_lprn_weighs_later_steps_more_and_takes_the_spectrum_every_third_time(
    iteration: int, sharp: Tensor
) -> None:
    steps = [image(1), image(2)]
    spectrum_weight = 0.0 if iteration % 3 else 3 * 0.1 / np.sqrt(sharp.shape[-1] * sharp.shape[-2])
    apart = [(step - sharp).double().numpy() for step in steps]
    first, second = (np.abs(d).mean() + spectrum_weight * spectral(d) for d in apart)
    loss = content("lprn")(steps, [sharp, sharp], iteration)
    np.testing.assert_allclose(loss.item(), (first + 2 * second) / 3, rtol=1e-5)


def test_pix2pix_weighs_l1_by_100(sharp: Tensor) -> None:
    """Equation 5 of "Blind Deblurring using GANs"."""
    expected = 100 * np.abs((image(3) - sharp).double().numpy()).mean()
    np.testing.assert_allclose(content("pix2pix")([image(3)], [sharp]).item(), expected, rtol=1e-5)


def test_l2_is_the_mean_square(sharp: Tensor) -> None:
    """Equation 6 of "Blind Deblurring using GANs"."""
    loss = ContentLoss((LossTerm("l2"),), "mean")
    expected = ((image(3) - sharp).double().numpy() ** 2).mean()
    np.testing.assert_allclose(loss([image(3)], [sharp]).item(), expected, rtol=1e-5)


def test_a_perceptual_term_needs_its_loss() -> None:
    with pytest.raises(ValueError, match="a perceptual term needs a perceptual loss"):
        ContentLoss((LossTerm("perceptual"),), "mean")


def test_every_step_is_supervised(sharp: Tensor) -> None:
    network = build_network("lprn-n", **NARROW_U, steps=3)
    loss, restored = SupervisedNetwork(network, content("lprn"))(image(1), sharp)
    outputs = network.restorations(image(1))
    torch.testing.assert_close(loss, content("lprn")(outputs, [sharp] * 3))
    torch.testing.assert_close(restored, outputs[-1])
