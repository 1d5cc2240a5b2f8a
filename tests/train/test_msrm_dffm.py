"""MSRM-DFFM U-Net: sizes, the two modules against their equations, and what the switches do."""

import pytest
import torch
from torch.nn import functional as F

from unblur.train.networks import build_network, count_parameters, network_from_spec
from unblur.train.networks.msrm_dffm import MSRMDFFM, DynamicFeatureFusion, MultiScaleResidualModule

PRESETS = ["msrm-dffm", "msrm-dffm-base", "msrm-dffm-only-msrm", "msrm-dffm-only-dffm"]


def small(preset: str = "msrm-dffm") -> MSRMDFFM:
    """Width 8, one block; the last convolutions are not zero, so that every part matters."""
    torch.manual_seed(0)
    network = build_network(preset, width=8, blocks=1).eval()
    assert isinstance(network, MSRMDFFM)
    for parameter in network.reconstruct.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 20)])
def test_every_multiple_is_restored_at_three_sizes(preset: str, height: int, width: int) -> None:
    network, blurred = small(preset), image(height, width)
    with torch.no_grad():
        restorations = network.restorations(blurred)
        assert [output.shape[2:] for output in restorations] == [
            (height // shrink, width // shrink) for shrink in (4, 2, 1)
        ]
        torch.testing.assert_close(network(blurred), restorations[-1])


def test_untrained_network_returns_its_input_at_every_size() -> None:
    network, blurred = build_network("msrm-dffm", width=8, blocks=1), image()
    for output, shrink in zip(network.restorations(blurred), (4, 2, 1), strict=True):
        torch.testing.assert_close(output, F.avg_pool2d(blurred, shrink))


def test_one_module_follows_the_equations() -> None:
    torch.manual_seed(0)
    module, x = MultiScaleResidualModule(8).eval(), torch.randn(1, 8, 6, 7)
    x1, x2, x3, x4 = module.depthwise(x).split(2, 1)
    conv1, conv2, conv3, conv4 = module.chain
    y1 = conv1(x1)
    y2 = conv2(x2 + y1)
    y3 = conv3(x3 + y2)
    y4 = conv4(x4 + y3)
    expected = module.attention(module.merge(torch.cat([y1, y2, y3, y4], 1))) + x
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_fusion_resizes_then_convolves_then_weighs(level: int) -> None:
    torch.manual_seed(0)
    fusion = DynamicFeatureFusion([8, 16, 32], level).eval()
    encoded = [torch.randn(2, 8 * 2**k, 16 // 2**k, 24 // 2**k) for k in range(3)]
    size = encoded[level].shape[2:]
    branches = []
    for source, features in enumerate(encoded):  # as the paper has it: resize first
        shrink = 2 ** max(level - source, 0)
        resized = F.interpolate(F.avg_pool2d(features, shrink), size, mode="bilinear")
        branches.append(fusion.adapt[source](resized))
    averages = (branches[0] + branches[1] + branches[2]).mean((2, 3), keepdim=True)
    weights = fusion.excite(F.relu(fusion.squeeze(averages))).view(2, 3, -1, 1, 1).softmax(1)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    expected = fusion.merge(torch.cat([weights[:, k] * branches[k] for k in range(3)], 1))
    torch.testing.assert_close(fusion(encoded), expected)


def test_only_fusion_lets_the_lowest_level_reach_the_upper_skips() -> None:
    for preset, reaches in (("msrm-dffm-only-dffm", True), ("msrm-dffm-base", False)):
        network = small(preset)
        for parameter in network.up.parameters():  # cut the other way up
            torch.nn.init.zeros_(parameter)
        network(image()).sum().backward()
        gradient = network.encode[2][0].first.weight.grad
        assert (gradient is not None and bool(gradient.any())) is reaches


def test_modules_cost_what_the_text_claims() -> None:
    parameters = {preset: count_parameters(build_network(preset)) for preset in PRESETS}
    assert parameters["msrm-dffm"] < 0.3 * parameters["msrm-dffm-base"]  # "few convolutions"
    assert parameters["msrm-dffm-base"] < parameters["msrm-dffm-only-dffm"] < 1.01 * parameters["msrm-dffm-base"]


def test_only_the_baseline_has_a_bounded_receptive_field() -> None:
    assert [build_network(preset).spec.pooling for preset in PRESETS] == ["global", "none", "global", "global"]
    network = small("msrm-dffm-base")
    radius = network.spec.receptive_field
    frame = image(8, 4 * (2 * radius // 4 + 5)).requires_grad_()
    centre = frame.shape[-1] // 2
    for column in range(centre, centre + 4):
        frame.grad = None
        network(frame)[..., column].sum().backward()
        assert frame.grad is not None
        seen = frame.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        assert column - radius <= int(seen.min())
        assert int(seen.max()) <= column + radius
        assert int(seen.max()) - column > radius // 2, "a bound this loose would waste the halo of every tile"


def test_spec_rebuilds_the_network() -> None:
    network = small("msrm-dffm-only-dffm")
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt.eval()(image()), network(image()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "width is a multiple of 4 and at least 8, got 10"),
        ({"blocks": 0}, "blocks is at least 1, got 0"),
    ],
)
def test_bad_option_values_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network("msrm-dffm", **options)
