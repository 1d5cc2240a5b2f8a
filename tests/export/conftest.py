"""A small LPRN with random weights and its exports, made once a session: an export takes seconds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from unblur.export.onnx_from_checkpoint import onnx_from_network
from unblur.export.precision import fp16_from_fp32
from unblur.train.networks import DeblurringNetwork, build_network


def small_network(**options: bool | int | float | str) -> DeblurringNetwork:
    """lprn-s at width 8, one block, two steps; the last convolution is not zero as in a fresh network."""
    torch.manual_seed(0)
    network = build_network("lprn-s", **{"width": 8, "blocks": 1, "steps": 2, **options})
    for parameter in network.reconstruct.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    return network.eval()


@pytest.fixture(scope="session")
def make_network() -> Callable[..., DeblurringNetwork]:
    return small_network


@pytest.fixture(scope="session")
def network() -> DeblurringNetwork:
    return small_network()


@pytest.fixture(scope="session")
def fp32(network: DeblurringNetwork) -> ModelProto:
    return onnx_from_network(network)


@pytest.fixture(scope="session")
def fp16(fp32: ModelProto) -> ModelProto:
    return fp16_from_fp32(fp32)


@pytest.fixture(scope="session")
def photographs() -> list[NDArray[np.float32]]:
    """Photographs that come with scikit-image, float32 (1, 3, 128, 192) in [0, 1]."""
    from skimage import data

    crops = (picture[40:168, 60:252] for picture in (data.astronaut(), data.coffee(), data.chelsea()))
    return [np.ascontiguousarray(crop.transpose(2, 0, 1)[None] / np.float32(255), np.float32) for crop in crops]
