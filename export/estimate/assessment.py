"""A network on a machine in every precision that was asked for, with what has to be known to read the figures."""

from dataclasses import dataclass

from onnx import ModelProto

from unblur.calibration.placement import place
from unblur.export.estimate.estimate import Estimate, estimate
from unblur.export.estimate.graph import Network, network_at
from unblur.export.estimate.machine import Machine
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.runner import Precision


@dataclass(frozen=True)
class Assessment:
    """notes: the assumptions, for people."""

    network: Network
    machine: Machine
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]


def assess(
    model: ModelProto, machine: Machine, size_hw: tuple[int, int], precision: Precision | None = None
) -> Assessment:
    """Estimate one frame of `size_hw`, in every precision that the machine has if none is asked for.

    Raises BadInput if the machine does not compute in that precision, CalibrationError if nothing of the network
    would be INT8.
    """
    notes = [
        f"one frame through the network by {machine.method.runtime}, without reading, converting and copying it",
        "low end: elementwise operations happen within other kernels; high end: each is a kernel of its own",
        f"factors: {machine.method.basis}",
        *machine.notes,
    ]
    precisions, int8 = _precisions(machine, precision), frozenset[str]()
    if "int8" in precisions:
        try:
            int8 = _int8_operations(model)
        except CalibrationError as error:
            if precision == "int8":
                raise
            precisions.remove("int8")
            notes.append(f"no INT8: {error}")
    network = network_at(model, size_hw)
    estimates = [estimate(network, machine.method, machine.peaks, wanted, int8) for wanted in precisions]
    return Assessment(network, machine, tuple(estimates), tuple(notes))


def _precisions(machine: Machine, precision: Precision | None) -> list[Precision]:
    if precision is None:
        return list(machine.units)
    if precision not in machine.units:
        present = ", ".join(machine.units)
        raise BadInput(f"{machine.title} does not compute in {precision}; it has {present}")
    return [precision]


def _int8_operations(model: ModelProto) -> frozenset[str]:
    """The convolutions that `unblur calibrate` would quantise before any search."""
    return frozenset(node.name or node.output[0] for node in place(model).quantized)
