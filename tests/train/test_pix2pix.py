"""Pix2Pix: the published size, each option by itself, and ranges."""

import pytest
import torch
from small_networks import small_network, two_images

from unblur.train.networks import build_network, count_parameters, network_from_spec
from unblur.train.networks.base import DeblurringNetwork

OPTIONS = ["self_attention", "channel_attention", "global_residual", "spectral_norm"]


def small(preset: str = "pix2pix", **options: bool) -> DeblurringNetwork:
    return small_network(preset, width=8, depth=4, **options)


def test_it_has_the_size_of_the_published_generator() -> None:
    assert count_parameters(build_network("pix2pix")) == pytest.approx(54.41e6, rel=1e-3)  # Isola et al., unet_256


def test_256_pixels_come_down_to_one_position_of_512_channels() -> None:
    network = build_network("pix2pix").to("meta")
    features = torch.empty((1, 3, 256, 256), device="meta")
    for block in network.encode:
        features = block(features)
    assert features.shape == (1, 512, 1, 1)


@pytest.mark.parametrize("option", [None, *OPTIONS])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 32)])
def test_every_option_restores_every_multiple(option: str | None, height: int, width: int) -> None:
    network, blurred = small(**({option: True} if option else {})), two_images(height, width)
    with torch.no_grad():
        (restored,) = network.restorations(blurred)
    assert restored.shape == blurred.shape
    assert network.spec.multiple_of == 16


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_result(option: str) -> None:
    plain, other, blurred = small(), small(**{option: True}), two_images()
    shared = {name: tensor for name, tensor in plain.state_dict().items() if name in other.state_dict()}
    other.load_state_dict(shared, strict=False)
    with torch.no_grad():
        assert not torch.allclose(plain(blurred), other(blurred))


def test_only_a_residual_starts_as_the_identity_and_only_without_it_the_range_is_bounded() -> None:
    blurred = two_images()
    torch.testing.assert_close(build_network("pix2pix-sa-gr", width=8, depth=4)(blurred), blurred)
    plain = small()
    torch.nn.init.normal_(plain.reconstruct.weight, std=10.0)
    with torch.no_grad():
        restored = plain(blurred)
    assert float(restored.min()) == pytest.approx(0, abs=1e-3)
    assert float(restored.max()) == pytest.approx(1, abs=1e-3)


def test_a_single_crop_of_the_published_size_can_be_trained_on() -> None:
    network = build_network("pix2pix-all", width=2).train()  # 1 x 1 at the bottleneck: nothing to normalise there
    network(torch.rand(1, 3, 256, 256)).mean().backward()


def test_receptive_field_is_exact_without_attention() -> None:
    network = build_network("pix2pix", width=4, depth=3).eval()
    radius = network.spec.receptive_field
    frame = torch.rand(1, 3, 8, 8 * (2 * radius // 8 + 4), requires_grad=True)
    centre = frame.shape[-1] // 16 * 8
    reached = []
    for column in range(centre, centre + 8):
        frame.grad = None
        network(frame)[..., column].sum().backward()
        assert frame.grad is not None
        seen = frame.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        reached += [column - int(seen.min()), int(seen.max()) - column]
    assert max(reached) == radius
    assert build_network("pix2pix-sa", width=4).spec.receptive_field == 0


def test_spec_rebuilds_the_network_with_its_statistics() -> None:
    network = small("pix2pix-all")
    network.train()(two_images())
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt.eval()(two_images()), network.eval()(two_images()))


def test_bad_option_values_are_named() -> None:
    with pytest.raises(ValueError, match="width and attention_grid are at least 1 and depth 2, got 8, 16 and 1"):
        build_network("pix2pix", width=8, depth=1)
