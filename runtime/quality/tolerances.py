"""Every tolerance in dB: one table for the parity ledger, golden vectors, engines, tiles and INT8.

    FLOOR_DB["engine"]["int8"]

PSNR is of float images with a peak of 1, before rounding to 8 bits.
"""

from typing import Literal

from unblur.runtime.spec import Precision

Check = Literal["ledger", "golden", "engine"]

FLOOR_DB: dict[Check, dict[Precision, float]] = {
    "ledger": {"fp32": 90.0, "fp16": 55.0, "int8": 35.0},
    "golden": {"fp32": 90.0, "fp16": 55.0, "int8": 40.0},
    "engine": {"fp32": 75.0, "fp16": 50.0, "int8": 35.0},
}
"""Least PSNR of a variant against its reference, in the worst frame.

ledger: against the variant before it, fp32 -> fp16 -> int8.
    fp32: only the order of additions differs. About 1e-5 of full scale is 100 dB, so 90 dB leaves room for kernels
        and none for a wrong operator.
    fp16: 11 bits of mantissa. One rounding of an image in [0, 1] costs 75 dB, a few dozen layers about 15 dB more.
    int8: rounding is visible by design. See INT8_LOSS_LIMIT_DB; this floor catches a broken calibration table where
        there is no ground truth.
golden: against the output of the same variant on the machine that built the bundle. INT8 is evaluated the same way
    on both, but a value between two quanta may fall to either side, which costs that pixel a level or two.
engine: against the ONNX file on a CPU. An engine adds in another order, and computes in fp16 what an INT8 network
    leaves unquantised. To be tightened when engines have been measured.
"""

TILING_FLOOR_DB = 70.0
"""Least PSNR of tiles against the whole frame where tiling should be exact; rounding alone leaves over 100 dB."""

INT8_LOSS_LIMIT_DB = 0.1
"""Most PSNR against ground truth, mean over the frames, that INT8 may lose from the variant before it.

An error that is independent of the restoration's own, P dB below full scale where the restoration is R dB from the
truth, costs 10 log10(1 + 10^((R - P) / 10)): 0.1 dB at R = 26, P = 42. That loss is what users see.
"""
