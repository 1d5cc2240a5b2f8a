"""A small LPRN with random weights and its exports, made once a session: an export takes seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from unblur.calibration.images import find_sample
from unblur.export import deployment, source_model
from unblur.export.fp16 import fp16_from_fp32
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.blur import shake_frame
from unblur.runtime.frames import Frame
from unblur.runtime.images import write_image
from unblur.train.checkpoint import save_checkpoint
from unblur.train.networks import DeblurringNetwork, build_network
from unblur.train.recipe import RECIPES

PLAIN: dict[str, bool | int | float | str] = {
    "base": "plain", "width": 8, "blocks": 1, "steps": 2, "attention": "both"
}  # fmt: skip


def small_network(**options: bool | int | float | str) -> DeblurringNetwork:
    """A plain base of width 8, every gate, two steps; the last convolution is not zero as in a fresh network."""
    torch.manual_seed(0)
    network = build_network("lprn-s", **{**PLAIN, **options})
    for parameter in network.reconstruct.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    network.training_data = ("made up",)
    return network.eval()


@pytest.fixture(scope="session")
def make_network() -> Callable[..., DeblurringNetwork]:
    return small_network


@pytest.fixture(scope="session")
def network() -> DeblurringNetwork:
    return small_network()


@pytest.fixture(scope="session")
def checkpoint(network: DeblurringNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(path, network, RECIPES["lprn"], network.training_data)
    return path


@pytest.fixture(scope="session")
def stepped_bundle(calibration_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network of four recursion steps, with variants at each."""
    folder = tmp_path_factory.mktemp("stepped")
    network = small_network(steps=4)
    save_checkpoint(folder / "small.safetensors", network, RECIPES["lprn"], network.training_data)
    plan = deployment.DeployPlan(
        source_model.find_source(str(folder / "small.safetensors")),
        find_sample(calibration_folder),
        keep_failed=True,
    )
    return deployment.deploy(plan, folder / "stepped.unblur").bundle


@pytest.fixture(scope="session")
def exports(network: DeblurringNetwork) -> dict[int, ModelProto]:
    """The export at one step and at the network's own two."""
    return {steps: onnx_from_network(network.at_steps(steps)) for steps in (1, 2)}


@pytest.fixture
def quick_export(exports: dict[int, ModelProto], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that are there already, where a test is not about exporting."""
    monkeypatch.setattr(source_model, "onnx_from_network", lambda network: exports[network.steps])


@pytest.fixture(scope="session")
def fp32(exports: dict[int, ModelProto]) -> ModelProto:
    return exports[2]


@pytest.fixture(scope="session")
def fp16(fp32: ModelProto) -> ModelProto:
    return fp16_from_fp32(fp32)


@pytest.fixture(scope="session")
def calibration_folder(photographs: list[NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs as PNG files."""
    folder = tmp_path_factory.mktemp("calibration")
    for index, photograph in enumerate(photographs):
        write_image(folder / f"{index}.png", _frame(photograph))
    return folder


@pytest.fixture(scope="session")
def pairs_folder(photographs: list[NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the photographs, shaken and sharp; sizes that need padding."""
    folder = tmp_path_factory.mktemp("pairs")
    for side in ("blur", "sharp"):
        (folder / side).mkdir()
    for index, photograph in enumerate(photographs[:2]):
        sharp = np.ascontiguousarray(_frame(photograph)[: 121 - index, :150])
        blurred = shake_frame(sharp, np.random.default_rng(index), 9.0)
        write_image(folder / "blur" / f"{index}.png", blurred)
        write_image(folder / "sharp" / f"{index}.png", sharp)
    return folder


def _frame(batch: NDArray[np.float32]) -> Frame:
    return np.asarray(np.rint(batch[0].transpose(1, 2, 0) * 255), np.uint8)


@pytest.fixture(scope="session")
def photographs() -> list[NDArray[np.float32]]:
    """Photographs that come with scikit-image, float32 (1, 3, 128, 192) in [0, 1]."""
    from skimage import data

    crops = (picture[40:168, 60:252] for picture in (data.astronaut(), data.coffee(), data.chelsea()))
    return [np.ascontiguousarray(crop.transpose(2, 0, 1)[None] / np.float32(255), np.float32) for crop in crops]
