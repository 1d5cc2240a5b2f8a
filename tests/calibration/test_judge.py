from pathlib import Path

from onnx import ModelProto

from unblur.calibration.judge import measure_cost
from unblur.calibration.observe import Range
from unblur.calibration.onnx_file import write_onnx
from unblur.calibration.placement import place
from unblur.calibration.quantize import insert_qdq, quantize_minmax
from unblur.calibration.sample import find_sample
from unblur.runtime.onnx_runner import OnnxRunner


def test_a_model_loses_nothing_against_itself(fp32_file: Path, pictures: Path) -> None:
    with OnnxRunner(fp32_file) as reference, OnnxRunner(fp32_file) as candidate:
        cost = measure_cost(reference, candidate, find_sample(pictures))
    assert cost.delta_db == 0
    assert cost.parity_db == float("inf")
    assert cost.pictures == 3


def test_int8_costs_something_and_little(fp32: ModelProto, fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    write_onnx(tmp_path / "int8.onnx", quantize_minmax(fp32, find_sample(pictures)).model)
    counted: list[None] = []
    with OnnxRunner(fp32_file) as reference, OnnxRunner(tmp_path / "int8.onnx") as candidate:
        cost = measure_cost(reference, candidate, find_sample(pictures), lambda: counted.append(None))
    assert 0 < abs(cost.delta_db) < 0.1
    assert 45 < cost.parity_db < 90
    assert len(counted) == 3


def test_a_broken_table_is_seen(fp32: ModelProto, fp32_file: Path, pictures: Path, tmp_path: Path) -> None:
    """Ranges far too narrow clip the activations, and the judge must see it."""
    narrow = dict.fromkeys(place(fp32).activations, Range(0.0, 0.05))
    write_onnx(tmp_path / "clipped.onnx", insert_qdq(fp32, place(fp32), narrow))
    with OnnxRunner(fp32_file) as reference, OnnxRunner(tmp_path / "clipped.onnx") as candidate:
        cost = measure_cost(reference, candidate, find_sample(pictures))
    assert cost.parity_db < 40
