"""An assessment as a JSON document, and as tables for a terminal."""

from rich.console import Console
from rich.table import Table

from unblur.export.estimate.assessment import Assessment
from unblur.export.estimate.estimate import Estimate, Span
from unblur.runtime.profile.roofline import Bound

_PARTS_PRINTED = 8


def document(assessment: Assessment) -> dict[str, object]:
    """What --json says. ms, fps: [low, high]. parts: the dearest stages first, all steps together."""
    network, machine = assessment.network, assessment.machine
    return {
        "kind": "estimate",
        "preset": network.spec.preset,
        "steps": network.spec.steps,
        "size": list(network.size_hw),
        "gflop": round(network.flops / 1e9, 2),
        "device": {
            "name": machine.name,
            "title": machine.title,
            "mode": machine.mode,
            "memory_gib": machine.memory_gib,
        },
        "runtime": machine.method.runtime,
        "precisions": {
            estimate.precision: _precision_document(assessment, estimate) for estimate in assessment.estimates
        },
        "notes": list(assessment.notes),
    }


def _precision_document(assessment: Assessment, estimate: Estimate) -> dict[str, object]:
    peaks = assessment.machine.peaks
    return {
        "ms": _rounded(estimate.ms),
        "fps": _rounded(estimate.fps),
        "bounds": {bound: round(share, 3) for bound, share in estimate.bounds.items()},
        "memory_mib": round(estimate.memory_mib, 1),
        "units": assessment.machine.units[estimate.precision],
        "peak_gflops": [round(end.gflops[estimate.precision], 1) for end in (peaks.slow, peaks.fast)],
        "gbytes_per_s": peaks.fast.gbytes_per_s,
        "parts": [
            {
                "stage": part.stage,
                "kernels": part.kernels,
                "ms": _rounded(part.ms),
                "share": round(part.share, 4),
                "bound": part.bound,
            }
            for part in estimate.parts
        ],
    }


def print_assessment(assessment: Assessment, console: Console) -> None:
    """The ranges, the dearest stages, and the assumptions."""
    network, machine = assessment.network, assessment.machine
    height, width = network.size_hw
    where = f"{machine.title}{', ' + machine.mode if machine.mode else ''}"
    console.print(
        f"Estimate, not measured: {network.spec.preset}, {network.spec.steps} steps, {height}x{width}, "
        f"{network.flops / 1e9:,.0f} GFLOP, on {where}",
        soft_wrap=True,
    )
    console.print(_ranges(assessment))
    for estimate in assessment.estimates[-1:]:
        console.print(_parts(estimate))
    for note in assessment.notes:
        console.print(f"- {note}", soft_wrap=True)


def _ranges(assessment: Assessment) -> Table:
    machine = assessment.machine
    table = _table("", "ms a frame", "frames/s", "bound by", "peak T/s", "memory MiB")
    for estimate in assessment.estimates:
        table.add_row(
            estimate.precision,
            _span(estimate.ms),
            _span(estimate.fps),
            ", ".join(f"{bound} {share:.0%}" for bound, share in _by_share(estimate)),
            f"{machine.peaks.fast.gflops[estimate.precision] / 1000:.3g}",
            _memory(estimate.memory_mib, machine.memory_gib),
        )
    return table


def _parts(estimate: Estimate) -> Table:
    table = _table(f"in {estimate.precision}", "kernels", "ms", "share", "bound by")
    for part in estimate.parts[:_PARTS_PRINTED]:
        table.add_row(part.stage, str(part.kernels), _span(part.ms), f"{part.share:.0%}", part.bound)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "bound by")
    return table


def _by_share(estimate: Estimate) -> list[tuple[Bound, float]]:
    return sorted(estimate.bounds.items(), key=lambda item: item[1], reverse=True)[:2]


def _memory(mib: float, gib: float | None) -> str:
    return f"{mib:,.0f}" if gib is None or mib <= 1024 * gib else f"{mib:,.0f}, too much"


def _span(span: Span) -> str:
    return f"{_three_digits(span.low)} - {_three_digits(span.high)}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rounded(span: Span) -> list[float]:
    return [float(f"{value:.4g}") for value in (span.low, span.high)]
