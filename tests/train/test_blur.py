"""The blur syntheses: what light does, and what a seed fixes."""

import numpy as np
import pytest

from unblur.runtime.blur import convolve, psf_from_path, shake_path
from unblur.train.blur import average_frames, camera_shake, disc_kernel, gaussian_kernel, lens_blur


def test_average_is_taken_in_linear_light() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    third = average_frames([black, white, black], gamma=2.2)
    assert third[0, 0, 0] == round(255 * (1 / 3) ** (1 / 2.2))
    assert average_frames([black, white, black], gamma=1.0)[0, 0, 0] == 85


def test_average_of_an_even_number_has_no_centre() -> None:
    with pytest.raises(ValueError, match="odd number of frames has a centre, got 2"):
        average_frames([np.zeros((4, 4, 3), np.uint8)] * 2)


@pytest.mark.parametrize("kernel", [gaussian_kernel(1.7), disc_kernel(3.4)])
def test_lens_kernels_are_symmetric_and_keep_energy(kernel: np.ndarray) -> None:
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)


def test_psf_keeps_energy_and_extent() -> None:
    path = shake_path(np.random.default_rng(3), 20.0)
    kernel = psf_from_path(path)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert (path.max(0) - path.min(0)).max() == pytest.approx(20.0)
    rows, columns = np.nonzero(kernel > 1e-6)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) <= 22


def test_convolve_equals_the_sum_of_shifts() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((20, 24, 3), np.float32)
    kernel = rng.random((5, 5), np.float32)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = sum(
        kernel[4 - dy, 4 - dx] * padded[dy : dy + 20, dx : dx + 24] for dy in range(5) for dx in range(5)
    )
    np.testing.assert_allclose(convolve(image, kernel), expected, rtol=1e-4)


def test_camera_shake_is_a_function_of_its_seed(photograph: np.ndarray) -> None:
    first = camera_shake(photograph, np.random.default_rng(5))
    again = camera_shake(photograph, np.random.default_rng(5))
    other = camera_shake(photograph, np.random.default_rng(6))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_blur_removes_detail_and_keeps_brightness(photograph: np.ndarray) -> None:
    def detail(frame: np.ndarray) -> float:
        return float(np.abs(np.diff(frame.astype(float), axis=1)).mean())

    blurred, sharp = camera_shake(photograph, np.random.default_rng(7))
    assert detail(blurred) < 0.8 * detail(sharp)
    assert blurred.mean() == pytest.approx(sharp.mean(), abs=6)
    defocused = lens_blur(photograph, np.random.default_rng(9))
    assert detail(defocused) < 0.9 * detail(photograph)
