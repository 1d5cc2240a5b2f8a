"""LPRN: shapes, options, budgets, and what makes it anytime and tileable."""

from dataclasses import replace

import pytest
import torch

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.train.networks import build_network, count_parameters, gflop_720p, network_from_spec

BUDGET_GFLOP = {"lprn-n": 35, "lprn-s": 110, "lprn-m": 300}


def small(**options: int | str):
    """A network of width 8 whose last convolution is not zero, so that every part of it matters."""
    torch.manual_seed(0)
    network = build_network("lprn-s", width=8, blocks=1, **options).eval()
    torch.nn.init.normal_(network.reconstruct.weight, std=0.05)
    return network


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("preset", "budget"), BUDGET_GFLOP.items())
def test_edge_presets_stay_within_their_gflop_budget(preset: str, budget: float) -> None:
    assert 0.7 * budget < gflop_720p(build_network(preset)) <= budget


@pytest.mark.parametrize("preset", ["lprn-n", "lprn-s", "lprn-m"])
def test_edge_presets_have_widths_that_tensor_cores_like(preset: str) -> None:
    assert build_network(preset).width % 16 == 0


def test_steps_share_one_set_of_weights() -> None:
    assert count_parameters(small(steps=6)) == count_parameters(small(steps=1))


def test_untrained_network_returns_its_input() -> None:
    blurred = image()
    torch.testing.assert_close(build_network("lprn-n", width=8)(blurred), blurred)


@pytest.mark.parametrize("attention", ["none", "channel", "spatial", "both"])
@pytest.mark.parametrize("pooling", ["global", "local"])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_every_option_restores_every_multiple(attention: str, pooling: str, grid: int) -> None:
    network = small(attention=attention, pooling=pooling, grid=grid, steps=2)
    multiple = network.spec.multiple_of
    blurred = image(3 * multiple, 5 * multiple)
    with torch.no_grad():
        assert network(blurred).shape == blurred.shape


def test_attention_costs_few_parameters() -> None:
    without = count_parameters(build_network("lprn-s", attention="none"))
    both = count_parameters(build_network("lprn-s", attention="both"))
    assert without < both < 1.02 * without


def test_every_prefix_of_steps_is_an_output_of_the_longer_run() -> None:
    network, blurred = small(steps=4), image()
    with torch.no_grad():
        stages = network.restorations(blurred)
        assert len(stages) == 4
        for steps, stage in enumerate(stages, start=1):
            torch.testing.assert_close(network.at_steps(steps)(blurred), stage)
        assert not torch.allclose(stages[0], stages[-1])


def test_split_head_equals_the_convolution_of_the_concatenation() -> None:
    network, blurred = small(steps=1), image()
    grid = torch.nn.functional.pixel_unshuffle(blurred, 4)
    estimate = torch.rand_like(grid)
    weight = torch.cat([network.embed.weight, network.head.weight], 1)
    whole = torch.nn.functional.conv2d(torch.cat([grid, estimate], 1), weight, network.embed.bias, padding=1)
    torch.testing.assert_close(network.embed(grid) + network.head(estimate), whole)


@pytest.mark.parametrize(("pooling", "exact"), [("local", True), ("global", False)])
def test_only_local_pooling_makes_a_far_change_invisible(pooling: str, exact: bool) -> None:
    network = small(pooling=pooling, steps=1)
    halo = network.spec.receptive_field or 112
    frame = image(32, 16 * (-(-halo // 16) + 2))
    changed = frame.clone()
    changed[..., -16:] = 1 - changed[..., -16:]
    far = slice(0, frame.shape[-1] - 16 - halo)
    with torch.no_grad():
        same = torch.equal(network(frame)[..., far], network(changed)[..., far])
    assert same is exact


def test_receptive_field_is_not_understated() -> None:
    network = small(pooling="local", steps=2)
    radius = network.spec.receptive_field
    frame = image(16, 16 * (2 * (-(-radius // 16)) + 5)).requires_grad_()
    centre = frame.shape[-1] // 2
    network(frame)[..., centre].sum().backward()
    assert frame.grad is not None
    seen = frame.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert centre - radius <= int(seen.min())
    assert int(seen.max()) <= centre + radius
    assert int(seen.max()) - centre > radius // 2, "a bound this loose would waste the halo of every tile"


def test_spec_rebuilds_the_network() -> None:
    network = small(steps=3, attention="spatial")
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt(image()), network(image()))


@pytest.mark.parametrize("options", [{"kernel": 5}, {"grid": 3}])
def test_a_spec_of_another_network_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(SpecMismatch, match="the model spec is of another preset or another version of unblur"):
        network_from_spec(replace(small().spec, options=options))


def test_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'lprn-s'"):
        build_network("lprn_s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "some"}, "attention is one of none, channel, spatial, both, got 'some'"),
        ({"pooling": "max"}, "pooling is one of global, local, got 'max'"),
        ({"grid": 3}, "grid is 1, 2 or 4, got 3"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_bad_option_values_are_named(options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network("lprn-s", **options)


def test_unknown_option_is_named() -> None:
    with pytest.raises(BadInput, match="colour"):
        build_network("lprn-s", colour=3)
