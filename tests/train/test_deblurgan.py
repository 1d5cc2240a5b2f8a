"""DeblurGAN: sizes, the edge channel, and feedback as recursion."""

import pytest
import torch
from small_networks import small_network, two_images

from unblur.train.networks import build_network, count_parameters, gflop_720p, network_from_spec
from unblur.train.networks.base import DeblurringNetwork

PRESETS = ["deblurgan", "deblurgan-edges", "deblurgan-feedback"]


def small(preset: str, **options: int) -> DeblurringNetwork:
    return small_network(preset, width=8, blocks=1, **options)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40)])
def test_every_multiple_is_restored(preset: str, height: int, width: int) -> None:
    network, blurred = small(preset), two_images(height, width)
    with torch.no_grad():
        assert network(blurred).shape == blurred.shape


@pytest.mark.parametrize("preset", PRESETS)
def test_untrained_network_returns_its_input(preset: str) -> None:
    blurred = two_images()
    torch.testing.assert_close(build_network(preset, width=8, blocks=1)(blurred), blurred)


def test_it_has_the_size_of_the_published_generator() -> None:
    # Kupyn et al.: 11.4 M with transposed convolutions of 3 x 3, ours are 4 x 4
    transposed = (256 * 128 + 128 * 64) * (4**2 - 3**2)
    assert count_parameters(build_network("deblurgan")) - transposed == pytest.approx(11.38e6, rel=1e-3)


def test_edges_are_the_fourth_channel() -> None:
    network, blurred = small("deblurgan-edges"), two_images()
    assert network.edges is not None
    with torch.no_grad():
        with_edges = network(blurred)
        network.encoder[1].weight[:, 3] = 0
        assert not torch.allclose(network(blurred), with_edges, atol=1e-3)
        without = small("deblurgan")
        state = network.state_dict()
        state["encoder.1.weight"] = state["encoder.1.weight"][:, :3]
        without.load_state_dict(state)
        torch.testing.assert_close(without(blurred), network(blurred))


@pytest.mark.parametrize("preset", PRESETS)
def test_operations_are_counted_without_computing(preset: str) -> None:
    assert gflop_720p(build_network(preset, width=8, blocks=1)) > 1


def test_feedback_gives_an_output_per_iteration_and_any_prefix() -> None:
    network, blurred = small("deblurgan-feedback"), two_images()
    with torch.no_grad():
        iterations = network.restorations(blurred)
        assert len(iterations) == network.spec.steps == 4
        for steps, iteration in enumerate(iterations, start=1):
            torch.testing.assert_close(network.at_steps(steps)(blurred), iteration)
    assert not torch.allclose(iterations[0], iterations[-1])


def test_only_feedback_has_steps() -> None:
    with pytest.raises(ValueError, match="deblurgan cannot run 2 steps"):
        small("deblurgan").at_steps(2)
    assert count_parameters(small("deblurgan-feedback", steps=2)) == count_parameters(small("deblurgan-feedback"))


@pytest.mark.parametrize("preset", PRESETS)
def test_spec_rebuilds_the_network(preset: str) -> None:
    network = small(preset)
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt(two_images()), network(two_images()))


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("deblurgan", {"blocks": 0}, "width and blocks are at least 1, got 64 and 0"),
        ("deblurgan-feedback", {"width": 8, "steps": 0}, "steps is at least 1, got 0"),
    ],
)
def test_bad_option_values_are_named(preset: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(preset, **options)
