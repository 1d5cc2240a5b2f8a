"""What the options of the GANs add to a graph: attention over any size, edges, feedback; all legal for TensorRT."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.calibration.placement import place
from unblur.export.engine_from_onnx import (
    BuildWatch,
    Target,
    engine_from_onnx,
    identify,
    profile_from_text,
    read_source,
)
from unblur.export.fp16 import fp16_from_fp32
from unblur.export.onnx_from_network import onnx_from_checkpoint
from unblur.export.trt_api import load_api
from unblur.runtime.metrics import psnr_float_db
from unblur.runtime.tensorrt.engine_file import BuildOptions
from unblur.train.checkpoint import save_checkpoint
from unblur.train.networks import DeblurringNetwork, build_network
from unblur.train.recipe import RECIPES

SMALL: Mapping[str, Mapping[str, int | bool]] = {
    "pix2pix-all": {"width": 8, "depth": 4},
    "deblurgan-edges": {"width": 8, "blocks": 1},
    "deblurgan-feedback": {"width": 8, "blocks": 1},
}


class Exported(NamedTuple):
    network: DeblurringNetwork
    model: OnnxModel

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        multiple = self.network.spec.multiple_of
        return rows * multiple, columns * multiple

    def restore(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            restored: NDArray[np.float32] = self.network(torch.from_numpy(images)).numpy()
        return restored


@pytest.fixture(scope="module", params=SMALL)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small network none of whose parts is zero, through a checkpoint; one training step moves its statistics."""
    torch.manual_seed(0)
    network = build_network(request.param, **SMALL[request.param])
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.03)
    network(torch.rand(2, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(path, network, RECIPES[network.spec.system], ())
    return Exported(network.eval(), onnx_from_checkpoint(path))


@pytest.mark.parametrize("multiples", [(1, 1), (3, 2)])
def test_any_size_gives_what_torch_gives(exported: Exported, multiples: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((2, 3, *exported.size(*multiples)), np.float32)
    restored, expected = _run(exported.model, images), exported.restore(images)
    assert psnr_float_db(expected, images) < 60  # the network did something
    assert psnr_float_db(restored, expected) >= 80


def test_fp16_loses_nothing_that_is_seen(exported: Exported, photographs: list[NDArray[np.float32]]) -> None:
    restored = _run(fp16_from_fp32(exported.model), photographs[0])
    assert psnr_float_db(restored, exported.restore(photographs[0])) >= 55


def _run(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = model.session()
    restored: NDArray[np.float32] = session.run(None, {"blurred": images})[0]
    return restored


def test_the_graph_is_unrolled(exported: Exported) -> None:
    assert not {"Loop", "If", "Scan", "SequenceConstruct"} & {node.op_type for node in exported.model.graph.node}


def test_only_ends_and_gates_stay_out_of_int8(exported: Exported) -> None:
    placement = place(exported.model)
    assert set(placement.kept.values()) <= {"reads the image", "writes the image", "attention gate"}
    assert {"reads the image", "writes the image"} <= set(placement.kept.values())
    assert len(placement.quantized) > len(placement.kept) / 2


def test_tensorrt_builds_it(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="NO RTX ENGINE IS BUILT: pip install 'unblur[rtx]'")
    path = tmp_path / "fp16.onnx"
    write_onnx(path, fp16_from_fp32(exported.model))
    source, api = read_source(path), load_api("rtx")
    (low, _), (high, _) = exported.size(1, 1), exported.size(2, 2)
    profile = profile_from_text(f"{low}x{low}:{high}x{high}", source.spec.multiple_of)
    identity = identify(source, Target("rtx", 86), api, [profile], BuildOptions(level=0))
    assert engine_from_onnx(source, identity, api, BuildWatch()).engine
