"""What INT8 costs, in dB, when no sharp reference of the calibration pictures is known.

A camera shake of ours is laid over each picture, and the picture itself is the reference. That does not tell how
well the network deblurs, but how much of it INT8 loses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from unblur.calibration.sample import Sample, shaken
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import psnr_db, psnr_float_db
from unblur.runtime.runner import Runner


@dataclass(frozen=True)
class Cost:
    """delta_db: PSNR of the candidate minus that of the reference, mean; negative is a loss.
    parity_db: the candidate against the reference on float images, in the worst picture.
    """

    pictures: int
    delta_db: float
    parity_db: float


def measure_cost(
    reference: Runner, candidate: Runner, sample: Sample, progress: Callable[[], object] | None = None
) -> Cost:
    """Restore shaken copies of the pictures with both forms of one network."""
    deltas, parities = [], []
    for index, picture in enumerate(sample.pictures()):
        height, width = picture.shape[:2]
        padding = Padding.to_multiple((height, width), reference.spec.multiple_of)
        batch = batch_from_frame(shaken(picture, index), padding)
        expected, restored = reference.infer(batch), candidate.infer(batch)
        parities.append(psnr_float_db(restored, expected))
        deltas.append(_psnr_db(restored, picture, padding) - _psnr_db(expected, picture, padding))
        if progress is not None:
            progress()
    return Cost(len(deltas), fmean(deltas), min(parities))


def _psnr_db(restored: Batch, picture: Frame, padding: Padding) -> float:
    return psnr_db(frame_from_batch(restored, padding), picture)
