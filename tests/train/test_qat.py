import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.calibration_table import CalibrationTable, TensorRange, preprocessing_of
from unblur.runtime.spec import ModelSpec
from unblur.train.checkpoint import load_checkpoint, save_checkpoint
from unblur.train.data import HoldOut, open_training_data
from unblur.train.loop import Length, Schedule, train
from unblur.train.networks import DeblurringNetwork, build_network
from unblur.train.qat import FakeQuantized, fine_tuning, round_activation, round_weight
from unblur.train.recipe import RECIPES, Recipe

FIRST, SECOND = "body.0.first.weight", "body.0.second.weight"


@pytest.fixture
def network() -> DeblurringNetwork:
    torch.manual_seed(0)
    network = build_network("lprn-s", base="plain", width=8, blocks=1, steps=2)
    torch.nn.init.normal_(network.reconstruct.weight, std=0.03)
    return network


@pytest.fixture
def table(network: DeblurringNetwork) -> CalibrationTable:
    """As `unblur calibrate` writes it; the second step has twice the range of the first."""
    amax = {"relu": 1.5, "relu_1": 1.0, "relu_3": 3.0, "relu_4": 2.0}
    return CalibrationTable(
        method="minmax",
        percentile=None,
        step_policy="per-step",
        preset="lprn-s",
        steps=2,
        model_sha256="0" * 64,
        preprocessing=preprocessing_of(network.spec),
        images={},
        ranges={name: TensorRange(0.0, value, value) for name, value in amax.items()},
        implicit={},
        kept={},
        reads={FIRST: ("relu", "relu_3"), SECOND: ("relu_1", "relu_4")},
    )


def test_values_are_rounded_to_int8_and_clipped() -> None:
    values = torch.tensor([-2.0, -1.28 / 1.27, 0.0, 0.004, 0.006, 0.5, 1.0, 9.0])
    rounded = round_activation(values, amax=1.0)
    assert torch.allclose(rounded * 127, torch.tensor([-128.0, -128.0, 0, 1, 1, 64, 127, 127]), atol=1e-4)
    assert round_activation(values.half(), 1.0).dtype == torch.half


def test_the_gradient_passes_what_is_rounded_and_stops_at_what_is_clipped() -> None:
    values = torch.tensor([-2.0, 0.3, 0.9, 1.1], requires_grad=True)
    round_activation(values, amax=1.0).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_have_a_scale_a_channel(axis: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 6, 3, 3) * torch.logspace(-3, 1, 24).reshape(4, 6, 1, 1)
    weight.select(axis, 2).zero_()
    rounded = round_weight(weight, axis)
    scales = weight.transpose(0, axis).flatten(1).abs().amax(1) / 127
    levels = rounded.transpose(0, axis).flatten(1) / scales.clamp_min(1e-30)[:, None]
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max() == pytest.approx(127, abs=1e-3)
    assert (rounded - weight).abs().transpose(0, axis).flatten(1).amax(1).le(scales * 0.5001).all()


def test_each_step_has_its_range_and_the_residual_reads_it_too(
    network: DeblurringNetwork, table: CalibrationTable
) -> None:
    """What enters the block goes to its first convolution and to its addition."""
    fake = FakeQuantized(network, table, where="t.json").eval()
    read: list[Tensor] = []
    fake.get_submodule("network.body.0").register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        fake(torch.rand(1, 3, 32, 32))
    for features, amax in zip(read, (1.5, 3.0), strict=True):
        levels = features / amax * 127
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert levels.unique().numel() > 10


def test_every_run_is_rounded_alike(network: DeblurringNetwork, table: CalibrationTable) -> None:
    fake, blurred = FakeQuantized(network, table, where="t.json").train(), torch.rand(2, 3, 48, 32)
    trained = fake.restorations(blurred)
    with torch.no_grad():
        assert torch.equal(fake(blurred), trained[-1])
        assert torch.equal(copy.deepcopy(fake).eval()(blurred), trained[-1])
        assert not torch.equal(network(blurred), trained[-1])  # and outside it nothing is rounded


def test_an_image_is_rounded_for_the_convolution_alone(network: DeblurringNetwork, table: CalibrationTable) -> None:
    of_image = replace(
        table,
        reads={"embed.weight": ("pixel_unshuffle",)},
        ranges={"pixel_unshuffle": TensorRange(0.0, 0.25, 0.25)},  # far too narrow: the image would be seen clipped
        image_tensors=("pixel_unshuffle",),
    )
    torch.nn.init.zeros_(network.get_parameter("reconstruct.weight"))
    blurred = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(FakeQuantized(network, of_image, where="t").eval()(blurred), blurred)


