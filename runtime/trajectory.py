"""A restored picture against the sharp frames along a camera's path, as Koehler et al. 2012 measure it.

    score = trajectory_score(restored_rgb, pair.trajectory)

Which moment of the exposure a restoration shows is not defined, so it is compared with every frame of the path
and the best one counts, for each measure apart. Before each comparison its brightness is scaled and it is moved by
whole pixels, both to fit that frame best; PSNR and MSSIM are of the luma. That is what the evaluation code of
the benchmark does, so the figures compare with those of the papers.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image
from unblur.runtime.metrics import MIN_MSSIM_SIDE, luma, mssim, psnr_float_db

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
            raise BadInput(f"{path} is {sharp.shape[0]} x {sharp.shape[1]}, its blurred picture is not")
        fitted, sharp_inside = fit(values, sharp / 255.0)
        x, y = luma(fitted), luma(sharp_inside)
        return psnr_float_db(x, y), mssim(x, y)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        scores = list(pool.map(compare, trajectory))
    best_db = max(psnr_db for psnr_db, _ in scores)
    best = next(path for path, (psnr_db, _) in zip(trajectory, scores, strict=True) if psnr_db == best_db)
    return TrajectoryScore(best_db, max(value for _, value in scores), best)


def fit(restored: Image, sharp: Image) -> tuple[Image, Image]:
    """Scale `restored` (H, W, 3) to the brightness of `sharp` and move it onto it by whole pixels.

    The scale is that of the least squares; the shift is where the circular cross-correlation is largest. Both
    results are zero where the moved picture has no content.
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
