"""SRN-DeblurNet: the table of its text, every variant at every size, and the graphs they export."""

from typing import Any

import numpy as np
import pytest
import torch

from unblur.calibration.placement import place
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.errors import BadInput
from unblur.runtime.metrics import psnr_float_db
from unblur.train.networks import PRESETS, build_network, count_parameters, gflop_720p, network_from_spec
from unblur.train.networks.blocks import ConvLSTM

MILLIONS = {
    "srn-ss": 2.73,
    "srn-sc": 8.19,
    "srn-wor": 2.73,
    "srn-rnn": 3.03,
    "srn-flat": 2.66,
    "srn-rb": 2.66,
    "srn-ed": 3.76,
    "srn-edrb1": 2.21,
    "srn-edrb2": 2.99,
    "srn": 3.76,
}


def small(preset: str = "srn", **options: Any) -> Any:
    torch.manual_seed(0)
    return build_network(preset, **{"width": 8, "blocks": 1, "kernel": 3, **options}).eval()


def image(height: int, width: int) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))


def test_the_table_lists_every_preset() -> None:
    assert {name for name, preset in PRESETS.items() if preset.system == "srn"} == MILLIONS.keys()


@pytest.mark.parametrize(("preset", "millions"), MILLIONS.items())
def test_parameters_are_those_of_the_table_within_a_percent(preset: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_network(preset, kernel=3)
    assert count_parameters(network) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("preset", MILLIONS)
def test_every_variant_restores_every_multiple_at_every_scale(preset: str) -> None:
    network = small(preset)
    multiple = network.spec.multiple_of
    for rows, columns in ((1, 1), (1, 3), (3, 2)):
        blurred = image(rows * multiple, columns * multiple)
        with torch.no_grad():
            restored = network.restorations(blurred)
            torch.testing.assert_close(network(blurred), restored[-1])
        expected = [(blurred.shape[2] // factor, blurred.shape[3] // factor) for factor in (4, 2, 1)]
        assert [tuple(output.shape[2:]) for output in restored] == expected[-network.scales :]


@pytest.mark.parametrize("preset", MILLIONS)
def test_every_weight_is_trained(preset: str) -> None:
    network = small(preset)
    sum(output.square().mean() for output in network.restorations(image(64, 64))).backward()
    untouched = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.abs().max() > 0
    ]
    assert untouched == []


def test_scales_share_one_set_of_weights() -> None:
    assert count_parameters(small(scales=3)) == count_parameters(small(scales=2))
    assert count_parameters(small("srn-sc")) == 3 * count_parameters(small("srn-wor"))


@pytest.mark.parametrize(("preset", "states"), [("srn", 2), ("srn-rnn", 1)])
def test_the_finer_scale_sees_the_state_of_the_coarser(preset: str, states: int) -> None:
    network = small(preset).networks[0]
    images = torch.rand((1, 6, 32, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        alone, state = network(images)
        assert len(state) == states
        for changed in range(states):
            other = tuple(part + (index == changed) for index, part in enumerate(state))
            assert not torch.allclose(network(images, state)[0], network(images, other)[0])
        assert not torch.allclose(alone, network(images, state)[0])


def test_a_step_of_the_lstm_is_that_of_the_equations() -> None:
    torch.manual_seed(0)
    step = ConvLSTM(4).double()
    features, hidden, cell = torch.randn((3, 1, 4, 6, 5), dtype=torch.float64)
    weight = torch.cat([step.from_input.weight, step.from_hidden.weight], 1)
    gates = torch.nn.functional.conv2d(torch.cat([features, hidden], 1), weight, step.from_input.bias, padding=1)
    admit, forget, emit = (1 / (1 + torch.exp(-part)) for part in gates.split(4, 1)[:3])
    new_cell = forget * cell + admit * torch.tanh(gates[:, 12:])
    with torch.no_grad():
        out, state = step(features, (hidden, cell))
        torch.testing.assert_close(state, (emit * torch.tanh(new_cell), new_cell))
        assert out is state[0]
        zero = torch.zeros_like(hidden)
        torch.testing.assert_close(step(features), step(features, (zero, zero)))


def test_without_strides_the_coarse_estimate_is_all_that_is_passed_on() -> None:
    """SR-RB by hand: one network over the pyramid, each scale given the doubled result of the one before."""
    network, blurred = small("srn-rb", scales=2), image(16, 24)
    coarse = torch.nn.functional.avg_pool2d(blurred, 2)
    with torch.no_grad():
        first, _ = network.networks[0](torch.cat([coarse, coarse], 1))
        up = torch.nn.functional.interpolate(first, size=(16, 24), mode="bilinear", align_corners=False)
        second, _ = network.networks[0](torch.cat([blurred, up], 1))
        torch.testing.assert_close(network.restorations(blurred), [first, second])


@pytest.mark.parametrize("preset", ["srn", "srn-rnn", "srn-flat", "srn-ss"])
def test_receptive_field_is_not_understated(preset: str) -> None:
    network = small(preset, width=2)
    radius, multiple = network.spec.receptive_field, network.spec.multiple_of
    columns = -(-(2 * radius + 3 * multiple) // multiple) * multiple
    for (
        weight
    ) in network.parameters():  # positive, so that every ReLU is open, and averaging, so that no gate is full
        torch.nn.init.constant_(weight, 1 / weight[0].numel() if weight.ndim > 1 else 0)
    frame = image(multiple, columns).requires_grad_()
    centre = columns // 2
    network(frame)[..., centre : centre + multiple].sum().backward()
    seen = frame.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert centre - radius <= int(seen.min())
    assert int(seen.max()) < centre + multiple + radius
    assert int(seen.max() - seen.min()) > 1.6 * radius, "a bound this loose would waste the halo of every tile"


def test_cost_is_counted_without_computing() -> None:
    """Three scales take 1 + 1/4 + 1/16 of what one takes, and without strides seven times as much."""
    once, thrice, flat = (gflop_720p(build_network(p, kernel=3)) for p in ("srn-ss", "srn-wor", "srn-flat"))
    assert thrice / once == pytest.approx(1.3125, rel=0.005)
    assert flat > 7 * thrice


@pytest.mark.parametrize("preset", ["srn-rnn", "srn-sc"])
def test_export_is_unrolled_and_equal_at_any_size(preset: str) -> None:
    """What the export of `srn` does not show; of two scales, for the time of an export goes with its length."""
    network = small(preset, scales=2)
    model = onnx_from_network(network)
    assert not {"Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert weights <= 4 * count_parameters(network) + 256  # shared ones once, and a few constants
    session = model.session()
    for batch, rows, columns in ((1, 1, 1), (2, 3, 2)):
        multiple = network.spec.multiple_of
        images = torch.rand((batch, 3, rows * multiple, columns * multiple))
        with torch.inference_mode():
            expected = network(images).numpy()
        assert psnr_float_db(session.run(None, {"blurred": images.numpy()})[0], expected) >= 80
        assert np.ptp(expected) > 0.01

    ends = {name.split(".", 2)[2].rsplit(".", 2)[0]: reason for name, reason in place(model).kept.items()}
    assert set(ends.values()) == {"reads the image", "writes the image"}
    assert {name.split(".")[0] for name in ends} == {"encoder", "output"}


def test_spec_rebuilds_the_network() -> None:
    network = small("srn-sc")
    rebuilt = network_from_spec(network.spec)
    assert rebuilt.spec == network.spec
    rebuilt.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt(image(16, 32)), network(image(16, 32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "kernel is odd and at least 3, got 4"),
        ({"scales": 0}, "width, blocks and scales are at least 1, got 8, 1, 0"),
        ({"state": "gru"}, "state is one of none, rnn, lstm, got 'gru'"),
        ({"layout": "round"}, "layout is one of encoder-decoder, flat, got 'round'"),
        ({"block": "dense"}, "block is one of residual, plain, got 'dense'"),
        ({"shared": False}, "state 'lstm' goes from scale to scale of one network; use 'none' here"),
    ],
)
def test_bad_option_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_it_has_no_steps_to_choose() -> None:
    with pytest.raises(ValueError, match="srn cannot run 2 steps"):
        small().at_steps(2)
    with pytest.raises(BadInput, match=r"'srn' does not take these options: .*'steps'"):
        build_network("srn", steps=2)
