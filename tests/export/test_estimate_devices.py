"""The table of devices against what NVIDIA advertises, which is in other units."""

import pytest

from unblur.export.estimate.devices import DEVICES, Device, find_device, peaks_of
from unblur.runtime.errors import BadInput
from unblur.runtime.runner import Precision

ADVERTISED: list[tuple[str, Precision, float, float]] = [
    # device, precision, T/s of the GPU alone by data sheets and whitepapers, times the dense one in that precision
    ("nano", "fp16", 0.472, 1),
    ("tx2", "fp16", 1.33, 1),
    ("agx-xavier", "int8", 22.6, 1),
    ("orin-nano-4gb", "int8", 20, 2),
    ("orin-nano", "int8", 40, 2),
    ("orin-nano-super", "int8", 67, 2),
    ("orin-nx-8", "int8", 70 - 20, 2),
    ("orin-nx-8-super", "int8", 117 - 40, 2),
    ("orin-nx", "int8", 100 - 40, 2),
    ("orin-nx-super", "int8", 157 - 80, 2),
    ("agx-orin-32", "int8", 108, 2),
    ("agx-orin", "int8", 170, 2),
    ("agx-orin", "fp32", 5.3, 1),
    ("t4000", "int8", 1200, 4),  # of FP4
    ("thor", "int8", 2070, 4),
    ("thor", "fp16", 258, 1),
    ("rtx-3060", "fp32", 12.7, 1),
    ("rtx-3060", "int8", 102, 1),
    ("rtx-3090", "fp16", 142, 1),
    ("rtx-4060", "int8", 242, 2),
    ("rtx-4090", "fp16", 330.3, 1),
    ("rtx-4090", "int8", 660.6, 1),
    ("rtx-5090", "int8", 838, 1),
    ("t4", "fp16", 65, 1),
    ("t4", "int8", 130, 1),
    ("a2", "int8", 36, 1),
    ("l4", "fp16", 121, 1),
    ("h200", "fp16", 989, 1),
]


@pytest.mark.parametrize(("name", "precision", "advertised", "times"), ADVERTISED)
def test_counted_peaks_are_the_advertised_ones(
    name: str, precision: Precision, advertised: float, times: float
) -> None:
    device = find_device(name)
    counted = peaks_of(device, device.mode()).fast.gflops[precision] / 1000
    assert counted * times == pytest.approx(advertised, rel=0.03)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_the_first_power_mode_is_the_fastest(device: Device) -> None:
    fastest, *others = device.modes
    for mode in others:
        assert mode.multiprocessors * mode.mhz <= fastest.multiprocessors * fastest.mhz
        assert mode.gbytes_per_s <= fastest.gbytes_per_s
    assert device.source
    assert device.architecture.source


def test_tensor_cores_of_a_geforce_may_sum_at_half_the_rate() -> None:
    device = find_device("RTX-3060")
    peaks = peaks_of(device, device.mode())
    assert peaks.slow.gflops["fp16"] == peaks.fast.gflops["fp16"] / 2
    assert peaks.slow.gflops["int8"] == peaks.fast.gflops["int8"]


def test_a_power_mode_slows_clocks_cores_and_memory() -> None:
    device = find_device("agx-orin")
    full, low = (peaks_of(device, device.mode(name)).fast for name in ("maxn", "15W"))
    assert low.gflops["int8"] == pytest.approx(full.gflops["int8"] * 6 / 16 * 408 / 1301)
    assert low.gbytes_per_s == pytest.approx(full.gbytes_per_s * 2 / 3, rel=0.001)


def test_an_unknown_device_gets_the_nearest_name() -> None:
    with pytest.raises(
        BadInput, match=r"unknown device 'orin-nanosuper'; did you mean 'orin-nano-super'\? `unblur"
    ):
        find_device("orin-nanosuper")
    with pytest.raises(BadInput, match=r"unknown device 'toaster'; `unblur estimate --list` shows all 24"):
        find_device("toaster")


def test_an_unknown_power_mode_gets_those_there_are() -> None:
    with pytest.raises(BadInput, match="orin-nano-super has no power mode '60W'; it has MAXN_SUPER, 25W, 15W"):
        find_device("orin-nano-super").mode("60W")
