"""Commands on networks from elsewhere: the same commands, and options for what inspection cannot know."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import foreign_networks as foreign
import numpy as np
import pytest
from onnx import ModelProto

from unblur.runtime.images import read_image, write_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "blurred.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))
    return path


def unblur(*arguments: object) -> "subprocess.CompletedProcess[str]":
    code = "from unblur.runtime.cli.main import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def black() -> ModelProto:
    """Zeros, whatever the image."""
    return foreign.affine((0.0,) * 3, (0.0,) * 3)


@pytest.mark.parametrize(
    ("options", "level"),
    [
        (["--value-range", "0,1"], 0),
        (["--value-range=-1,1"], 128),
        (["--mean", "0.25", "--value-range", "0,1"], 64),
    ],
)
def test_zeros_mean_what_the_stated_range_says(options: list[str], level: int, image: Path, tmp_path: Path) -> None:
    done = unblur("run", foreign.write(black, tmp_path), "--source", image, "--sink", tmp_path / "o.png", *options)
    assert done.returncode == 0, done.stderr
    assert np.unique(read_image(tmp_path / "o.png")).tolist() == [level]
    assert "black.onnx has no model spec, so it was inspected: input image, output restored" in done.stderr


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            foreign.plain,
            ["--value-range", "1,0"],
            "--value-range is '1,0', expected black,white such as 0,1",
        ),
        (foreign.plain, ["--std", "0"], "expected numbers, and std above 0"),
        (foreign.plain, ["--output-name", "x"], "has no output 'x'; it has restored nx3xhxw"),
        (foreign.classifier, [], "a classifier or a detector cannot be run"),
        (foreign.unknown_operator, [], "DeformableConvolution"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line_and_writes_nothing(
    make: Callable[[], ModelProto], options: list[str], message: str, image: Path, tmp_path: Path
) -> None:
    done = unblur("run", foreign.write(make, tmp_path), "--source", image, "--sink", tmp_path / "o.png", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o.png").exists()


def test_the_options_of_a_network_from_elsewhere_are_explained() -> None:
    for command in ("run", "preview", "evaluate", "profile"):
        done = unblur(command, "--help")
        assert done.returncode == 0, done.stderr
        for option in (
            "--value-range",
            "--mean",
            "--std",
            "--channels",
            "--input-name",
            "--output-name",
            "--scale",
        ):
            assert option in done.stdout


def test_a_network_from_elsewhere_is_measured(tmp_path: Path) -> None:
    for name in ("blur", "sharp"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        frame = np.random.default_rng(len(name)).integers(0, 256, (40, 60, 3), np.uint8)
        write_image(tmp_path / "pairs" / name / "a.png", frame)
    model = foreign.write(foreign.layer_norm, tmp_path)
    done = unblur("evaluate", model, "--data", tmp_path / "pairs", "--json")
    assert done.returncode == 0, done.stderr
    done = unblur("profile", model, "--size", "64x96", "--seconds", "0.2", "--warm-up", "0.2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size"] == [64, 96]
