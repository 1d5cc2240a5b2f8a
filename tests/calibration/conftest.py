"""A recursive network built by hand, so that tests of INT8 need no torch and every tensor has a known name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import calibrate
from unblur.calibration.onnx_model import OnnxModel, described, read_onnx, write_onnx
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.images import write_image
from unblur.runtime.model.open_model import find_model
from unblur.runtime.spec import ModelSpec
from unblur.train.networks import build_network

WIDTH = 8
SPEC = ModelSpec(system="test", preset="tiny", steps=2, multiple_of=2, receptive_field=8, pooling="none")


def _weights(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    shapes = {
        "embed": (WIDTH, 3, 3, 3),
        "body": (WIDTH, WIDTH, 3, 3),
        "gate": (WIDTH, WIDTH, 1, 1),
        "tail": (3, WIDTH, 3, 3),
    }
    tensors = {f"{name}.w": rng.normal(0, 0.15, shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.b": rng.normal(0, 0.02, shape[0]) for name, shape in shapes.items()}
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def _conv(name: str, source: str, step: int) -> NodeProto:
    kernel = 1 if name == "gate" else 3
    pads = [kernel // 2] * 4
    return helper.make_node(
        "Conv", [source, f"{name}.w", f"{name}.b"], [f"{name}{step}"], f"{name}_{step}", pads=pads
    )


def _step(step: int) -> list[NodeProto]:
    """One pass: embed the estimate, one residual block, a gate, the residual of the image."""
    estimate = f"estimate{step - 1}" if step > 1 else "blurred"
    return [
        _conv("embed", estimate, step),
        helper.make_node("Relu", [f"embed{step}"], [f"features{step}"], f"relu_{step}"),
        _conv("body", f"features{step}", step),
        helper.make_node("Add", [f"features{step}", f"body{step}"], [f"sum{step}"], f"add_{step}"),
        helper.make_node("GlobalAveragePool", [f"sum{step}"], [f"pool{step}"], f"pool_{step}"),
        _conv("gate", f"pool{step}", step),
        helper.make_node("Sigmoid", [f"gate{step}"], [f"sigmoid{step}"], f"sigmoid_{step}"),
        helper.make_node("Mul", [f"sum{step}", f"sigmoid{step}"], [f"scaled{step}"], f"mul_{step}"),
        _conv("tail", f"scaled{step}", step),
        helper.make_node(
            "Add", ["blurred", f"tail{step}"], [f"estimate{step}" if step < 2 else "restored"], f"residual_{step}"
        ),
    ]


@pytest.fixture(scope="session")
def fp32() -> OnnxModel:
    """Two steps with the same weights; "body" is the only convolution that should become INT8."""
    shape = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [node for step in (1, 2) for node in _step(step)],
        "tiny",
        [helper.make_tensor_value_info("blurred", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in _weights(np.random.default_rng(0)).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return described(model, SPEC, "fp32")


@pytest.fixture
def fp32_file(fp32: OnnxModel, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    write_onnx(path, fp32)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different, odd sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, size_hw in (("a", (33, 47)), ("b", (64, 40)), ("c", (50, 51))):
        Image.fromarray(rng.integers(0, 256, (*size_hw, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def trained() -> Path:
    """The smallest network that ships, fp32: what INT8 does to a random one says nothing about a loss."""
    return find_model("lprn-n") / "fp32.onnx"


@pytest.fixture(scope="session")
def stepped(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of four steps as fp32.onnx; beside it fp32-1.onnx, fp32-2.onnx and calibration.json."""
    torch.manual_seed(0)
    network = build_network("lprn", width=8, blocks=1, grid=4, steps=4).eval()
    torch.nn.init.normal_(network.get_submodule("reconstruct").weight, std=0.03)
    folder = tmp_path_factory.mktemp("stepped")
    for name, steps in (("fp32", 4), ("fp32-1", 1), ("fp32-2", 2)):
        write_onnx(folder / f"{name}.onnx", onnx_from_network(network.at_steps(steps)))
    made = calibrate(read_onnx(folder / "fp32.onnx"), find_sample(photographs, synthetic_blur=True))
    (folder / "calibration.json").write_text(made.table.to_json())
    return folder / "fp32.onnx"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two that come with scikit-image, small."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name, picture in {"cat": data.chelsea(), "cup": data.coffee()}.items():
        write_image(folder / f"{name}.png", np.ascontiguousarray(picture[100:228, 100:292]))
    return folder
