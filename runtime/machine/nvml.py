"""NVIDIA's management library (NVML) as a sensor. Needs the extra [telemetry].

A GPU has channels only for what it supports; a Jetson's supports little. Other processes' load is included.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pynvml

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.sensors import Channel

_FROM_MILLI = 1e-3
_REASONS = {
    "power cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "power brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
}
"""Reasons for throttling, by remedy: raise the power limit, cool, supply more power."""

_Read = Callable[[], float]


class Nvml:
    """All GPUs of the driver: the energy or power of "GPU board 0"; clocks, load, heat and throttling of "GPU 0".

    Raises DeviceError without a driver, or if it fails.
    """

    name = "NVML"

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise _failed(error) from error
        try:
            channels = [pair for index in range(pynvml.nvmlDeviceGetCount()) for pair in _channels_of(index)]
            self._channels = {channel: read for channel, read in channels if _supported(read)}
        except pynvml.NVMLError as error:
            self.close()
            raise _failed(error) from error

    def read(self) -> dict[Channel, float]:
        """See Sensor; one GPU that fails makes the whole reading fail."""
        try:
            values = {channel: read() for channel, read in self._channels.items()}
        except pynvml.NVMLError as error:
            raise _failed(error) from error
        if not values:
            raise DeviceError("NVML reports nothing about the GPUs here")
        return values

    def close(self) -> None:
        pynvml.nvmlShutdown()


def _channels_of(index: int) -> Iterator[tuple[Channel, _Read]]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    gpu, board = f"GPU {index}", f"GPU board {index}"
    joules = partial(_scaled, pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    watts = partial(_scaled, pynvml.nvmlDeviceGetPowerUsage, handle)
    yield (Channel("energy_j", board), joules) if _supported(joules) else (Channel("power_w", board), watts)
    yield Channel("temperature_c", gpu), _temperature(handle)
    yield Channel("clocks_mhz", gpu), partial(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
    memory = Channel("clocks_mhz", f"{gpu} memory")
    yield memory, partial(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM)
    yield Channel("load_percent", gpu), partial(_load_percent, handle)
    for reason, bits in _REASONS.items():
        yield Channel("throttled_percent", f"{gpu} {reason}"), partial(_throttled_percent, handle, bits)


def _temperature(handle: object) -> _Read:
    """By the later of the two calls that this package and the driver know; the other goes with CUDA 14."""
    calls = (getattr(pynvml, name, None) for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"))
    reads = [partial(call, handle, pynvml.NVML_TEMPERATURE_GPU) for call in calls if call is not None]
    return next((read for read in reads if _supported(read)), reads[-1])


def _scaled(read: Callable[[Any], int], handle: object) -> float:
    return read(handle) * _FROM_MILLI


def _load_percent(handle: object) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _throttled_percent(handle: object, bits: int) -> float:
    return 100.0 if pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & bits else 0.0


def _supported(read: _Read) -> bool:
    """Whether this GPU, and its driver, know the call."""
    try:
        read()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False
    return True


def _failed(error: Exception) -> DeviceError:
    return DeviceError(f"NVML failed: {error}")
