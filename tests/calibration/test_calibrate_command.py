import json
import sys
from pathlib import Path

import pytest
import typer
from onnx import ModelProto
from typer.testing import CliRunner, Result

from unblur.calibration.cli import register
from unblur.calibration.onnx_file import describe, precision_of, read_onnx, spec_of, write_onnx
from unblur.runtime.errors import BadInput, CalibrationError, MissingExtra, SpecMismatch


def _calibrate(*arguments: str | Path) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_json_is_the_only_thing_on_stdout(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    output, table = tmp_path / "int8.onnx", tmp_path / "table.json"
    result = _calibrate(fp32_file, "--images", pictures, "-o", output, "--table", table, "--json")
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert (report["method"], report["images"], report["tensors"]) == ("minmax", 3, 2)
    assert abs(report["delta_db"]) < 0.1
    assert report["parity_db"] > 45
    assert report["bytes"] == output.stat().st_size
    assert report["peak_rss_mb"] > 20
    assert report["seconds"] > 0
    assert precision_of(read_onnx(output)) == "int8"
    assert list(json.loads(table.read_text())["images"]) == ["a.png", "b.png", "c.png"]


def test_people_get_a_sentence(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx", "--blur")
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    assert "2 activations calibrated on 3 pictures" in " ".join(result.stderr.split())


def test_a_method_of_a_later_version_is_refused_with_the_list(
    fp32_file: Path, pictures: Path, tmp_path: Path
) -> None:
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "x.onnx", "--method", "entropy")
    assert isinstance(result.exception, BadInput)
    assert str(result.exception) == "unknown method 'entropy'; this version has: minmax"


@pytest.mark.parametrize("fault", ["no model", "damaged model", "foreign model", "fp16 model", "no pictures"])
def test_bad_input_leaves_no_file(
    fault: str, fp32: ModelProto, fp32_file: Path, pictures: Path, tmp_path: Path
) -> None:
    expected: type[Exception] = BadInput
    if fault == "no model":
        fp32_file.unlink()
    elif fault == "damaged model":
        fp32_file.write_bytes(fp32_file.read_bytes()[:200])
    elif fault == "foreign model":
        expected = SpecMismatch
        foreign = ModelProto()
        foreign.CopyFrom(fp32)
        del foreign.metadata_props[:]
        write_onnx(fp32_file, foreign)
    elif fault == "fp16 model":
        expected = CalibrationError
        half = ModelProto()
        half.CopyFrom(fp32)
        describe(half, spec_of(fp32), "fp16")
        write_onnx(fp32_file, half)
    else:
        for picture in pictures.iterdir():
            picture.unlink()
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx")
    assert isinstance(result.exception, expected)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.glob("*int8*"))
    assert not list(tmp_path.glob(".*"))


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    fp32_file: Path, pictures: Path, tmp_path: Path
) -> None:
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "missing" / "int8.onnx")
    assert isinstance(result.exception, BadInput)
    assert "cannot write" in str(result.exception)


def test_without_onnx_the_extra_is_named(
    fp32_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("unblur.calibration.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx")
    assert isinstance(result.exception, MissingExtra)
    assert "pip install 'unblur[export]'" in str(result.exception)
