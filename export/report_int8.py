"""The section of a report on INT8: how much of a network runs in it, what that costs, what it was calibrated on."""

from collections.abc import Iterator, Sequence
from html import escape

from unblur.calibration.calibrate import Calibrated
from unblur.calibration.coverage import Coverage
from unblur.calibration.sensitivity import Sensitivity
from unblur.calibration.sensitivity_plot import sensitivity_png
from unblur.calibration.steps import Drift
from unblur.export.report_parts import data_uri, html_table, signed_text

LOW_INT8_MACS = 0.7
"""With less of the multiply-accumulates in INT8 an engine is hardly faster than in fp16."""


def int8_section(calibrated: Calibrated, coverage: Coverage | None) -> str:
    """HTML; equal arguments give equal text. coverage: None leaves the table of the pictures out."""
    parts = [_summary(calibrated)]
    if calibrated.int8_macs < LOW_INT8_MACS:
        parts.append(f'<p class="no">{escape(low_share(calibrated))}</p>')
    if calibrated.sensitivity is not None:
        parts.append(_plot(calibrated.sensitivity))
    if calibrated.drift:
        parts.append(_drift_table(calibrated.drift))
    if coverage is not None:
        parts.append(_coverage_table(coverage))
    return "\n".join(parts)


def low_share(calibrated: Calibrated) -> str:
    """One line: too little of the network is INT8, and what to do."""
    return (
        f"only {calibrated.int8_macs:.0%} of the multiply-accumulates run in INT8, so an engine gains little over "
        "fp16; allow a larger loss, or fine-tune with `unblur train --qat`"
    )


def _summary(calibrated: Calibrated) -> str:
    table, cost = calibrated.table, calibrated.cost
    budget = None if table.measured is None else table.measured.budget_db
    allowed = "" if budget is None else f" ({budget:g} dB were allowed)"
    left_out = escape(", ".join((*table.kept, *table.excluded))) or "nothing"
    return (
        f"<p>{calibrated.int8_macs:.1%} of the multiply-accumulates of the convolutions run in INT8. That changes "
        f"the PSNR of {len(cost.deltas_db)} crops of the calibration pictures by "
        f"{signed_text(cost.delta_db, 3)} dB in the mean, {signed_text(min(cost.deltas_db), 3)} dB in the worst"
        f"{allowed}. In float stay: {left_out}.</p>"
    )


def _plot(sensitivity: Sensitivity) -> str:
    noisiest = sorted(sensitivity.sqnr_db.items(), key=lambda item: item[1])[:5]
    tensors = ", ".join(f"{escape(name)} {value:.1f}" for name, value in noisiest)
    picture = data_uri(sensitivity_png(sensitivity.layers), "png")
    return (
        f'<figure><img src="{picture}" alt="What each layer costs in INT8, in dB"><figcaption>Least signal to '
        f"quantisation noise, in dB: {tensors}.</figcaption></figure>"
    )


def _drift_table(drift: Sequence[Drift]) -> str:
    steps = max(len(group.ratios) for group in drift)
    headings = ["layer", *(f"step {step}" for step in range(1, steps + 1))]
    rows = "".join(
        f"<tr><td>{escape(group.weight)}</td>{''.join(_cells(group.ratios, steps))}</tr>" for group in drift
    )
    note = "The largest value that a layer reads at each step of the recursion, as a multiple of that at its first."
    return html_table(headings, rows) + f'<p class="note">{note}</p>'


def _cells(ratios: Sequence[float], count: int) -> Iterator[str]:
    for index in range(count):
        yield f"<td>{ratios[index]:.2f}</td>" if index < len(ratios) else "<td></td>"


def _coverage_table(coverage: Coverage) -> str:
    rows = "".join(
        f"<tr><td>{feature.name}</td>{''.join(f'<td>{value:.3g}</td>' for value in feature.picked)}"
        f"<td>{feature.span:.0%}</td></tr>"
        for feature in coverage.features
    )
    note = f"Calibrated on {coverage.picked} of {coverage.pictures} pictures, and the part of all that they span."
    headings = ["pictures", "least", "25 %", "median", "75 %", "largest", "spans"]
    return html_table(headings, rows) + f'<p class="note">{note}</p>'
