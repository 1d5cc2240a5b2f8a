"""LPRN: shapes, options, budgets, and what makes it anytime and tileable."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.train.networks import build_network, count_parameters, gflop_720p, network_from_spec

BUDGET_GFLOP = {"lprn-n": 10, "lprn-s": 40}
SMALL = {
    "plain": {"width": 8, "blocks": 1},
    "u": {"width": "8,12,16", "blocks": "1,2,1,1,1"},
}


def small(base: str = "u", **options: int | str):
    """A narrow network whose last convolution is not zero, so that every part of it matters."""
    torch.manual_seed(0)
    network = build_network("lprn-s", base=base, **SMALL[base], **options).eval()
    torch.nn.init.normal_(network.reconstruct.weight, std=0.05)
    return network


each_base = pytest.mark.parametrize("base", SMALL)


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("preset", "budget"), BUDGET_GFLOP.items())
def test_edge_presets_stay_within_their_gflop_budget(preset: str, budget: float) -> None:
    assert 0.5 * budget < gflop_720p(build_network(preset)) <= budget


@pytest.mark.parametrize("preset", BUDGET_GFLOP)
def test_edge_presets_have_widths_that_tensor_cores_like(preset: str) -> None:
    widths = {module.out_channels for module in build_network(preset).modules() if isinstance(module, nn.Conv2d)}
    assert all(width % 16 == 0 for width in widths)


def test_edge_presets_have_at_most_five_million_parameters() -> None:
    assert max(count_parameters(build_network(preset)) for preset in BUDGET_GFLOP) <= 5_000_000


@each_base
def test_steps_share_one_set_of_weights(base: str) -> None:
    assert count_parameters(small(base, steps=6)) == count_parameters(small(base, steps=1))


def test_untrained_network_returns_its_input() -> None:
    blurred = image()
    torch.testing.assert_close(build_network("lprn-n")(blurred), blurred)


@each_base
@pytest.mark.parametrize("attention", ["none", "channel", "spatial", "both"])
@pytest.mark.parametrize("pooling", ["global", "local"])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_every_option_restores_every_multiple(base: str, attention: str, pooling: str, grid: int) -> None:
    network = small(base, attention=attention, pooling=pooling, grid=grid, steps=2)
    multiple = network.spec.multiple_of
    blurred = image(3 * multiple, 5 * multiple)
    with torch.no_grad():
        assert network(blurred).shape == blurred.shape


def test_attention_costs_few_parameters() -> None:
    without = count_parameters(build_network("lprn-s", attention="none"))
    both = count_parameters(build_network("lprn-s", attention="both"))
    assert without < both < 1.02 * without


@each_base
def test_every_prefix_of_steps_is_an_output_of_the_longer_run(base: str) -> None:
    network, blurred = small(base, steps=4), image()
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
    network = small("plain", attention="both", pooling=pooling, steps=1)
    halo = network.spec.receptive_field or 112
    frame = image(32, 16 * (-(-halo // 16) + 2))
    changed = frame.clone()
    changed[..., -16:] = 1 - changed[..., -16:]
    far = slice(0, frame.shape[-1] - 16 - halo)
    with torch.no_grad():
        same = torch.equal(network(frame)[..., far], network(changed)[..., far])
    assert same is exact


@each_base
@pytest.mark.parametrize("attention", ["none", "both"])
@pytest.mark.parametrize("steps", [1, 2])
def test_receptive_field_is_what_a_perturbation_reaches(base: str, attention: str, steps: int) -> None:
    """Never understated, and at the worst alignment hardly overstated: the halo of every tile pays for that."""
    network = small(base, attention=attention, steps=steps).double()
    radius, multiple = network.spec.receptive_field, network.spec.multiple_of
    width = multiple * (2 * (-(-radius // multiple)) + 3)
    frame = image(multiple, width).double().requires_grad_()
    restored = network(frame)
    reached = 0
    for centre in range(width // 2 - multiple // 2, width // 2 + multiple // 2):
        (gradient,) = torch.autograd.grad(restored[..., centre].sum(), frame, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        reached = max(reached, centre - int(seen.min()), int(seen.max()) - centre)
    assert reached <= radius
    assert reached > (0.8 if attention == "none" else 0.6) * radius


@each_base
def test_spec_rebuilds_the_network(base: str) -> None:
    network = small(base, steps=3, attention="spatial")
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
        ({"attention": "some"}, "attention is 'some', expected one of none, channel, spatial, both"),
        ({"pooling": "max"}, "pooling is 'max', expected one of global, local"),
        ({"base": "v"}, "base is 'v', expected one of plain, u"),
        ({"grid": 3}, "grid is 3, expected 1, 2 or 4"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"width": "8,0"}, "width is 8,0, expected at least 1"),
        ({"blocks": "1,x"}, "blocks is '1,x', expected a number or numbers like 32,64,96"),
        ({"width": "8,16"}, "base 'u' has 2 widths and 7 numbers of blocks, expected 3 numbers of blocks"),
        (
            {"base": "plain", "width": "8,16"},
            "base 'plain' has 2 widths and 7 numbers of blocks",
        ),
    ],
)
def test_bad_option_values_are_named(options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network("lprn-s", **options)


def test_unknown_option_is_named() -> None:
    with pytest.raises(BadInput, match="colour"):
        build_network("lprn-s", colour=3)


def test_a_spec_without_a_base_is_the_plain_one() -> None:
    """Checkpoints written before the base was an option."""
    plain = small("plain")
    assert "base" not in plain.spec.options
    rebuilt = network_from_spec(plain.spec)
    rebuilt.load_state_dict(plain.state_dict())
    assert rebuilt.spec == plain.spec
