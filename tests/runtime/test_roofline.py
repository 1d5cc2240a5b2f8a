import sys

import pytest

from unblur.runtime.errors import DeviceError
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.roofline import Bound, Peaks, measure_peaks, place

PEAKS = Peaks({"fp32": 100.0, "int8": 400.0}, gbytes_per_s=10.0, source="made up")
"""The roof turns from memory to compute at 10 operations a byte, for INT8 at 40."""


def layer(ms: float | None, flops: int, nbytes: int, precision: str = "fp32") -> Layer:
    return Layer("embed/Conv", "Conv", "embed", None, ms, flops, nbytes, precision, (), ())


@pytest.mark.parametrize(
    ("ms", "flops", "nbytes", "precision", "intensity", "bound", "attained"),
    [
        (2.0, 100_000_000, 1_000_000, "fp32", 100.0, "compute", 0.5),
        (2.0, 100_000_000, 1_000_000, "int8", 100.0, "compute", 0.125),
        (2.0, 20_000_000, 10_000_000, "fp32", 2.0, "memory", 0.5),
        (2.0, 200_000_000, 10_000_000, "fp32", 20.0, "compute", 1.0),
        (2.0, 200_000_000, 10_000_000, "int8", 20.0, "memory", 0.5),
        (2.0, 100_000_000, 1_000_000, "fp16", 100.0, "compute", 0.5),  # no peak of its own
        (0.5, 0, 10_000_000, "fp32", 0.0, "memory", 1.0),  # from a cache, faster than memory
        (2.0, 1000, 1000, "fp32", 1.0, "overhead", 5e-5),
        (0.0, 1000, 1000, "fp32", 1.0, "memory", 1.0),  # below what a profiler can tell
        (1.0, 0, 0, "int64", 0.0, "overhead", 0.0),
    ],
)
def test_a_layer_is_held_against_the_lower_roof(
    ms: float, flops: int, nbytes: int, precision: str, intensity: float, bound: Bound, attained: float
) -> None:
    placed = place(layer(ms, flops, nbytes, precision), PEAKS)
    assert (placed.bound, placed.intensity) == (bound, intensity)
    assert placed.attained == pytest.approx(attained)


def test_a_layer_without_a_time_cannot_be_placed() -> None:
    with pytest.raises(ValueError, match="the layer embed/Conv has no time"):
        place(layer(None, 1, 1), PEAKS)


def test_this_cpu_is_measured() -> None:
    peaks = measure_peaks(threads=1)
    assert list(peaks.gflops) == ["fp32"]
    assert 0.1 < peaks.gflops["fp32"] < 10_000
    assert 0.1 < peaks.gbytes_per_s < 1000
    assert "(threads: 1)" in peaks.source


def test_fewer_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        measure_peaks(threads=0)


def test_a_measurement_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match="the peaks of this CPU could not be measured: exit code 1"):
        measure_peaks()
