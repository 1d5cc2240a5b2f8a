"""The devices that `unblur estimate` knows, as a JSON document and as a table."""

from rich.console import Console
from rich.table import Table

from unblur.export.estimate.devices import DEVICES, Device, peaks_of
from unblur.runtime.runner import Precision

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def devices_document() -> list[object]:
    """The table of devices, for --list --json."""
    return [_device_document(device) for device in DEVICES.values()]


def _device_document(device: Device) -> dict[str, object]:
    modes = []
    for mode in device.modes:
        peaks = peaks_of(device, mode)
        gflops = {name: [round(peaks.slow.gflops[name]), round(peak)] for name, peak in peaks.fast.gflops.items()}
        modes.append({"name": mode.name, "gflops": gflops, "gbytes_per_s": mode.gbytes_per_s, "mhz": mode.mhz})
    return {
        "name": device.name,
        "title": device.title,
        "architecture": device.architecture.name,
        "memory_gib": device.memory_gib,
        "modes": modes,
        "advertised": device.advertised,
        "source": f"{device.source}; {device.architecture.source}",
    }


def print_devices(console: Console) -> None:
    """The table of devices, in their fastest mode."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("device", *_PRECISIONS, "GB/s", "GiB"):
        table.add_column(heading, no_wrap=True)
    table.add_column("power modes")
    for device in DEVICES.values():
        gflops = peaks_of(device, device.modes[0]).fast.gflops
        peaks = [f"{gflops[name] / 1000:.3g}" if name in gflops else "-" for name in _PRECISIONS]
        bandwidth = f"{device.modes[0].gbytes_per_s:g}"
        modes = " ".join(mode.name for mode in device.modes)
        table.add_row(device.name, *peaks, bandwidth, f"{device.memory_gib:g}", modes)
    console.print(table)
    console.print("Published peaks of the GPU in its first mode: dense TFLOP/s (int8: TOP/s). `cpu` is this one.")
