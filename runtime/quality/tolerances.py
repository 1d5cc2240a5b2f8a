"""Every tolerance in dB, and the rule that decides whether a variant agrees with its reference.

    agreement = judge(TOLERANCES["engine"]["int8"], [psnr_db], [change_db])
    print(agreement.passed, agreement.reason)

A fixed PSNR proves nothing for a network that changes little: an engine that returned its input would pass. So a
variant's error must also be smaller, by a margin, than the change that the network makes.
PSNR is of float images with a peak of 1, before rounding to 8 bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unblur.runtime.spec import Precision

Check = Literal["ledger", "golden", "engine"]


@dataclass(frozen=True)
class Tolerance:
    """When a variant agrees with its reference; all in dB.

    floor_db: least PSNR(variant, reference).
    margin_db: least PSNR(variant, reference) - PSNR(input, reference). A variant that returns its input has 0.
    ceiling_db: PSNR(variant, reference) that correct rounding is sure to reach. A frame of which more is needed
        cannot decide: the network changes it too little. INT8 of a trained LPRN is 48 to 54 dB from fp32.
    """

    floor_db: float
    margin_db: float
    ceiling_db: float


def _tolerances(fp32: float, fp16: float, int8: float) -> dict[Precision, Tolerance]:
    """Floors differ from check to check, margins and ceilings do not."""
    return {
        "fp32": Tolerance(fp32, margin_db=50, ceiling_db=110),
        "fp16": Tolerance(fp16, margin_db=25, ceiling_db=75),
        "int8": Tolerance(int8, margin_db=12, ceiling_db=50),
    }


TOLERANCES: dict[Check, dict[Precision, Tolerance]] = {
    "ledger": _tolerances(fp32=90, fp16=55, int8=35),
    "golden": _tolerances(fp32=90, fp16=55, int8=40),
    "engine": _tolerances(fp32=75, fp16=50, int8=35),
}
"""By check and precision.

ledger: against the variant before it, fp32 -> fp16 -> int8.
    fp32: only the order of additions differs. About 1e-5 of full scale is 100 dB, so 90 dB leaves room for kernels
        and none for a wrong operator.
    fp16: 11 bits of mantissa. One rounding of an image in [0, 1] costs 75 dB, a few dozen layers about 15 dB more.
    int8: rounding is visible by design; see INT8_LOSS_LIMIT_DB for what limits it where there is ground truth.
golden: against the output of the same variant on the machine that built the bundle. INT8 is evaluated the same way
    on both, but a value between two quanta may fall to either side, which costs that pixel a level or two.
engine: against the ONNX file on a CPU. An engine adds in another order, and computes in fp16 what an INT8 network
    leaves unquantised. To be tightened when engines have been measured.
"""

BF16 = Tolerance(floor_db=45, margin_db=15, ceiling_db=62)
"""Of the fp32 and fp16 variants computed in bfloat16, with 8 bits of mantissa, against their golden vectors."""

TILING_FLOOR_DB = 70.0
"""Least PSNR of tiles against the whole frame where tiling should be exact; rounding alone leaves over 100 dB."""

INT8_LOSS_LIMIT_DB = 0.1
"""Most PSNR against ground truth, mean over the frames, that INT8 may lose from the variant before it.

An error that is independent of the restoration's own, P dB below full scale where the restoration is R dB from the
truth, costs 10 log10(1 + 10^((R - P) / 10)): 0.1 dB at R = 26, P = 42. That loss is what users see.
"""


@dataclass(frozen=True)
class Agreement:
    """Whether a variant agrees with its reference.

    psnr_db, needed_db: found and needed in the frame that decides, the one that misses its need by most or meets it
    by least. passed: None if void, that is if no frame can decide. reason: why it did not pass, else empty.
    """

    psnr_db: float
    needed_db: float
    passed: bool | None
    reason: str


def judge(tolerance: Tolerance, psnr_db: Sequence[float], change_db: Sequence[float]) -> Agreement:
    """Judge a variant on one or more frames.

    psnr_db: PSNR(variant, reference) of each frame, NaN if a value is not finite. change_db: PSNR(input, reference)
    of each frame; inf where the network changes nothing.
    """
    frames = [_judge_frame(tolerance, *frame) for frame in zip(psnr_db, change_db, strict=True)]
    failed = [frame for frame in frames if frame.passed is False]
    passed = [frame for frame in frames if frame.passed]
    return min(failed or passed or frames, key=_slack_db)


def _judge_frame(tolerance: Tolerance, psnr_db: float, change_db: float) -> Agreement:
    relative_db = change_db + tolerance.margin_db
    if not psnr_db >= tolerance.floor_db:  # NaN fails too
        reason = f"{psnr_db:.1f} dB from its reference, expected at least {tolerance.floor_db:g} dB"
        return Agreement(psnr_db, tolerance.floor_db, False, reason)
    if psnr_db >= relative_db and math.isfinite(change_db):
        return Agreement(psnr_db, max(relative_db, tolerance.floor_db), True, "")
    if relative_db > tolerance.ceiling_db:
        reason = (
            f"void: the network hardly changes its input ({change_db:.1f} dB), so a wrong variant could not be "
            "told from a right one; give images that it changes more, such as blurred ones"
        )
        return Agreement(psnr_db, tolerance.floor_db, None, reason)
    reason = (
        f"{psnr_db:.1f} dB from its reference, expected at least {relative_db:.1f} dB: {tolerance.margin_db:g} dB "
        f"more than the {change_db:.1f} dB of the unchanged input"
    )
    return Agreement(psnr_db, relative_db, False, reason)


def _slack_db(agreement: Agreement) -> float:
    """What is left of the margin; NaN, which fails, comes first."""
    slack_db = agreement.psnr_db - agreement.needed_db
    return -math.inf if math.isnan(slack_db) else slack_db
