"""What INT8 costs, in dB against ground truth.

Where the calibration folder holds pairs, their sharp sides are the truth. Elsewhere a camera shake of ours is laid
over each picture, and the picture itself is the truth: that does not tell how well the network deblurs, but how
much of it INT8 loses.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from unblur.calibration.images import TRIALS, Trial
from unblur.calibration.onnx_model import OnnxModel
from unblur.runtime.frames import Batch, Frame, NetworkValues, Padding, batch_from_frame
from unblur.runtime.metrics import psnr_float_db

_SIDES = (128, 256)  # least and most pixels of a crop
_WORK_MACS = 64e9  # of all trials together: about a second on a small CPU
_EQUAL = 1e-10
"""Added to each mean square error: 100 dB is as good as equal, and two equal variants differ by nothing."""


@dataclass(frozen=True)
class Cost:
    """deltas_db: PSNR of a variant minus that of float32, a value per trial; negative is a loss.
    parity_db: the variant against float32, in the worst trial.
    """

    deltas_db: tuple[float, ...]
    parity_db: float

    @property
    def delta_db(self) -> float:
        """Mean over the trials."""
        return fmean(self.deltas_db)

    @property
    def loss_db(self) -> float:
        """The least budget that this keeps to: the mean loss, or half the worst trial's if that is more."""
        return max(-self.delta_db, -min(self.deltas_db) / 2)


def trial_side(macs: int) -> int:
    """The side of crops on which a search with hundreds of evaluations takes minutes; 128 to 256, a multiple of 32.

    macs: of the network on 256 x 256 pixels.
    """
    least, most = _SIDES
    affordable = most * (_WORK_MACS / (TRIALS * max(macs, 1))) ** 0.5
    return min(max(int(affordable) // 32 * 32, least), most)


class QualityEvaluator:
    """Restores some trials once by the fp32 variant, and again by every variant that it is asked about.

    Values are compared before rounding to 8 bits, which would hide what a single layer costs. All variants are
    evaluated without graph optimisation: Q/DQ in float is what an engine computes, while a CPU's fused 8-bit
    products saturate.
    """

    def __init__(self, fp32: OnnxModel, trials: Iterable[Trial]) -> None:
        self._spec = fp32.spec
        self._values = NetworkValues(fp32.spec)
        self._trials = tuple(trials)
        self._expected = list(self._restore(fp32))

    def batches(self) -> Iterator[Batch]:
        """The blurred images as the network takes them, padded."""
        return map(self._values.taken, self._blurred())

    def _blurred(self) -> Iterator[Batch]:
        for trial in self._trials:
            height, width = trial.blurred.shape[:2]
            yield batch_from_frame(trial.blurred, Padding.to_multiple((height, width), self._spec.multiple_of))

    def cost(self, candidate: OnnxModel) -> Cost:
        """What `candidate`, another variant of the network, makes of the trials against what fp32 made of them."""
        deltas, parities = [], []
        for trial, expected, restored in zip(self._trials, self._expected, self._restore(candidate), strict=True):
            sharp = _whole_batch(trial.sharp).repeat(self._spec.scale, axis=2).repeat(self._spec.scale, axis=3)
            deltas.append(10 * math.log10(_mse(expected, sharp) / _mse(restored, sharp)))
            parities.append(psnr_float_db(restored, expected))
        return Cost(tuple(deltas), min(parities))

    def _restore(self, model: OnnxModel) -> Iterator[Batch]:
        session = model.session(optimized=False)
        for trial, batch in zip(self._trials, self._blurred(), strict=True):
            height, width = self._spec.output_hw((trial.blurred.shape[0], trial.blurred.shape[1]))
            (given,) = session.run(None, {model.input: self._values.taken(batch)})
            yield np.ascontiguousarray(self._values.given(given, batch)[:, :, :height, :width])


def _mse(restored: Batch, sharp: Batch) -> float:
    return float(np.mean(np.square(np.clip(restored, 0, 1) - sharp), dtype=np.float64)) + _EQUAL


def _whole_batch(frame: Frame) -> Batch:
    height, width = frame.shape[:2]
    return batch_from_frame(frame, Padding.to_multiple((height, width), 1))
