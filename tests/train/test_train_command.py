"""`unblur train` as typed."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.fakes.small_networks import NARROW_U, small_network
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput
from unblur.train import networks
from unblur.train.checkpoint import load_checkpoint, save_checkpoint
from unblur.train.recipe import Recipe


def unblur_train(*arguments: str) -> Result:
    """Within this process: another takes seconds to import torch."""
    return CliRunner().invoke(app, ["train", *arguments])


def test_list_is_one_json_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two presets: counting all takes half a minute, and the README's test does it."""
    monkeypatch.setattr(networks, "PRESETS", {name: networks.PRESETS[name] for name in ("lprn-s", "srn")})
    done = unblur_train("--list", "--json")
    assert done.exit_code == 0, done.exception
    rows = {row["preset"]: row for row in json.loads(done.stdout)}
    assert list(rows) == ["lprn-s", "srn"]
    assert set(rows["lprn-s"]) == {"system", "preset", "parameters", "gflop_720p", "multiple_of", "source"}
    assert rows["lprn-s"]["gflop_720p"] <= 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lprn-z", "--stills", "s", "-o", "r", "--iterations", "1"], "did you mean"),
        (["lprn-n", "--stills", "s", "-o", "r"], "in one way: --minutes, --iterations or --full"),
        (
            ["lprn-n", "--stills", "s", "-o", "r", "--full", "--minutes", "1"],
            "no text says how long lprn-n is trained",
        ),
        (["srn", "--stills", "s", "-o", "r", "--full", "--minutes", "1"], "in one way: --minutes, --iterations or"),
        (["lprn-n", "-o", "r", "--iterations", "1"], "nothing to train on"),
        (["lprn-n", "--stills", "absent", "-o", "r", "--iterations", "1"], "absent is not a folder"),
        (["lprn-n", "--attention", "some", "-o", "r", "--iterations", "1"], "attention is 'some'"),
        (["lprn-n", "--stills", "s", "--crop", "40", "-o", "r", "--iterations", "1"], "--crop 32 or 64 would do"),
        (["lprn-n", "--content", "perceptual", "-o", "r", "--iterations", "1"], "needs the weights of VGG19"),
        (["lprn-n", "--vgg", "v", "-o", "r", "--iterations", "1"], "--vgg is given but the loss is not perceptual"),
        (["lprn-n", "--adversarial", "vanilla", "-o", "r", "--iterations", "1"], "lprn-n has no discriminator"),
        (["lprn-n", "--weights", "lprn-s", "-o", "r", "--minutes", "1"], "weights of lprn-s, expected lprn-n"),
        (["lprn-n", "--weights", "a.safetensors", "-o", "r", "--minutes", "1"], "a.safetensors does not exist"),
        (["lprn-n", "--weights", "lprn-n", "--set", "width=8", "-o", "r", "--minutes", "1"], "numbers of blocks"),
        (["lprn-n", "--weights", "w", "--qat", "t", "-o", "r", "--iterations", "1"], "leave --weights out"),
        ([], "needs a preset and a folder"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, stills_folder: Path, tmp_path: Path
) -> None:
    places = {"s": stills_folder, "r": tmp_path / "run"}
    result = unblur_train(*(str(places.get(argument, argument)) for argument in arguments))
    assert isinstance(result.exception, BadInput)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_training_starts_from_weights_with_the_options_that_they_have(stills_folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, small_network("lprn-n", **NARROW_U), Recipe(), ("gopro",))
    run = tmp_path / "run"
    arguments = ("--stills", stills_folder, "--crop", 32, "--batch", 1, "--learning-rate", 0, "--iterations", 1)
    done = unblur_train("lprn-n", "--weights", str(start), *map(str, arguments), "-o", str(run))
    assert done.exit_code == 0, done.exception
    before, after = (load_checkpoint(path) for path in (start, run / "lprn-n.safetensors"))
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name
    assert after.spec.training_data == ("gopro", stills_folder.name)
