"""PSNR and SSIM agree with scikit-image, which the papers' numbers are comparable to."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unblur.runtime.frames import Frame
from unblur.runtime.metrics import luma, mssim, psnr_db, psnr_float_db, ssim


@pytest.fixture
def noisy(frame: Frame) -> Frame:
    noise = np.random.default_rng(5).normal(0, 12, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def test_psnr(frame: Frame, noisy: Frame) -> None:
    assert psnr_db(noisy, frame) == pytest.approx(peak_signal_noise_ratio(frame, noisy), abs=1e-9)
    assert psnr_db(frame, frame) == math.inf


def test_psnr_of_black_against_white_is_zero() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(black, black + np.uint8(255)) == 0


def test_psnr_of_floats_is_not_rounded(frame: Frame) -> None:
    image = frame / np.float32(255)
    assert psnr_float_db(image + np.float32(0.001), image) == pytest.approx(60, abs=0.01)
    assert math.isnan(psnr_float_db(image * np.nan, image))


@pytest.mark.parametrize("size_hw", [(11, 11), (64, 96), (33, 57)])
def test_ssim(make_frame: Callable[..., Frame], size_hw: tuple[int, int]) -> None:
    sharp = make_frame(*size_hw)
    restored = np.roll(sharp, 1, axis=1) // 2 + sharp // 2
    expected = structural_similarity(
        restored / 255,
        sharp / 255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=2,
    )
    assert ssim(restored, sharp) == pytest.approx(expected, abs=1e-7)
    assert ssim(sharp, sharp) == pytest.approx(1)


def similarity_factors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Means of luminance, contrast and structure where the 11 x 11 window fits, by scipy's filters."""

    def average(plane: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(plane, 1.5, radius=5)[5:-5, 5:-5])

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = average(x), average(y)
    sigma_x, sigma_y = np.sqrt(average(x**2) - mean_x**2), np.sqrt(average(y**2) - mean_y**2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * sigma_x * sigma_y + c2) / (sigma_x**2 + sigma_y**2 + c2)
    structure = (average(x * y) - mean_x * mean_y + c2 / 2) / (sigma_x * sigma_y + c2 / 2)
    return np.array([luminance.mean(), contrast.mean(), structure.mean()])


def test_mssim(make_frame: Callable[..., Frame]) -> None:
    """Against scipy: five scales, halved after the 9/7 low-pass, weighted as in Wang et al. 2003."""
    sharp = make_frame(175, 192)
    x, y = luma(np.roll(sharp, 2, axis=1)) / 255, luma(sharp) / 255
    taps = np.array([0.0378, -0.0238, -0.1106, 0.3774, 0.8527, 0.3774, -0.1106, -0.0238, 0.0378])
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    expected = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        luminance, contrast, structure = similarity_factors(x, y)
        expected *= (contrast * structure) ** weight
        x, y = (ndimage.correlate(plane, kernel, mode="reflect")[::2, ::2] for plane in (x, y))
    expected *= luminance**weight
    assert mssim(luma(np.roll(sharp, 2, axis=1)) / 255, luma(sharp) / 255) == pytest.approx(expected, abs=5e-5)
    assert expected < 0.97
    assert mssim(luma(sharp) / 255, luma(sharp) / 255) == pytest.approx(1)


def test_mssim_of_opposites_is_zero(make_frame: Callable[..., Frame]) -> None:
    plane = luma(make_frame(176, 176)) / 255
    assert mssim(1 - plane, plane) == 0


def test_mssim_needs_five_scales() -> None:
    with pytest.raises(ValueError, match=r"at least 161 x 161 pixels, got \(160, 200\)"):
        mssim(np.zeros((160, 200)), np.zeros((160, 200)))


def test_pictures_must_fit(frame: Frame) -> None:
    with pytest.raises(ValueError, match=r"different shapes: \(64, 96, 3\) and \(10, 96, 3\)"):
        psnr_db(frame, frame[:10])
    with pytest.raises(ValueError, match=r"SSIM needs at least 11 x 11 pixels, got \(10, 96\)"):
        ssim(frame[:10], frame[:10])
