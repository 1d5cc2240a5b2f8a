import json
from pathlib import Path

import pytest
from made_up_tables import made_up_table
from typer.testing import CliRunner, Result

from unblur.calibration.onnx_model import read_onnx, write_onnx
from unblur.calibration.table import check_fits
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.calibration_table import read_table


@pytest.fixture
def table(fp32_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(made_up_table(read_onnx(fp32_file)).to_json())
    return path


def _table(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["table", *map(str, arguments)])


def test_to_cache_and_back(table: Path, fp32_file: Path, tmp_path: Path) -> None:
    cache, back = tmp_path / "calibration.cache", tmp_path / "back.json"
    done = _table("to-cache", table, "-o", cache, "--tensorrt", "8.6.1", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == {
        "cache": str(cache),
        "header": "TRT-8601-EntropyCalibration2",
        "tensors": 6,
    }
    assert cache.read_text().startswith("TRT-8601-EntropyCalibration2\nfeatures1: ")
    done = _table("from-cache", cache, "--model", fp32_file, "-o", back, "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == {"table": str(back), "tensors": 2, "excluded": ["embed.w", "tail.w"]}
    assert list(read_table(back).ranges) == list(read_table(table).ranges)


def test_a_min_max_calibrator_has_its_own_header(table: Path, tmp_path: Path) -> None:
    assert _table("to-cache", table, "-o", tmp_path / "c", "--minmax").exit_code == 0
    assert (tmp_path / "c").read_text().startswith("TRT-100300-MinMaxCalibration\n")


def test_tables_that_agree_exit_with_0_and_others_with_1(table: Path, tmp_path: Path) -> None:
    assert _table("diff", table, table).exit_code == 0
    other = tmp_path / "other.json"
    document = json.loads(table.read_text())
    document["ranges"]["features1"]["amax"] *= 1.25
    document["preset"] = "[b]other"
    other.write_text(json.dumps(document))
    shown = _table("diff", table, other)
    assert shown.exit_code == 1
    assert "preset: tiny -> [b]other" in shown.stdout
    assert "(+25.0 %)" in shown.stdout
    found = json.loads(_table("diff", table, other, "--json", "--percent", "30").stdout)
    assert found == {
        "settings": {"preset": ["tiny", "[b]other"]}, "only_in_first": [], "only_in_second": [], "moved": {},
    }  # fmt: skip


def test_a_table_is_bound_to_tuned_weights(table: Path, fp32_file: Path, tmp_path: Path) -> None:
    tuned, output = read_onnx(fp32_file), tmp_path / "tuned.json"
    tuned.graph.initializer[0].raw_data = bytes(len(tuned.graph.initializer[0].raw_data))
    write_onnx(tmp_path / "tuned.onnx", tuned)
    done = _table("bind", table, "--model", tmp_path / "tuned.onnx", "-o", output, "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == {"table": str(output), "model_sha256": tuned.sha256}
    check_fits(read_table(output), tuned)


def test_what_cannot_be_used_leaves_no_file(table: Path, fp32_file: Path, tmp_path: Path) -> None:
    cache, output = tmp_path / "c.txt", tmp_path / "out"
    cache.write_text("TRT-8XXX-EntropyCalibration2\n")
    for done, kind in (
        (_table("from-cache", cache, "--model", fp32_file, "-o", output), CalibrationError),
        (_table("to-cache", cache, "-o", output), CalibrationError),
        (_table("to-cache", table, "-o", output, "--tensorrt", "11.0"), BadInput),
    ):
        assert isinstance(done.exception, kind)
        assert "\n" not in str(done.exception)
        assert not output.exists()
