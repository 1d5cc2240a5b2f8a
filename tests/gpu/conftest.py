"""Tests that need a CUDA device; without one they are skipped, and say what is missing.

python -m pytest tests/gpu -rs
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_network import TinyNetwork

from unblur.runtime.errors import DeviceError
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.tensorrt.cuda import Cuda
from unblur.runtime.tensorrt.cuda_ctypes import CtypesDevice
from unblur.runtime.tensorrt.cuda_driver import Device, probe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> Device:
    try:
        return probe()
    except DeviceError as error:
        pytest.skip(f"not run, since it needs a GPU: {error}")


@pytest.fixture(params=["pycuda", "ctypes"])
def cuda(request: pytest.FixtureRequest, device: Device) -> Iterator[Cuda]:
    """The GPU through each binding that is installed, its context current in the test's thread."""
    opened = open_with(request.param, device)
    with opened.current():
        yield opened


def open_with(binding: str, device: Device) -> Cuda:
    if binding == "ctypes":
        return CtypesDevice(device)
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("not run, since the package pycuda is not installed")
    from unblur.runtime.tensorrt.cuda_pycuda import PycudaDevice

    return PycudaDevice(device)


@pytest.fixture
def make_onnx(tmp_path: Path):  # type: ignore[no-untyped-def]
    """`make_onnx("int8")` -> path of an .onnx file of a tiny network of 2 steps."""
    return lambda precision: TinyNetwork(precision).write(tmp_path / f"{precision}.onnx")


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    """96 x 160, of what deblurring meets."""
    return golden_frame()
