"""Every command on networks from elsewhere: what works on small ones of each kind, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import foreign_networks as foreign
import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import nn
from typer.testing import CliRunner, Result

from unblur.runtime.cli.main import app
from unblur.runtime.errors import UnblurError
from unblur.runtime.images import read_image, write_image

Make = Callable[[], ModelProto]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: pairs in it. A reproducible build measures no latency."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for side in ("blur", "sharp"):
            (tmp_path / "pairs" / side).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / f"pairs/{side}/{name}.png", rng.integers(1, 256, (64, 96, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    return tmp_path


def unblur(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def commands(model: object) -> dict[str, tuple[object, ...]]:
    """Every command that takes an ONNX file, as it is typed; what they write is out.*"""
    pairs = "pairs"
    return {
        "doctor": ("doctor", model, "--json"),
        "run": ("run", model, "--source", "pairs/blur", "--sink", "out"),
        "preview": ("preview", model, "--source", "test://moving", "--sink", "out.mp4", "--port", 0),
        "evaluate": ("evaluate", model, "--data", pairs, "-o", "out", "--json"),
        "verify": ("verify", model, "--pairs", pairs, "--json"),
        "profile": ("profile", model, "--size", "64x96", "--seconds", 0.01, "--warm-up", 0, "-o", "out.json"),
        "report": ("report", model, "--no-profile", "--pairs", pairs, "-o", "out.html"),
        "calibrate": ("calibrate", model, "--images", pairs, "-o", "out.onnx", "--json"),
        "build": ("build", model, "--target", "rtx-sm86", "-o", "out", "--json"),
        "deploy": ("deploy", model, "--calibration", pairs, "--steps", "", "--keep-failed", "-o", "out.unblur"),
    }


def not_finite_anywhere() -> ModelProto:
    graph = foreign.Graph()
    graph.add("Div", [graph.add("Sub", ["image", "image"]), graph.add("Sub", ["image", "image"])], "restored")
    return graph.model({"image": foreign.FREE}, {"restored": foreign.FREE})


def quarter() -> ModelProto:
    """An output of another shape than an image's."""
    graph = foreign.Graph()
    graph.conv(graph.add("AveragePool", ["image"], kernel_shape=[4, 4], strides=[4, 4]), 3, 3, output="small")
    return graph.model({"image": foreign.FREE}, {"small": ("n", 3, "h4", "w4")})


def without_data(folder: Path) -> Path:
    path = foreign.write(foreign.plain, folder, external=True)
    path.with_name("plain.onnx.data").unlink()
    return path


def too_large(folder: Path) -> Path:
    with (folder / "large.onnx").open("wb") as file:
        file.truncate(3 << 30)
    return folder / "large.onnx"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "classifier": (lambda folder: foreign.write(foreign.classifier, folder), "a classifier or a detector cannot"),
    "detector": (lambda folder: foreign.write(foreign.detector, folder), "a classifier or a detector cannot"),
    "another shape": (lambda folder: foreign.write(quarter, folder), "gives small 1x3x24x24 for an image of 96x96"),
    "unknown operator": (lambda folder: foreign.write(foreign.unknown_operator, folder), "DeformableConvolution"),
    "external data": (without_data, "keeps its weights in plain.onnx.data, which is not there"),
    "over 2 GB": (too_large, "has 3.0 GiB, an ONNX file holds less than 2"),
    "NaN": (lambda folder: foreign.write(not_finite_anywhere, folder), "gives NaN or infinity for a photograph"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_network_from_image_to_image_is_refused(name: str, folder: Path) -> None:
    make, message = BAD[name]
    model = make(folder)
    before = sorted(folder.rglob("*"))
    for command, arguments in commands(model).items():
        if name == "classifier" or command in ("run", "calibrate"):  # the two ways in which files are read
            check_refused(unblur(*arguments), message, in_check=command == "doctor")
    assert [path for path in sorted(folder.rglob("*")) if path not in before and "cache" not in path.parts] == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--value-range=1,0",
            "--value-range is '1,0', expected black,white such as 0,1 or -1,1, black below white",
        ),
        ("--std=0", "expected numbers, and std above 0"),
        ("--output-name=x", "has no output 'x'; it has restored nx3xhxw"),
    ],
)
def test_what_is_stated_wrongly_is_refused_by_every_command(option: str, message: str, folder: Path) -> None:
    model = foreign.write(foreign.plain, folder)
    before = sorted(folder.rglob("*"))
    for command, arguments in {**commands(model), "lint": ("lint", model)}.items():
        if option.startswith("--output-name") or command in ("run", "calibrate"):
            check_refused(unblur(*arguments, option), message, in_check=command == "doctor")
    assert [path for path in sorted(folder.rglob("*")) if path not in before and "cache" not in path.parts] == []


