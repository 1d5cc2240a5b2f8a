"""PSNR, SSIM and multi-scale SSIM as the deblurring papers report them: whole frame, no border cropped."""

import math

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Frame

_SIGMA = 1.5
_RADIUS = 5  # skimage: int(truncate 3.5 * sigma 1.5 + 0.5)
MIN_SSIM_SIDE = 2 * _RADIUS + 1
_C1 = 0.01**2
_C2 = 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, fine to coarse
MIN_MSSIM_SIDE = (MIN_SSIM_SIDE - 1) * 2 ** (len(_SCALE_WEIGHTS) - 1) + 1
_LOW_PASS = (0.03782845550726, -0.02384946501956, -0.11062440441844, 0.37740285561283, 0.85269867900889)
_LUMA = (0.299, 0.587, 0.114)  # BT.601


def psnr_db(restored: Frame, sharp: Frame) -> float:
    """Peak signal-to-noise ratio of two uint8 images of one shape, in dB; inf if they are equal."""
    _check_shapes(restored, sharp)
    difference = restored.astype(np.int16) - sharp
    return _db(float(np.mean(np.square(difference, dtype=np.float64))), peak=255.0)


def psnr_float_db(values: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """PSNR of two float images in [0, 1], unrounded, in dB: the unit of parity between two runners.

    NaN in either gives NaN.
    """
    _check_shapes(values, reference)
    difference = values.astype(np.float64) - reference
    return _db(float(np.mean(np.square(difference))), peak=1.0)


def ssim(restored: Frame, sharp: Frame) -> float:
    """Mean structural similarity, as `skimage.metrics.structural_similarity` gives it with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2` on images in
    [0, 1] (Wang et al. 2004). Images smaller than the 11 x 11 window raise ValueError.
    """
    _check_shapes(restored, sharp)
    if min(restored.shape[:2]) < MIN_SSIM_SIDE:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {restored.shape[:2]}")
    channels = [
        _ssim_channel(restored[..., c] / np.float64(255), sharp[..., c] / np.float64(255)) for c in range(3)
    ]
    return float(np.mean(channels))


def mssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Multi-scale structural similarity of two planes (H, W) in [0, 1] (Wang, Simoncelli and Bovik 2003).

    Five scales, each half the one before after the low-pass of the 9/7 wavelet, as in MeTriX MuX, which the
    evaluation of Koehler et al. 2012 calls. Planes smaller than 161 x 161 raise ValueError: a window does not
    fit into their fifth scale.
    """
    _check_shapes(x, y)
    if min(x.shape) < MIN_MSSIM_SIDE:
        raise ValueError(
            f"multi-scale SSIM needs at least {MIN_MSSIM_SIDE} x {MIN_MSSIM_SIDE} pixels, got {x.shape}"
        )
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS, start=1):
        luminance, contrast, structure = _similarity(x, y)
        product *= (contrast * max(structure, 0.0)) ** weight
        if scale == len(_SCALE_WEIGHTS):
            product *= luminance**weight
        x, y = _halve(x), _halve(y)
    return float(product)


def luma(frame: NDArray[np.floating] | Frame) -> NDArray[np.float64]:
    """The brightness (H, W) of an RGB image (H, W, 3), in its own range (BT.601)."""
    return np.asarray(frame @ np.array(_LUMA))


def _similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Means over the plane of the three factors of SSIM: luminance, contrast, structure."""
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    deviation_x = np.sqrt(np.maximum(_gaussian(x * x) - mean_x * mean_x, 0))
    deviation_y = np.sqrt(np.maximum(_gaussian(y * y) - mean_y * mean_y, 0))
    covariance = _gaussian(x * y) - mean_x * mean_y
    product = deviation_x * deviation_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    contrast = (2 * product + _C2) / (deviation_x**2 + deviation_y**2 + _C2)
    structure = (covariance + _C2 / 2) / (product + _C2 / 2)
    return float(np.mean(luminance)), float(np.mean(contrast)), float(np.mean(structure))


def _halve(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Low-pass, the border mirrored, and every second row and column, beginning with the first."""
    taps = np.array([*_LOW_PASS, *_LOW_PASS[-2::-1]])
    taps /= taps.sum()
    padded = np.pad(plane, len(taps) // 2, mode="symmetric")
    rows, columns = plane.shape
    down = sum(tap * padded[i : i + rows : 2] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * down[:, i : i + columns : 2] for i, tap in enumerate(taps)))


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
