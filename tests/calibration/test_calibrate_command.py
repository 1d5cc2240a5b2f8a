import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from unblur.calibration import int8_from_fp32 as room
from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Settings
from unblur.calibration.onnx_model import OnnxModel, described, onnx_bytes, read_onnx, write_onnx
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, CalibrationError, MissingExtra, SpecMismatch, UnblurError
from unblur.runtime.images import image_size_hw


def _calibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_json_is_the_only_thing_on_stdout(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    output, table, plot = (tmp_path / name for name in ("int8.onnx", "table.json", "plot.png"))
    files = ("-o", output, "--table", table, "--sensitivity", plot)
    result = _calibrate(fp32_file, "--images", pictures, *files, "--json")
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert (report["images"], report["tensors"]) == (3, 2)
    losses_db = report["method_losses_db"]
    assert set(losses_db) == {"minmax", "percentile", "entropy", "mse"}
    assert losses_db[report["method"]] == min(losses_db.values())
    assert abs(report["delta_db"]) < 0.1
    assert report["worst_db"] <= report["delta_db"]
    assert report["parity_db"] > 45
    assert report["bytes"] == output.stat().st_size
    assert report["peak_rss_mb"] > 20
    assert report["seconds"] > 0
    assert report["int8_macs"] == pytest.approx(0.5714, abs=1e-4)  # 8 x 8 of 3 x 8 + 8 x 8 + 8 x 3
    assert [layer["layer"] for layer in report["sensitivity"]["layers"]] == ["body.w"]
    assert set(report["sensitivity"]["sqnr_db"]) == {"features1", "features2"}
    assert read_onnx(output).precision == "int8"
    assert list(json.loads(table.read_text())["images"]) == ["a.png", "b.png", "c.png"]
    assert image_size_hw(plot)[1] > 600


def test_people_get_a_sentence(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    options = ("--synthetic-blur", "--method", "entropy", "--budget-db", "1", "--exclude", "embed*")
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx", *options)
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    told = " ".join(result.stderr.split())
    assert "INT8 in 78.6% of the multiply-accumulates, 1 layers left out" in told
    assert "4 activations calibrated by entropy on 3 images" in told


def test_a_foreign_model_is_calibrated_and_carries_the_spec_that_was_found(
    fp32: OnnxModel, pictures: Path, tmp_path: Path
) -> None:
    foreign = fp32.copied()
    del foreign.metadata_props[:]
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(foreign))
    options = ("-o", tmp_path / "int8.onnx", "--explain", "--budget-db", "1")
    result = _calibrate(tmp_path / "net.onnx", "--images", pictures, *options)
    assert result.exit_code == 0, result.exception
    made = read_onnx(tmp_path / "int8.onnx")
    assert (made.spec.system, made.spec.preset, made.precision) == ("foreign", "net", "int8")
    explained = [line for line in result.stderr.splitlines() if "alone in INT8, most on" in line]
    assert {line.split(":")[0].strip() for line in explained} == {"embed.w", "body.w", "tail.w"}
    assert ".png (" in explained[0]


def test_a_stopped_run_goes_on_from_its_state(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    state, int8 = tmp_path / "seen.npz", tmp_path / "int8.onnx"
    seen = Settings(method="entropy", implicit=False, state=state)
    room.calibrate(read_onnx(fp32_file), find_sample(pictures), seen)
    command = (fp32_file, "--images", pictures, "-o", int8, "--state", state)
    refused = _calibrate(*command, "--method", "minmax").exception
    assert isinstance(refused, CalibrationError)
    assert "was saved by another observation" in str(refused)
    assert _calibrate(*command, "--method", "mse").exit_code == 0
    assert not state.exists()


def test_a_few_pictures_that_cover_the_others_at_the_deployment_size(
    fp32_file: Path, pictures: Path, tmp_path: Path
) -> None:
    options = (
        "-o",
        tmp_path / "int8.onnx",
        "--table",
        tmp_path / "table.json",
        "--max-images",
        "2",
        "--size",
        "32x40",
    )
    result = _calibrate(fp32_file, "--images", pictures, *options, "--json")
    assert result.exit_code == 0, result.exception
    coverage = json.loads(result.stdout)["coverage"]
    assert (coverage["pictures"], coverage["picked"]) == (3, 2)
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table["images"]) == 2
    assert table["preprocessing"]["size_hw"] == [32, 40]
    told = _calibrate(fp32_file, "--images", pictures, *options).stderr
    assert "the 2 chosen of 3 images span" in " ".join(told.split())


def test_a_table_chooses_the_layers_alone(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    options = ("--from-table", tmp_path / "table.json", "--budget-db", "1")
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx", *options)
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).endswith("says which layers are INT8; leave out --exclude and --budget-db")
    explained = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx", *options[:2], "--explain")
    assert str(explained.exception).endswith("has chosen them: leave it out")


def test_a_size_that_is_none_is_refused(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    result = _calibrate(fp32_file, "--images", pictures, "-o", tmp_path / "int8.onnx", "--size", "720")
    assert str(result.exception) == "--size is '720', expected height x width such as 720x1280"


def test_a_table_takes_the_place_of_observing(fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    first, second, table = (tmp_path / name for name in ("1.onnx", "2.onnx", "table.json"))
    options = ("--method", "percentile", "--percentile", "99", "--budget-db", "1")
    made = _calibrate(fp32_file, "--images", pictures, "-o", first, "--table", table, *options)
    again = _calibrate(fp32_file, "--images", pictures, "-o", second, "--from-table", table)
    assert (made.exit_code, again.exit_code) == (0, 0), again.exception
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "fault",
    ["no model", "damaged model", "classifier", "fp16 model", "no pictures", "no table", "no such layer"],
)
def test_bad_input_leaves_no_file(
    fault: str, fp32: OnnxModel, fp32_file: Path, pictures: Path, tmp_path: Path
) -> None:
    expected: type[UnblurError] = BadInput
    more: tuple[str | Path, ...] = ()
    if fault == "no model":
        fp32_file.unlink()
    elif fault == "damaged model":
        fp32_file.write_bytes(fp32_file.read_bytes()[:200])
    elif fault == "classifier":
        expected = SpecMismatch
        foreign = fp32.copied()
        del foreign.metadata_props[:]
        foreign.graph.output[0].name = "pool2"
        fp32_file.write_bytes(onnx_bytes(foreign))
    elif fault == "fp16 model":
        expected = CalibrationError
        write_onnx(fp32_file, described(fp32.copied(), fp32.spec, "fp16"))
    elif fault == "no table":
        more = ("--from-table", tmp_path / "missing.json")
    elif fault == "no such layer":
        expected, more = CalibrationError, ("--exclude", "nothing*")
    else:
        for picture in pictures.iterdir():
            picture.unlink()
    int8 = tmp_path / "int8.onnx"
    files = ("-o", int8, "--table", int8.with_suffix(".json"), "--sensitivity", int8.with_suffix(".png"))
    result = _calibrate(fp32_file, "--images", pictures, *files, *more)
    assert isinstance(result.exception, expected)
    assert result.exception.exit_code == 2
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.glob("*int8*"))
    assert not list(tmp_path.glob(".*"))


def test_a_budget_that_no_choice_keeps_to_tells_the_best_and_writes_nothing(
    trained: Path, photographs: Path, tmp_path: Path
) -> None:
    clipping = ("--method", "percentile", "--percentile", "80", "--exclude", "body.*", "--exclude", "reconstruct.*")
    files = ("-o", tmp_path / "int8.onnx", "--table", tmp_path / "int8.json")
    result = _calibrate(
        trained, "--images", photographs, "--synthetic-blur", *files, *clipping, "--budget-db", "0.01"
    )
    assert isinstance(result.exception, CalibrationError)
    assert result.exception.exit_code == 2
    message = (
        r"no choice .* keeps to a loss of 0.01 dB; the best reachable loses 0\.\d+ dB, with '(embed|head).weight'"
    )
    assert re.search(message, str(result.exception))
    assert list(tmp_path.iterdir()) == []


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
