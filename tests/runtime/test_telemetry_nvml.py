"""NVIDIA's own Python package against a management library that is compiled from tests/fakes/libnvidia-ml.c."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.sensors import Channel
from unblur.runtime.machine.telemetry import open_nvml

pynvml = pytest.importorskip("pynvml", reason="NVML is not tested: pip install nvidia-ml-py")
SOURCE = Path(__file__).parents[1] / "fakes" / "libnvidia-ml.c"


@pytest.fixture(scope="session")
def library_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (gcc or clang) to compile a management library with")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


@pytest.fixture
def library(library_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """What nvidia-ml-py talks to; whatever a test does, at its end it is shut down."""
    loaded = ctypes.CDLL(str(library_file))
    monkeypatch.setattr(pynvml, "nvmlLib", loaded)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield loaded
    assert loaded.nvmlFakeRunning() == 0


def test_what_a_gpu_tells(library: ctypes.CDLL) -> None:
    nvml = open_nvml()
    before, after = nvml.read(), nvml.read()
    energy = Channel("energy_j", "GPU board 0")
    assert after[energy] - before[energy] == pytest.approx(100.0)
    assert {channel: value for channel, value in after.items() if channel != energy} == {
        Channel("temperature_c", "GPU 0"): 62,
        Channel("clocks_mhz", "GPU 0"): 2520,
        Channel("clocks_mhz", "GPU 0 memory"): 10501,
        Channel("load_percent", "GPU 0"): 97.0,
        Channel("throttled_percent", "GPU 0 power cap"): 100.0,
        Channel("throttled_percent", "GPU 0 thermal"): 100.0,
        Channel("throttled_percent", "GPU 0 power brake"): 0.0,
    }
    nvml.close()


def test_an_older_gpu_tells_its_power_instead(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_OLD", "1")
    nvml = open_nvml()
    values = nvml.read()
    assert values[Channel("power_w", "GPU board 0")] == 72.5
    assert values[Channel("temperature_c", "GPU 0")] == 61
    assert Channel("energy_j", "GPU board 0") not in values
    nvml.close()


def test_a_gpu_that_is_lost_while_it_is_read(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = open_nvml()
    monkeypatch.setenv("FAKE_NVML_LOST", "1")
    with pytest.raises(DeviceError, match=r"^NVML failed: GPU is lost$"):
        nvml.read()
    nvml.close()


def test_a_gpu_that_is_lost_before(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_LOST", "1")
    with pytest.raises(DeviceError, match=r"^NVML failed: GPU is lost$"):
        open_nvml()


def test_a_driver_that_is_not_loaded(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_INIT", "9")
    with pytest.raises(DeviceError, match=r"^NVML failed: Driver Not Loaded$"):
        open_nvml()


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "unblur.runtime.machine.nvml", raising=False)
    with pytest.raises(DeviceError, match=r"^nvidia-ml-py is not installed: pip install 'unblur\[telemetry\]'$"):
        open_nvml()
