"""MSR-GAN: the generator and its pyramid by hand, and the discriminator's table."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unblur.train.adversarial import generator_loss
from unblur.train.networks import PRESETS, build_network, count_parameters, network_from_spec
from unblur.train.networks.msr_gan import MSRGANDiscriminator, MultiScaleResidualBlock, gaussian_half
from unblur.train.recipe import recipe_of


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    return build_network("msr-gan", **{"width": 8, "blocks": 1, "msrbs": 1, **options}).eval()


def image(height: int, width: int) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))


def test_a_scale_has_the_blocks_of_the_text() -> None:
    """17 residual blocks of two 3 x 3, two MSRBs, the bottleneck, head and tail; the coarsest sees one image."""
    with torch.device("meta"):
        network = build_network("msr-gan")
    blocks = 17 * 2 * (9 * 64**2 + 64)
    msrbs = 2 * ((9 + 25) * 64**2 + (9 + 25) * 128**2 + 256 * 64 + 2 * 64 + 2 * 128 + 64)
    ends = [9 * images * 64 + 64 + 2 * 64 * 64 + 64 + 9 * 64 * 3 + 3 for images in (3, 6, 6)]
    assert [count_parameters(scale) for scale in network.networks] == [blocks + msrbs + end for end in ends]


@pytest.mark.parametrize("multiples", [(1, 1), (1, 4), (6, 5)])
def test_every_multiple_is_restored_at_every_scale(multiples: tuple[int, int]) -> None:
    network, blurred = small(), image(4 * multiples[0], 4 * multiples[1])
    with torch.no_grad():
        restored = network.restorations(blurred)
        torch.testing.assert_close(network(blurred), restored[-1])
    sizes = [(multiples[0] * factor, multiples[1] * factor) for factor in (1, 2, 4)]
    assert [tuple(output.shape[2:]) for output in restored] == sizes


def test_each_scale_sees_its_image_and_the_coarser_result() -> None:
    network, blurred = small(scales=2), image(8, 12)
    with torch.no_grad():
        coarse = network.networks[0](gaussian_half(blurred))
        up = F.interpolate(coarse, size=(8, 12), mode="bilinear", align_corners=False)
        fine = network.networks[1](torch.cat([blurred, up], 1))
        torch.testing.assert_close(network.restorations(blurred), [coarse, fine])


def test_the_outputs_of_all_blocks_are_fused_before_the_last_convolution() -> None:
    network, blurred = small(scales=1, msrbs=3), image(8, 12)
    scale = network.networks[0]
    with torch.no_grad():
        outputs = [scale.blocks(scale.head(blurred))]
        for msrb in scale.msrbs:
            outputs.append(msrb(outputs[-1]))
        fused = F.conv2d(torch.cat(outputs[1:], 1), scale.bottleneck.weight, scale.bottleneck.bias)
        torch.testing.assert_close(network(blurred), scale.reconstruct(fused))
    assert scale.bottleneck.weight.shape == (8, 24, 1, 1)


def test_the_pyramid_is_the_binomial_filter() -> None:
    pixels = image(12, 8)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(gaussian_half(pixels), F.conv2d(padded, kernel, stride=2, groups=3))


def test_halving_does_not_shift_the_image() -> None:
    ramp = torch.arange(32.0).expand(1, 1, 8, 32)
    torch.testing.assert_close(gaussian_half(ramp)[..., 2:-2], F.avg_pool2d(ramp, 2)[..., 2:-2])


def test_a_block_is_that_of_the_equations() -> None:
    torch.manual_seed(0)
    block, features = MultiScaleResidualBlock(4), torch.randn(2, 4, 9, 7)

    def conv(layer: Any, maps: torch.Tensor) -> torch.Tensor:
        return F.conv2d(maps, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    with torch.no_grad():
        s1, p1 = F.relu(conv(block.small_first[0], features)), F.relu(conv(block.large_first[0], features))
        both = torch.cat([s1, p1], 1)
        s2, p2 = F.relu(conv(block.small_second[0], both)), F.relu(conv(block.large_second[0], both))
        expected = features + conv(block.fuse, torch.cat([s2, p2], 1))
        torch.testing.assert_close(block(features), expected)
    sides = [layer.weight.shape[-1] for layer in (block.small_first[0], block.large_first[0], block.fuse)]
    assert sides == [3, 5, 1]


def test_every_weight_is_trained() -> None:
    network = small()
    sum(output.square().mean() for output in network.restorations(image(16, 16))).backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())


def test_receptive_field_is_not_understated() -> None:
    network = small(width=2)
    radius = network.spec.receptive_field
    for weight in network.parameters():  # positive, so that every ReLU is open
        torch.nn.init.constant_(weight, 1 / weight[0].numel() if weight.ndim > 1 else 0)
    frame = image(4, 8 * (radius // 4 + 1)).requires_grad_()
    centre = frame.shape[-1] // 2
    network(frame)[..., centre : centre + 4].sum().backward()
    seen = frame.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert centre - radius <= int(seen.min())
    assert int(seen.max()) < centre + 4 + radius
    assert int(seen.max() - seen.min()) > 1.8 * radius, "a bound this loose would waste the halo of every tile"


def test_spec_rebuilds_the_network() -> None:
    network = small(kernel=5, scales=2)
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt(image(8, 8)), network(image(8, 8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 2}, "kernel is odd and at least 3, got 2"),
        ({"msrbs": 0}, "width, scales and msrbs are at least 1, blocks at least 0, got 8, 3, 0, 1"),
    ],
)
def test_bad_option_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_the_discriminator_has_the_layers_of_the_table() -> None:
    discriminator = PRESETS["msr-gan"].discriminator
    assert discriminator is not None
    with torch.device("meta"):
        layers = [layer for layer in discriminator().modules() if isinstance(layer, torch.nn.Conv2d)]
    shapes = [(*layer.weight.shape[:3], layer.stride[0]) for layer in layers]
    assert shapes == [
        (32, 3, 5, 2),
        (64, 32, 5, 1),
        (64, 64, 5, 2),
        (128, 64, 5, 1),
        (128, 128, 5, 4),
        (256, 128, 5, 1),
        (256, 256, 5, 4),
        (512, 256, 5, 1),
        (512, 512, 4, 4),
        (1, 512, 1, 1),
    ]


@pytest.mark.parametrize(("size", "logits"), [((256, 256), (1, 1)), ((64, 96), (1, 1)), ((8, 300), (1, 2))])
def test_the_discriminator_gives_a_logit_per_256_pixels(size: tuple[int, int], logits: tuple[int, int]) -> None:
    torch.manual_seed(0)
    discriminator = MSRGANDiscriminator(width=2)
    with torch.no_grad():
        logit_map = discriminator(image(*size))
        other = discriminator(1 - image(*size))
    assert logit_map.shape == (1, 1, *logits)
    assert not torch.allclose(logit_map, other)


def test_the_adversarial_gradient_is_of_the_size_of_the_contents() -> None:
    """At a restored image of 26 dB, from an untrained discriminator; nine layers let nothing fade."""
    torch.manual_seed(0)
    recipe, discriminator = recipe_of("msr-gan"), MSRGANDiscriminator()
    assert recipe.adversarial is not None
    sharp = image(256, 256)
    restored = (sharp + 0.05 * torch.randn_like(sharp)).requires_grad_()
    content = recipe.content[0].weight * F.mse_loss(restored, sharp) / 3
    adversarial = recipe.adversarial.weight * generator_loss(recipe.adversarial.kind, discriminator(restored))
    norms = [float(torch.autograd.grad(loss, restored)[0].norm()) for loss in (content, adversarial)]
    assert 0.05 < norms[1] / norms[0] < 5


def test_the_discriminator_gives_logits_not_probabilities() -> None:
    torch.manual_seed(0)
    discriminator = MSRGANDiscriminator(width=2)
    torch.nn.init.constant_(discriminator.logit.bias, -3.0)
    with torch.no_grad():
        assert float(discriminator(image(64, 64))) < 0
        assert np.ptp(discriminator(torch.rand(4, 3, 64, 64)).numpy()) > 0
