"""Where an estimate is for: a device from the table, or this CPU with its measured peaks."""

from collections.abc import Mapping
from dataclasses import dataclass

from unblur.export.estimate.devices import PeakRange, find_device, peaks_of
from unblur.export.estimate.method import ONNX_RUNTIME, TENSORRT, Method
from unblur.runtime.errors import BadInput
from unblur.runtime.profile.roofline import measure_peaks
from unblur.runtime.runner import Precision

THIS_CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """A device in a power mode with the runtime that it is estimated for.

    units: what computes in each precision that it has. memory_gib: None if unknown. notes: what is true
    of this device's figures, for people.
    """

    name: str
    title: str
    mode: str
    method: Method
    peaks: PeakRange
    units: Mapping[Precision, str]
    memory_gib: float | None
    notes: tuple[str, ...]


def find_machine(name: str, mode: str | None = None) -> Machine:
    """ "cpu" is this one, measured in two seconds. BadInput for an unknown device or power mode."""
    if name.lower() != THIS_CPU:
        return _published(name, mode)
    if mode is not None:
        raise BadInput(f"--mode is '{mode}', but this CPU has none to choose; leave it out")
    peaks = measure_peaks()
    return Machine(
        name=THIS_CPU,
        title="this CPU",
        mode="",
        method=ONNX_RUNTIME,
        peaks=PeakRange(peaks, peaks),
        units={"fp32": "vector units"},
        memory_gib=None,
        notes=(peaks.source,),
    )


def _published(name: str, mode: str | None) -> Machine:
    device = find_device(name)
    chosen = device.mode(mode)
    units = {precision: rate.units for precision, rate in device.architecture.rates.items()}
    whose = "which the system and CUDA share" if device.shared else "of its own"
    notes = (
        "peaks: "
        + ", ".join(f"{precision} by {unit}" for precision, unit in units.items())
        + f", dense and of the GPU alone; it is advertised with {device.advertised}",
        f"memory: the network alone, of {device.memory_gib:g} GiB {whose}",
        f"sources: {device.source}; {device.architecture.source}",
    )
    return Machine(
        name=device.name,
        title=device.title,
        mode=chosen.name,
        method=TENSORRT,
        peaks=peaks_of(device, chosen),
        units=units,
        memory_gib=device.memory_gib,
        notes=notes,
    )