def test_what_a_bundle_says_of_itself_is_not_overruled(folder: Path) -> None:
    for command, arguments in commands("lprn-n").items():
        if command in ("run", "verify", "build", "deploy", "report"):
            check_refused(
                unblur(*arguments, "--mean=0.5"), "says what it takes; --value-range and the like are for"
            )


def check_refused(result: Result, message: str, *, in_check: bool = False) -> None:
    """One line, exit code 2; or, of `doctor`, a check that is not passed."""
    if in_check:
        assert result.exit_code == 1
        check = json.loads(result.stdout)["checks"][-1]
        assert not check["ok"]
        assert message in check["detail"]
        return
    assert isinstance(result.exception, UnblurError), result.output
    assert result.exception.exit_code == 2
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_network_that_gives_nan_for_one_image_names_it(folder: Path) -> None:
    write_image(folder / "pairs/blur/b.png", np.zeros((64, 96, 3), np.uint8))
    model = foreign.write(foreign.not_finite, folder)
    for command in ("evaluate", "verify", "report"):
        result = unblur(*commands(model)[command], "--value-range=0,1")
        check_refused(
            result, "b: 'not_finite' gave NaN or infinity; try --precision fp32, or check its --value-range"
        )
    assert not list(folder.glob("out*"))


def test_a_whole_pickled_module_is_refused(folder: Path) -> None:
    (folder / "own_nets_of_a_user.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Conv2d(3, 3, 1)\n"
    )
    torch.save(nn.Conv2d(3, 3, 1), "whole.pth")
    options = ("own_nets_of_a_user:net", "--weights", "whole.pth")
    for arguments in (("-o", "out.onnx"), ("--calibration", "pairs", "-o", "out.unblur")):
        command = "export" if len(arguments) == 2 else "deploy"
        check_refused(
            unblur(command, *options, *arguments), "save the weights alone: torch.save(network.state_dict()"
        )
    assert not list(folder.glob("out*"))


WORKS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "one size": (foreign.fixed, ()),
    "one channel": (foreign.grey, ("--value-range=-1,1",)),
    "twice as large": (foreign.twice, ()),
    "three outputs": (foreign.three_outputs, ("--channels", "bgr")),
    "layer normalisation": (foreign.layer_norm, ("--value-range", "0,255")),
}


@pytest.mark.parametrize("name", WORKS)
def test_every_command_works(name: str, folder: Path) -> None:
    make, options = WORKS[name]
    model = foreign.write(make, folder)
    all_commands = commands(model) | {"lint": ("lint", model)}
    for command in all_commands.keys() - {"preview"}:  # its page is served until it is interrupted
        budget = ("--budget-db", 9) if command in ("calibrate", "deploy") else ()
        result = unblur(*all_commands[command], *options, *budget)
        verdict = {"verify": (0, 1), "deploy": (0, 1)}.get(command, (0,))
        assert result.exit_code in verdict, f"{command}: {result.exception!r} {result.output}"
        if result.exit_code == 1:
            assert isinstance(result.exception, SystemExit), f"{command}: {result.exception!r}"
    scale = 2 if name == "twice as large" else 1
    assert read_image(folder / "out/a.png").shape == (64 * scale, 96 * scale, 3)
    assert unblur("run", "out.unblur", "--source", "pairs/blur", "--sink", "out2").exit_code == 0
    assert read_image(folder / "out2/a.png").shape == (64 * scale, 96 * scale, 3)
