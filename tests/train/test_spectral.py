"""Spectral normalisation does what it says and leaves without a trace."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from unblur.train.networks import build_network
from unblur.train.networks.blocks import normalise_spectrally


def norm(weight: torch.Tensor) -> float:
    """The largest singular value of a convolution's weight as a matrix of (outputs, everything else)."""
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2))


def test_weights_are_used_with_norm_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    normalise_spectrally(net)
    for _ in range(50):
        net(torch.rand(1, 3, 8, 8))
    assert norm(net[0].weight) == pytest.approx(1, abs=1e-3)
    assert norm(net[1].weight.transpose(0, 1)) == pytest.approx(1, abs=1e-3)  # (inputs, outputs, ...)


@pytest.mark.parametrize("preset", ["pix2pix-sa-sn", "pix2pix-all", "rir"])
def test_the_whole_generator_is_normalised(preset: str) -> None:
    convolutions = [
        module
        for module in build_network(preset, width=4).modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert all(is_parametrized(module, "weight") for module in convolutions)


@pytest.mark.parametrize(
    ("preset", "options"), [("pix2pix-all", {"width": 8, "depth": 4}), ("rir", {"width": 8, "levels": 3})]
)
def test_folded_network_computes_the_same_without_parametrizations(preset: str, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = build_network(preset, **options)
    blurred = torch.rand(2, 3, 32, 48)
    network(blurred)  # a training step moves the norms' statistics and the singular vectors
    folded = network.folded()
    network.eval()
    with torch.no_grad():
        expected = network(blurred)
        torch.testing.assert_close(folded(blurred), expected)
        assert (expected - blurred).abs().max() > 0.01
    assert not any("parametrizations" in name for name in folded.state_dict())
    assert folded.spec == network.spec


def test_folding_leaves_the_original_trainable() -> None:
    torch.manual_seed(0)
    network = build_network("rir", width=8, levels=1)
    weight = network.head[0].weight.detach().clone()
    network.folded()
    assert network.training
    network(torch.rand(2, 3, 8, 8))
    after = network.head[0].weight
    assert after.requires_grad
    assert not torch.equal(after, weight)  # one more power iteration
