"""RiR: sizes, blocks, and what the large variant adds."""

import pytest
import torch
from small_networks import small_network, two_images
from torch.nn import functional as F

from unblur.train.networks import build_network, count_parameters, network_from_spec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.rir import AttentiveResidualBlock, DecodeBlock, EncodeBlock


def small(**options: bool | int) -> DeblurringNetwork:
    return small_network("rir", **{"width": 8, "levels": 3, **options})


@pytest.mark.parametrize("option", ["self_attention", "global_residual", "spectral_norm"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40)])
def test_with_and_without_each_option_every_multiple_is_restored(option: str, height: int, width: int) -> None:
    network, blurred = small(**{option: False}), two_images(height, width)
    with torch.no_grad():
        (restored,) = network.restorations(blurred)
        assert restored.shape == blurred.shape
        assert not torch.allclose(restored, small()(blurred), atol=1e-3)


def test_sizes_of_the_text_are_multiples() -> None:
    rir, large = (build_network(preset, width=8).spec.multiple_of for preset in ("rir", "rir-large"))
    assert (720 % rir, 1280 % rir) == (0, 0)
    assert (768 % large, 1280 % large) == (0, 0)
    assert 720 % large != 0
    assert large == 2 * rir


def test_a_block_is_a_residual_of_residuals() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 12, 16)
    for block, resized in (
        (EncodeBlock(8, 16).eval(), F.avg_pool2d(features, 2)),
        (DecodeBlock(8, 16).eval(), F.interpolate(features, scale_factor=2.0, mode="bilinear")),
    ):
        first, second, conv, norm, _ = block.body
        changed = F.relu(norm(conv(second(first(features)))))
        torch.testing.assert_close(block(features), block.shortcut(resized) + changed)


def test_residual_block_has_two_series_of_convolution_and_attention() -> None:
    torch.manual_seed(0)
    block, features = AttentiveResidualBlock(8), torch.randn(2, 8, 6, 5)
    conv1, gate1, _, conv2, gate2 = block.body
    expected = features + gate2(conv2(F.relu(gate1(conv1(features)))))
    torch.testing.assert_close(block(features), expected)


def test_large_is_larger_and_an_untrained_network_returns_its_input() -> None:
    assert count_parameters(build_network("rir-large", width=8)) > count_parameters(build_network("rir", width=8))
    blurred = two_images()
    torch.testing.assert_close(build_network("rir", width=8, spectral_norm=False)(blurred), blurred)


def test_spec_rebuilds_the_network() -> None:
    network = small(self_attention=False)
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt.eval()(two_images()), network(two_images()))


def test_bad_option_values_are_named() -> None:
    with pytest.raises(ValueError, match="width, levels and attention_grid are at least 1, got 8, 0 and 16"):
        build_network("rir", width=8, levels=0)