class _Halves(DeblurringNetwork):
    """Convolves the upper half of the image, and gives both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)

    def describe(self) -> ModelSpec:
        return ModelSpec("test", "lprn-s", 2, multiple_of=4, receptive_field=1, pooling="none")

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        upper, lower = torch.chunk(blurred, 2, dim=2)
        return [self.conv(upper), torch.cat([upper, lower], 2)]


def test_one_part_of_a_split_is_rounded(table: CalibrationTable) -> None:
    of_upper = replace(table, reads={"conv.weight": ("upper",)}, ranges={"upper": TensorRange(0.0, 1.0, 1.0)})
    blurred = torch.rand(1, 3, 32, 16)
    with torch.no_grad():
        upper, lower = FakeQuantized(_Halves(), of_upper, where="t")(blurred).chunk(2, 2)
    assert torch.equal(upper, round_activation(blurred[:, :, :16], 1.0))
    assert torch.equal(lower, blurred[:, :, 16:])


def test_the_weights_keep_their_names(network: DeblurringNetwork, table: CalibrationTable) -> None:
    fake = FakeQuantized(network, table, where="t.json")
    assert fake.state_dict().keys() == network.state_dict().keys()
    assert fake.spec == network.spec
    fake.load_state_dict({name: torch.zeros_like(value) for name, value in network.state_dict().items()})
    assert not network.get_parameter(FIRST).any()


def test_a_run_writes_a_checkpoint_of_the_network_and_goes_on(
    network: DeblurringNetwork, table: CalibrationTable, pairs_folder: Path, tmp_path: Path
) -> None:
    data = open_training_data([pairs_folder], hold_out=HoldOut(1))
    recipe = replace(fine_tuning(RECIPES["lprn"]), crop=32, batch=2)
    before = network.get_parameter(FIRST).detach().clone()
    for iterations, resume in ((2, False), (4, True)):
        fake = FakeQuantized(copy.deepcopy(network), table, where="t.json")
        path = train(
            fake, recipe, data, Length(iterations=iterations), tmp_path / "run", resume=resume, workers=0,
            schedule=Schedule(report_every=1, validate_every=10),
        )  # fmt: skip
    tuned = load_checkpoint(path)
    assert tuned.spec.preset == "lprn-s"
    assert 0 < (tuned.get_parameter(FIRST) - before).abs().max() < 1e-3


def test_fine_tuning_is_slow_and_has_no_adversary() -> None:
    recipe = fine_tuning(Recipe(learning_rate=1e-3).with_adversarial("vanilla"))
    assert recipe.learning_rate == pytest.approx(1e-5)
    assert recipe.adversarial is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"preset": "lprn-n"},
            "t.json does not fit the model 'lprn-s': its preset is 'lprn-n', the model's 'lprn-s'",
        ),
        ({"steps": 6}, "its steps is 6, the model's 2"),
        ({"reads": {FIRST: ("relu",)}}, "ranges for 1 uses of 'body.0.first.weight', the network makes 2; cal"),
        ({"reads": {"tail.weight": ("relu",)}}, "ranges for 1 uses of 'tail.weight', the network makes 0"),
        ({"reads": {}}, "t.json does not say which layers are INT8; calibrate again"),
    ],
)
def test_a_table_of_another_network_is_refused(
    change: dict[str, object], message: str, network: DeblurringNetwork, table: CalibrationTable
) -> None:
    with pytest.raises(CalibrationError, match=message):
        FakeQuantized(network, replace(table, **change), where="t.json")  # type: ignore[arg-type]


def test_another_number_of_steps_has_no_ranges(network: DeblurringNetwork, table: CalibrationTable) -> None:
    with pytest.raises(ValueError, match="the calibration table is for 2 steps, not for 1"):
        FakeQuantized(network, table, where="t.json").at_steps(1)


def _train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_tunes_a_checkpoint(
    network: DeblurringNetwork, table: CalibrationTable, stills_folder: Path, tmp_path: Path
) -> None:
    network.training_data = ("GoPro",)
    save_checkpoint(tmp_path / "trained.safetensors", network, RECIPES["lprn"], network.training_data)
    (tmp_path / "table.json").write_text(table.to_json())
    arguments = ["--qat", tmp_path / "table.json", "--stills", stills_folder, "--iterations", 1, "--workers", 0]
    done = _train(tmp_path / "trained.safetensors", *arguments, "--crop", 32, "-o", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.exception
    tuned = load_checkpoint(Path(json.loads(done.stdout)["weights"]))
    assert tuned.spec.options == network.spec.options
    assert tuned.training_data == ("GoPro", "stills")
    refused = _train(tmp_path / "trained.safetensors", *arguments, "--steps", 2, "-o", tmp_path / "other")
    assert isinstance(refused.exception, BadInput)
    assert str(refused.exception).startswith("--qat tunes a network as it was trained; leave --set, --steps")
    assert not (tmp_path / "other").exists()
