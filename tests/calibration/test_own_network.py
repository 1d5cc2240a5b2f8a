"""Networks from elsewhere in this room: their own values, opsets and channels, and what of a graph is kept."""

from pathlib import Path

import foreign_networks as foreign
import numpy as np
import pytest
from onnx import save_model

from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Settings, calibrate
from unblur.calibration.onnx_model import read_onnx
from unblur.runtime.images import write_image
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.spec import SpecOverrides


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images with levels from 51 to 204."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for seed in (0, 1):
        frame = np.random.default_rng(seed).integers(51, 205, (48, 64, 3), np.uint8)
        write_image(tmp_path / f"images/{seed}.png", frame)
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("stated", "lowest", "highest"),
    [
        (SpecOverrides(value_range=(0.0, 1.0)), 0.2, 0.8),
        (SpecOverrides(value_range=(-1.0, 1.0)), -0.6, 0.6),
        (SpecOverrides(value_range=(0.0, 255.0)), 51.0, 204.0),
        (SpecOverrides(value_range=(0.0, 1.0), mean=(0.5, 0.4, 0.3), std=(0.5, 0.4, 0.2)), -0.6, 2.5),
        (SpecOverrides(value_range=(0.0, 1.0), mean=(0.5, 0.4, 0.3), std=(0.5, 0.4, 0.2), colour="BGR"), -0.6, 2.5),
    ],
    ids=str,
)
def test_ranges_are_those_of_the_networks_own_values(
    stated: SpecOverrides, lowest: float, highest: float, images: Path, tmp_path: Path
) -> None:
    made = calibrate(
        read_onnx(foreign.write(foreign.plain, tmp_path), stated), find_sample(images), Settings(budget_db=9)
    )
    seen = made.table.ranges["image"]
    assert (seen.lowest, seen.highest) == pytest.approx((lowest, highest), abs=1e-4)
    assert made.cost.parity_db > 30


def test_a_graph_for_one_channel_restores_rgb(tmp_path: Path) -> None:
    path = foreign.write(foreign.grey, tmp_path)
    model = read_onnx(path)
    batch = np.random.default_rng(1).uniform(0, 1, (2, 3, 8, 12)).astype(np.float32)
    with OnnxRunner(path) as runner:
        np.testing.assert_allclose(model.restore(model.session(), batch), runner.infer(batch), atol=1e-6)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1] == 3
    assert model.spec.colour == "RGB"


def test_only_what_the_output_needs_is_kept(tmp_path: Path) -> None:
    model = read_onnx(foreign.write(foreign.three_outputs, tmp_path))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Add"]
    assert len(model.graph.initializer) == 1


@pytest.mark.parametrize("opset", [11, 13, 17, 19, 23])
def test_opsets_are_converted_to_what_int8_with_float16_takes(opset: int, tmp_path: Path) -> None:
    path, model = tmp_path / "net.onnx", foreign.plain()
    model.opset_import[0].version = opset  # its operators are the same in all
    save_model(model, path)
    assert read_onnx(path).proto.opset_import[0].version == max(opset, 19)
