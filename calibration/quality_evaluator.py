"""What INT8 costs, in dB against ground truth.

Where the calibration folder holds pairs, their sharp sides are the truth. Elsewhere a camera shake of ours is laid
over each image, and the image itself is the truth: that does not show how well the network deblurs, but how much of
it INT8 loses.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from unblur.calibration.images import Trial
from unblur.calibration.onnx_model import OnnxModel, padding_of
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame
from unblur.runtime.metrics import psnr_float_db

_SIDES = (128, 256)  # least and most pixels of a crop
_SEARCH_TRIALS = 8
_MOST_TRIALS = 64
_SEARCH_MACS = 64e9  # of the trials of a search together: about a second on a small CPU
_MOST_MACS = 256e9  # of all trials together, which are run a few times
_GREY_LEVEL = (1 / 255) ** 2
"""Added to each mean square error. Nobody sees an error of one grey level, which is 48 dB. Without it a flat crop
that falls from 62 dB to 59 would decide which layers stay in float.
"""


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
    affordable = most * (_SEARCH_MACS / (_SEARCH_TRIALS * max(macs, 1))) ** 0.5
    return min(max(int(affordable) // 32 * 32, least), most)


def trial_count(macs: int) -> int:
    """The number of crops on which methods and the result are compared: 8 to 64. macs: as `trial_side`."""
    per_trial = max(macs, 1) * (trial_side(macs) / _SIDES[-1]) ** 2
    return min(max(int(_MOST_MACS / per_trial), _SEARCH_TRIALS), _MOST_TRIALS)


class QualityEvaluator:
    """Restores some trials once by the fp32 variant, and again by every variant that it is asked about.

    Values are compared before rounding to 8 bits, which would hide what a single layer costs. All variants are
    evaluated without graph optimisation: Q/DQ in float is what an engine computes, while a CPU's fused 8-bit
    products saturate.
    """

    def __init__(self, fp32: OnnxModel, trials: Iterable[Trial]) -> None:
        self._fp32 = fp32
        self._trials = tuple(trials)
        self._expected = list(self._restore(fp32))

    def for_search(self, deltas_db: Sequence[float] = ()) -> "QualityEvaluator":
        """The same on a few of the trials: half those that lost most in `deltas_db`, the rest spread over all."""
        worst = np.argsort(np.asarray(deltas_db))[: _SEARCH_TRIALS // 2]
        spread = np.linspace(0, len(self._trials) - 1, min(_SEARCH_TRIALS - len(worst), len(self._trials)))
        few = copy.copy(self)
        indices = np.unique([*worst, *spread.round().astype(int)]).astype(int)
        few._trials = tuple(self._trials[index] for index in indices)
        few._expected = [self._expected[index] for index in indices]
        return few

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images, in the order of `Cost.deltas_db`."""
        return tuple(trial.name for trial in self._trials)

    def batches(self) -> Iterator[Batch]:
        """The blurred images as float32 (1, 3, H, W), padded."""
        for trial in self._trials:
            height, width = trial.blurred.shape[:2]
            yield batch_from_frame(trial.blurred, padding_of(self._fp32.spec, (height, width)))

    def cost(self, candidate: OnnxModel) -> Cost:
        """What `candidate`, another variant of the network, makes of the trials against what fp32 made of them."""
        scale = self._fp32.spec.scale
        deltas, parities = [], []
        for trial, expected, restored in zip(self._trials, self._expected, self._restore(candidate), strict=True):
            sharp = _whole_batch(trial.sharp).repeat(scale, axis=2).repeat(scale, axis=3)
            deltas.append(10 * math.log10(_mse(expected, sharp) / _mse(restored, sharp)))
            parities.append(psnr_float_db(restored, expected))
        return Cost(tuple(deltas), min(parities))

    def _restore(self, model: OnnxModel) -> Iterator[Batch]:
        session = model.session(optimized=False)
        for trial, batch in zip(self._trials, self.batches(), strict=True):
            height, width = model.spec.output_hw((trial.blurred.shape[0], trial.blurred.shape[1]))
            yield np.ascontiguousarray(model.restore(session, batch)[:, :, :height, :width])


def _mse(restored: Batch, sharp: Batch) -> float:
    return float(np.mean(np.square(np.clip(restored, 0, 1) - sharp), dtype=np.float64)) + _GREY_LEVEL


def _whole_batch(frame: Frame) -> Batch:
    height, width = frame.shape[:2]
    return batch_from_frame(frame, Padding.to_multiple((height, width), 1))
