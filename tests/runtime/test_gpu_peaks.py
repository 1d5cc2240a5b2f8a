from dataclasses import replace

import pytest
from fake_cuda import COPY_MS, ORIN, FakeCuda

from unblur.runtime.errors import DeviceError
from unblur.runtime.profile import roofline as gpu_peaks
from unblur.runtime.profile.roofline import measure_gpu_peaks

MIB = 1 << 20


@pytest.fixture(autouse=True)
def orin_nx(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver says of one, which is no part of the seam; buffers that take no time to make."""
    monkeypatch.setattr(gpu_peaks, "_COPIED_BYTES", MIB)
    monkeypatch.setattr(gpu_peaks, "multiprocessors_and_mhz", lambda device: (8, 918.0))


def test_copies_are_measured_and_arithmetic_is_counted() -> None:
    cuda = FakeCuda(ORIN)
    peaks = measure_gpu_peaks(cuda)
    assert peaks.gbytes_per_s == pytest.approx(2 * MIB / COPY_MS / 1e6)
    assert peaks.gflops == pytest.approx({"fp32": 1880.064, "fp16": 15040.512, "int8": 30081.024})
    assert peaks.source == (
        "cuda:0 Orin: copies within its memory, measured; operations counted, not measured: 8 multiprocessors at "
        "918 MHz with the dense rates that NVIDIA publishes for SM 87"
    )
    assert cuda.live == set()


def test_a_lack_of_memory_leaves_nothing_behind() -> None:
    cuda = FakeCuda(ORIN, capacity=MIB + 100)
    with pytest.raises(DeviceError, match="no memory left"):
        measure_gpu_peaks(cuda)
    assert cuda.live == set()


def test_an_architecture_that_is_not_known_is_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:0 Orin does in a clock is not known for SM 37, only for 53, 62"):
        measure_gpu_peaks(FakeCuda(replace(ORIN, sm=37)))
