"""`unblur estimate` as people type it: models in every form, one document, one line for what cannot be done."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from onnx import ModelProto
from typer.testing import CliRunner

from unblur.calibration.onnx_file import spec_of, write_onnx
from unblur.export import cli_estimate
from unblur.export.estimate.devices import DEVICES
from unblur.export.estimate.model import graph_of
from unblur.runtime.errors import BadInput, SpecMismatch


def estimate(*arguments: object) -> str:
    """What the command prints on stdout; its errors pass through."""
    app = typer.Typer()
    cli_estimate.register(app)
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(*arguments: object) -> Any:
    return json.loads(estimate(*arguments, "--json"))


def test_one_document_with_every_precision_of_the_device() -> None:
    found = document("lprn-n", "--device", "orin-nano-super", "--size", "360x640")
    assert (found["kind"], found["preset"], found["steps"], found["size"]) == ("estimate", "lprn-n", 4, [360, 640])
    assert found["device"] == {
        "name": "orin-nano-super",
        "title": "Jetson Orin Nano 8GB Super",
        "mode": "MAXN_SUPER",
        "memory_gib": 8,
    }
    assert list(found["precisions"]) == ["fp32", "fp16", "int8"]
    fp16 = found["precisions"]["fp16"]
    assert fp16["peak_gflops"] == [16711.7, 16711.7]
    assert fp16["units"] == "tensor cores"
    low, high = fp16["ms"]
    assert fp16["fps"] == pytest.approx([1000 / high, 1000 / low], rel=0.001)
    assert any("67 TOPS: INT8, sparse" in note for note in found["notes"])


def test_a_power_mode_and_fewer_steps() -> None:
    options = ("lprn-n", "--device", "agx-orin", "--precision", "fp16", "--size", "180x320")
    full, slow, short = (document(*options, *more) for more in ((), ("--mode", "15W"), ("--steps", 1)))
    assert slow["precisions"]["fp16"]["ms"][0] > 2 * full["precisions"]["fp16"]["ms"][0]
    assert short["steps"] == 1
    assert short["precisions"]["fp16"]["ms"][0] < full["precisions"]["fp16"]["ms"][0] / 2


def test_the_table_says_first_that_nothing_was_measured() -> None:
    lines = estimate("lprn-n", "--device", "nano", "--size", "64x96").splitlines()
    assert lines[0].startswith("Estimate, not measured: lprn-n, 4 steps, 64x96")
    assert any(line.startswith("fp16") for line in lines)
    assert not any(line.startswith("int8") for line in lines)


def test_what_does_not_fit_is_told() -> None:
    assert "too much" in estimate("lprn-n", "--device", "nano", "--size", "30000x40000", "--precision", "fp32")


def test_devices_are_listed() -> None:
    assert [device["name"] for device in document("--list")] == list(DEVICES)
    table = estimate("--device", "list")
    assert all(name in table for name in DEVICES)


@pytest.mark.usefixtures("quick_export")
def test_a_file_and_a_checkpoint_are_models(fp32: ModelProto, checkpoint: Path, tmp_path: Path) -> None:
    write_onnx(tmp_path / "small.onnx", fp32)
    assert graph_of(str(tmp_path / "small.onnx"), 2) == fp32
    assert spec_of(graph_of(str(checkpoint), 1)).steps == 1


def test_a_network_that_nobody_has_trained_is_a_model() -> None:
    assert spec_of(graph_of("lprn-m", 1)).preset == "lprn-m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lprn-n"], "needs a MODEL and a --device; --list shows the devices"),
        (["lprn-n", "--device", "jetson"], "unknown device 'jetson'"),
        (["lprn-n", "--device", "nano", "--precision", "int8"], "Nano does not compute in int8; it has fp32, fp16"),
        (["lprn-n", "--device", "nano", "--mode", "3W"], "nano has no power mode '3W'; it has MAXN, 5W"),
        (["lprn-n", "--device", "cpu", "--mode", "5W"], "--mode is '5W', but this CPU has none to choose"),
        (["lprn-n", "--device", "nano", "--size", "0x5"], "--size is '0x5', expected height x width"),
        (["lprm-x", "--device", "nano"], "there is no model 'lprm-x'; did you mean 'lprn-"),
        (["srn", "--device", "nano", "--steps", "2"], "srn cannot run 2 steps; leave --steps out"),
        (["none.onnx", "--device", "nano"], "none.onnx does not exist"),
        (["fast.engine", "--device", "nano"], "fast.engine is an engine, whose layers are decided"),
    ],
)
def test_what_cannot_be_estimated(arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        estimate(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_has_one_precision_and_one_number_of_steps(
    fp16: ModelProto, fp32: ModelProto, tmp_path: Path
) -> None:
    write_onnx(tmp_path / "half.onnx", fp16)
    with pytest.raises(BadInput, match=r"half.onnx is fp16; give the fp32 model, all precisions are estimated"):
        graph_of(str(tmp_path / "half.onnx"))
    write_onnx(tmp_path / "full.onnx", fp32)
    with pytest.raises(SpecMismatch, match="runs 2 steps, asked for 3; export it with --steps 3"):
        graph_of(str(tmp_path / "full.onnx"), 3)
