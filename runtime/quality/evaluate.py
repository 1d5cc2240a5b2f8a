"""How well does a model restore a data set?

    with open_runner("lprn-s") as runner:
        rows = [judged.row for judged in evaluate(runner, find_pairs(folder))]
    print(mean_score([row.blurred for row in rows]), mean_score([row.restored for row in rows]))

Frames go whole, not tiled, one at a time: memory does not grow with the data set. PSNR and SSIM are of 8-bit RGB.
Where a blurred image has a whole trajectory of sharp ones (Koehler), PSNR and MSSIM are the best over it instead.

A model is judged as it runs on this machine; `verify` judges INT8 by the graph as it is written.

RealBlur's authors align each restoration to its reference by a homography before they compare. That is not done
here: figures on RealBlur are of the images as they are, and lower than those of the papers.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image
from unblur.runtime.metrics import MIN_MSSIM_SIDE, luma, mssim, psnr_db, psnr_float_db, ssim
from unblur.runtime.quality.pairs import Pair
from unblur.runtime.quality.parity import frame_results
from unblur.runtime.runner import Runner

Image = NDArray[np.float64]


@dataclass(frozen=True)
class TrajectoryScore:
    """The best over all frames. sharp: the frame of the best PSNR."""

    psnr_db: float
    mssim: float
    sharp: Path


def trajectory_score(picture: Frame, trajectory: Sequence[Path]) -> TrajectoryScore:
    """Compare uint8 RGB (H, W, 3) with every frame of the path, as many at a time as there are cores.

    Raises BadInput that names a frame that cannot be read or is of another size, or if all are too small.
    """
    if min(picture.shape[:2]) < MIN_MSSIM_SIDE:
        height, width = picture.shape[:2]
        raise BadInput(
            f"{trajectory[0]} is {height} x {width}; MSSIM needs at least {MIN_MSSIM_SIDE} pixels a side"
        )
    values = picture / 255.0

    def compare(path: Path) -> tuple[float, float]:
        sharp = read_image(path)
        if sharp.shape != picture.shape:
            raise BadInput(f"{path} is {sharp.shape[0]} x {sharp.shape[1]}, its blurred image is not")
        fitted, sharp_inside = fit(values, sharp / 255.0)
        x, y = luma(fitted), luma(sharp_inside)
        return psnr_float_db(x, y), mssim(x, y)

    with ThreadPoolExecutor() as pool:
        scores = list(pool.map(compare, trajectory))
    best_db = max(psnr_db for psnr_db, _ in scores)
    best = next(path for path, (psnr_db, _) in zip(trajectory, scores, strict=True) if psnr_db == best_db)
    return TrajectoryScore(best_db, max(value for _, value in scores), best)


def fit(restored: Image, sharp: Image) -> tuple[Image, Image]:
    """Scale `restored` (H, W, 3) to the brightness of `sharp` and move it onto it by whole pixels.

    The scale is that of the least squares; the shift is where the circular cross-correlation is largest. Both
    results are zero where the moved image has no content.
    """
    energy = float(np.vdot(restored, restored))
    scaled = restored * (float(np.vdot(sharp, restored)) / energy if energy else 1.0)
    down, right = _shift(scaled.mean(axis=2), sharp.mean(axis=2))
    to_rows, from_rows = _overlap(down, sharp.shape[0])
    to_columns, from_columns = _overlap(right, sharp.shape[1])
    moved, inside = np.zeros_like(scaled), np.zeros_like(sharp)
    moved[to_rows, to_columns] = scaled[from_rows, from_columns]
    inside[to_rows, to_columns] = sharp[to_rows, to_columns]
    return moved, inside


def _shift(plane: Image, target: Image) -> tuple[int, int]:
    """Pixels (down, right) by which `plane` has to move to lie on `target`."""
    correlation = np.fft.irfft2(np.fft.rfft2(target) * np.conj(np.fft.rfft2(plane)), s=plane.shape)
    peak = divmod(int(np.argmax(correlation)), plane.shape[1])
    down, right = (at - side if at > side // 2 else at for at, side in zip(peak, plane.shape, strict=True))
    return down, right


def _overlap(shift: int, side: int) -> tuple[slice, slice]:
    """Where the moved pixels go to, and where they come from."""
    return slice(max(shift, 0), side + min(shift, 0)), slice(max(-shift, 0), side - max(shift, 0))


Similarity = Literal["ssim", "mssim"]


@dataclass(frozen=True)
class Score:
    """An image against ground truth. measure: which similarity it is; MSSIM with a trajectory, else SSIM."""

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

    Raises BadInput if there is no pair, an image cannot be read or is too small for its measure, DeviceError if
    the network gives NaN.
    """
    for pair, result in zip(pairs, frame_results([runner], pairs), strict=True):
        result.check_finite(pair, runner)
        restored_rgb = result.outputs[0].image
        blurred, _ = _score(result.blurred, pair)
        restored, sharp_rgb = _score(restored_rgb, pair)
        yield Judged(Row(pair.name, blurred, restored), result.blurred, restored_rgb, sharp_rgb)


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
