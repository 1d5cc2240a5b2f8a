import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import unblur.export
from unblur.calibration.onnx_model import read_onnx
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, ParityError, SpecMismatch
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.quality.tolerances import TOLERANCES, Tolerance


def _unblur(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_export_tells_nodes_bytes_and_parity(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    result = _unblur("export", checkpoint, "-o", output, "--steps", "1", "--json")
    assert result.exit_code == 0, result.exception
    model = read_onnx(output)
    report = json.loads(result.stdout)
    assert report == {
        "nodes": len(model.graph.node),
        "bytes": output.stat().st_size,
        "parity_db": pytest.approx(150, abs=60),
    }
    assert (model.spec.steps, model.precision) == (1, "fp32")


@pytest.mark.usefixtures("quick_export")
def test_export_in_fp16_tells_people_in_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    result = _unblur("export", checkpoint, "-o", tmp_path / "half.onnx", "--precision", "fp16")
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    assert "fp16, 2 steps" in " ".join(result.stderr.split())
    assert read_onnx(tmp_path / "half.onnx").precision == "fp16"


@pytest.mark.usefixtures("quick_export")
def test_an_export_that_differs_from_torch_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES["ledger"], "fp32", Tolerance(1000.0, 12, 1000.0))
    result = _unblur("export", checkpoint, "-o", tmp_path / "model.onnx", "--steps", "1")
    assert isinstance(result.exception, ParityError)
    assert "the export differs from torch" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_deploy_prints_the_ledger_as_json(
    checkpoint: Path, calibration_folder: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "small.unblur"
    result = _unblur(
        *("deploy", checkpoint, "--calibration", calibration_folder, "-o", output),
        *("--pairs", pairs_folder, "--steps", "", "--synthetic-blur", "--json"),
    )
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["bundle"] == str(output)
    assert report["pass"] is True
    assert [hop["name"] for hop in report["hops"]] == ["torch -> fp32", "fp32 -> fp16", "fp16 -> int8"]
    assert all(hop["psnr_db"] >= hop["threshold_db"] for hop in report["hops"])
    assert [variant["precision"] for variant in report["variants"]] == ["fp32", "fp16", "int8"]
    assert report["blurred_db"] > 10
    assert report["int8"]["macs"] > 0.99
    assert report["int8"]["excluded"] == []
    assert json.loads((output / "calibration.json").read_text())["preprocessing"]["blurred"] is True
    read_bundle(output)


@pytest.mark.usefixtures("quick_export")
def test_too_little_int8_is_warned_of(
    checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unblur.export.report import data

    monkeypatch.setattr(data, "LOW_INT8_MACS", 1.01)
    files = ("--calibration", calibration_folder, "-o", tmp_path / "small.unblur", "--steps", "")
    result = _unblur("deploy", checkpoint, *files, "--max-images", "2", "--sensitivity", "--method", "mse")
    assert result.exit_code == 0, result.exception
    told = " ".join(result.stderr.split())
    assert re.search(r"INT8 does 9\d\.\d% of the multiply-accumulates and changes PSNR by [+-]0\.\d+ dB", told)
    assert re.search(r"warning: only \d+% of the multiply-accumulates run in INT8", told)
    page = (tmp_path / "small.unblur" / "report.html").read_text()
    assert "What each layer costs in INT8" in page
    assert "2 of 3 images" in page


@pytest.mark.usefixtures("quick_export")
def test_a_failed_deploy_exits_with_1_and_still_tells_the_hops(
    checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES["ledger"], "int8", Tolerance(500.0, 12, 500.0))
    arguments = ("deploy", checkpoint, "--calibration", calibration_folder, "-o", tmp_path / "small.unblur")
    result = _unblur(*arguments, "--steps", "", "--json")
    assert isinstance(result.exception, ParityError)
    assert result.exception.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["bundle"], report["pass"]) == (None, False)
    assert "expected at least 500 dB" in report["hops"][2]["reason"]
    assert list(tmp_path.iterdir()) == []
    kept = _unblur(*arguments, "--steps", "", "--keep-failed")
    assert kept.exit_code == 1
    assert "expected at" in kept.stdout
    read_bundle(tmp_path / "small.unblur")


@pytest.mark.parametrize(
    ("preset", "error", "message"),
    [
        ("lprn-zz", BadInput, "no weights ship for 'lprn-zz'"),
        ("none.safetensors", BadInput, r"none\.safetensors does not exist"),
        ("text.safetensors", BadInput, "is not a whole safetensors file"),
    ],
)
@pytest.mark.parametrize("command", ["export", "deploy"])
def test_a_preset_that_cannot_be_used_is_one_line(
    command: str,
    preset: str,
    error: type[Exception],
    message: str,
    calibration_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("not weights")
    options = ["--calibration", calibration_folder, "-o", "x.unblur"] if command == "deploy" else ["-o", "x.onnx"]
    result = _unblur(command, preset, *options)
    assert isinstance(result.exception, error)
    assert result.exception.exit_code == 2
    with pytest.raises(error, match=message):
        raise result.exception
    assert "\n" not in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["text.safetensors"]


def test_weights_that_do_not_fit_their_preset_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(checkpoint, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if "spatial" not in name}  # noqa: SIM118
        save_file(tensors, tmp_path / "other.safetensors", file.metadata())
    result = _unblur("export", tmp_path / "other.safetensors", "-o", tmp_path / "model.onnx")
    assert isinstance(result.exception, SpecMismatch)
    assert "does not fit preset 'lprn-s'" in str(result.exception)


def test_steps_that_are_no_numbers_are_refused(checkpoint: Path, calibration_folder: Path, tmp_path: Path) -> None:
    result = _unblur(
        *("deploy", checkpoint, "--calibration", calibration_folder),
        *("-o", tmp_path / "x.unblur", "--steps", "1;2"),
    )
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith("--steps is '1;2', expected numbers with commas")


def test_no_calibration_pictures_is_told(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = _unblur("deploy", checkpoint, "--calibration", tmp_path / "empty", "-o", tmp_path / "x.unblur")
    assert isinstance(result.exception, BadInput)
    assert "empty holds no images" in str(result.exception)


_WITHOUT_TORCH = """
import sys
sys.modules.update(torch=None, onnx=None, onnxsim=None)
from unblur.runtime.cli.main import main
main()
"""


@pytest.mark.parametrize("command", ["export", "deploy", "report"])
def test_without_torch_the_extra_is_named(command: str) -> None:
    finished = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH, command], capture_output=True, text=True)
    assert finished.returncode == 2
    assert finished.stderr.startswith("unblur: this command needs the Python package 'onnx")
    assert finished.stderr.endswith("pip install 'unblur[export]'\n")


def test_the_front_door_names_what_is_there_and_imports_nothing_heavy() -> None:
    code = "import sys, unblur.export as room; print(*room.__all__); print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = finished.stdout.splitlines()
    assert heavy == "False"
    assert names.split() == sorted(unblur.export.__all__)
    assert len(unblur.export.__all__) < 10
    for name in unblur.export.__all__:
        assert getattr(unblur.export, name).__name__ == name
    assert set(unblur.export.__all__) <= set(dir(unblur.export))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        unblur.export.nothing  # noqa: B018
