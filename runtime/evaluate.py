"""How well does a model restore a data set?

    with open_runner("lprn-s") as runner:
        rows = [judged.row for judged in evaluate(runner, find_pairs(folder))]
    print(mean_score([row.blurred for row in rows]), mean_score([row.restored for row in rows]))

Frames go whole, not tiled, one at a time: memory does not grow with the data set. PSNR and SSIM are of 8-bit RGB.
Where a blurred picture has a whole trajectory of sharp ones (Koehler), PSNR and MSSIM are the best over it instead.

A model is judged as it runs on this machine; `verify` judges INT8 by the graph as it is written.

RealBlur's authors align each restoration to its reference by a homography before they compare. That is not done
here: figures on RealBlur are of the pictures as they are, and lower than those of the papers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image
from unblur.runtime.metrics import psnr_db, ssim
from unblur.runtime.pairs import Pair
from unblur.runtime.parity import shots
from unblur.runtime.runner import Runner
from unblur.runtime.trajectory import trajectory_score

Similarity = Literal["ssim", "mssim"]


@dataclass(frozen=True)
class Score:
    """A picture against ground truth. measure: which similarity it is; MSSIM with a trajectory, else SSIM."""

    psnr_db: float
    similarity: float
    measure: Similarity


@dataclass(frozen=True)
class Row:
    """One pair, before and after."""

    name: str
    blurred: Score
    restored: Score

    @property
    def gain_db(self) -> float:
        return self.restored.psnr_db - self.blurred.psnr_db


@dataclass(frozen=True)
class Judged:
    """A row and its pictures, uint8 (H, W, 3). sharp_rgb: of a trajectory the frame nearest to the restoration."""

    row: Row
    blurred_rgb: Frame
    restored_rgb: Frame
    sharp_rgb: Frame


def evaluate(runner: Runner, pairs: Sequence[Pair]) -> Iterator[Judged]:
    """Restore and judge pair by pair, in their order.

    Raises BadInput if there is no pair, a picture cannot be read or is too small for its measure.
    """
    for pair, shot in zip(pairs, shots([runner], pairs), strict=True):
        restored_rgb = shot.outputs[0].picture
        blurred, _ = _score(shot.blurred, pair)
        restored, sharp_rgb = _score(restored_rgb, pair)
        yield Judged(Row(pair.name, blurred, restored), shot.blurred, restored_rgb, sharp_rgb)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of at least one score; they are all of one measure."""
    count = len(scores)
    psnr = math.fsum(score.psnr_db for score in scores) / count
    return Score(psnr, math.fsum(score.similarity for score in scores) / count, scores[0].measure)


def _score(picture: Frame, pair: Pair) -> tuple[Score, Frame]:
    """The score, and the sharp frame it was found with."""
    if pair.trajectory:
        best = trajectory_score(picture, pair.trajectory)
        return Score(best.psnr_db, best.mssim, "mssim"), read_image(best.sharp)
    sharp = read_image(pair.sharp)
    return Score(psnr_db(picture, sharp), ssim(picture, sharp), "ssim"), sharp
