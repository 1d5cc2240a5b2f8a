"""PSNR and SSIM as the deblurring papers report them: 8-bit RGB, whole frame, no border cropped."""

import math

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Frame

_SIGMA = 1.5
_RADIUS = 5  # skimage: int(truncate 3.5 * sigma 1.5 + 0.5)
MIN_SSIM_SIDE = 2 * _RADIUS + 1
_C1 = 0.01**2
_C2 = 0.03**2


def psnr_db(restored: Frame, sharp: Frame) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape, in dB; inf if they are equal."""
    _check_shapes(restored, sharp)
    difference = restored.astype(np.int16) - sharp
    return _db(float(np.mean(np.square(difference, dtype=np.float64))), peak=255.0)


def psnr_float_db(values: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """PSNR of two float images in [0, 1], unrounded, in dB; what the parity between two runners is told in.

    NaN in either gives NaN.
    """
    _check_shapes(values, reference)
    difference = values.astype(np.float64) - reference
    return _db(float(np.mean(np.square(difference))), peak=1.0)


def ssim(restored: Frame, sharp: Frame) -> float:
    """Mean structural similarity, as `skimage.metrics.structural_similarity` gives it with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2` on images in
    [0, 1] (Wang et al. 2004). Pictures smaller than the 11 x 11 window raise ValueError.
    """
    _check_shapes(restored, sharp)
    if min(restored.shape[:2]) < MIN_SSIM_SIDE:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {restored.shape[:2]}")
    channels = [
        _ssim_channel(restored[..., c] / np.float64(255), sharp[..., c] / np.float64(255)) for c in range(3)
    ]
    return float(np.mean(channels))


def _ssim_channel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    variance_x = _gaussian(x * x) - mean_x * mean_x
    variance_y = _gaussian(y * y) - mean_y * mean_y
    covariance = _gaussian(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    below = (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return float(np.mean(above / below))


def _gaussian(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian average at every position whose whole window lies inside the plane."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights /= weights.sum()
    height, width = plane.shape
    rows = height - 2 * _RADIUS
    columns = width - 2 * _RADIUS
    down = sum(weight * plane[i : i + rows] for i, weight in enumerate(weights))
    return np.asarray(sum(weight * down[:, i : i + columns] for i, weight in enumerate(weights)))


def _db(mean_square: float, peak: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def _check_shapes(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {a.shape} and {b.shape}")
