"""docs/devices.md: in step with the one table of GPU rates, and true to what NVIDIA advertises."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs/device_floors.py"


@pytest.fixture(scope="module")
def floors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("device_floors", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["device_floors"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_in_step_with_the_rates(floors: ModuleType) -> None:
    text = floors.PAGE.read_text("utf-8")
    assert text == floors.page(text), "run docs/device_floors.py"


@pytest.mark.parametrize(
    ("name", "tops"),
    [
        ("Jetson Orin Nano 8GB", 20),  # advertised as 40 with sparsity
        ("Jetson Orin Nano 8GB Super", 33.5),
        ("T4", 130),
        ("RTX 3060", 102),
        ("RTX 4090", 661),
        ("RTX 5090", 838),
        ("H200", 1979),
    ],
)
def test_int8_rates_are_those_that_are_advertised(floors: ModuleType, name: str, tops: float) -> None:
    (gpu,) = (gpu for gpu in floors.GPUS if gpu.name == name)
    assert floors.GFLOP / floors.floor_ms(gpu, "int8") == pytest.approx(tops, rel=0.03)


def test_a_gpu_without_int8_units_has_no_floor_for_it(floors: ModuleType) -> None:
    assert floors.floor_ms(floors.GPUS[0], "int8") is None
    assert "| Jetson Nano | 53 | 1 x 921.6 | 424 | 212 | - |" in floors.table()
