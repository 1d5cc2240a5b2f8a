"""What a report says of INT8, from what calibration found."""

from unblur.calibration.calibrate import Calibrated
from unblur.calibration.coverage import Coverage
from unblur.export.report.data import Int8Report

LOW_INT8_MACS = 0.7
"""With less of the multiply-accumulates in INT8 an engine is hardly faster than in fp16."""


def int8_report(calibrated: Calibrated, coverage: Coverage | None) -> Int8Report:
    """coverage: how well the pictures stand for those they were picked from, if that is known."""
    table = calibrated.table
    return Int8Report(
        calibration_id=table.identity,
        method=table.method,
        pictures=len(table.images),
        tensors=len(table.ranges),
        macs_share=calibrated.int8_macs,
        deltas_db=calibrated.cost.deltas_db,
        budget_db=None if table.measured is None else table.measured.budget_db,
        kept=table.kept,
        excluded=table.excluded,
        sensitivity=calibrated.sensitivity,
        drift=calibrated.drift,
        coverage=coverage,
    )


def low_share(macs_share: float) -> str | None:
    """One line if too little of the network is INT8, and what to do. macs_share: 0 to 1."""
    if macs_share >= LOW_INT8_MACS:
        return None
    return (
        f"only {macs_share:.0%} of the multiply-accumulates run in INT8, so an engine gains little over "
        "fp16; allow a larger loss, or fine-tune with `unblur train --qat`"
    )
