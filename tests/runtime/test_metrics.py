"""PSNR and SSIM agree with scikit-image, which the papers' numbers are comparable to."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unblur.runtime.frames import Frame
from unblur.runtime.metrics import psnr_db, psnr_float_db, ssim


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


def test_pictures_must_fit(frame: Frame) -> None:
    with pytest.raises(ValueError, match=r"different shapes: \(64, 96, 3\) and \(10, 96, 3\)"):
        psnr_db(frame, frame[:10])
    with pytest.raises(ValueError, match=r"SSIM needs at least 11 x 11 pixels, got \(10, 96\)"):
        ssim(frame[:10], frame[:10])
