"""The blur syntheses: what light does, and what a seed fixes."""

import numpy as np
import pytest

from unblur.runtime.blur import convolve, psf_from_path, shake_path, to_light
from unblur.train.blur import average_frames, disc_kernel, gaussian_kernel, lens_blur, moving_scene
from unblur.train.motion import Motion, exposed, random_motion, random_path, with_moving_objects


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


def test_a_moving_scene_is_a_function_of_its_seed(photograph: np.ndarray) -> None:
    texture = photograph[::-1].copy()
    first, again, other = (moving_scene(photograph, np.random.default_rng(seed), texture) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], other[0])


def detail(frame: np.ndarray) -> float:
    pixels = frame.astype(float)
    return float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean())


def test_blur_removes_detail_and_keeps_brightness(photograph: np.ndarray) -> None:
    lost = []
    for seed in range(20):
        blurred, sharp = moving_scene(photograph, np.random.default_rng(seed))
        assert blurred.mean() == pytest.approx(sharp.mean(), abs=9)
        lost.append(detail(blurred) / detail(sharp))
    assert np.mean(lost) < 0.8
    defocused = lens_blur(photograph, np.random.default_rng(9))
    assert detail(defocused) < 0.9 * detail(photograph)


def test_an_exposure_without_rotation_is_the_mean_of_shifts(photograph: np.ndarray) -> None:
    light = to_light(photograph)
    path = np.array([[-3.0, 0.0], [0.0, 0.0], [3.0, 2.0]])
    inner = slice(8, -8)
    shifts = [np.roll(light, (-int(y), -int(x)), (0, 1)) for x, y in path]
    expected = np.mean(shifts, axis=0)
    np.testing.assert_allclose(exposed(light, Motion(path))[inner, inner], expected[inner, inner], atol=1e-4)


def test_rotation_and_zoom_blur_far_from_their_centre_and_leave_it_sharp(photograph: np.ndarray) -> None:
    light = to_light(photograph)
    height, width = light.shape[:2]
    centre = (width / 2, height / 2)
    still = np.zeros((15, 2))
    for motion in (Motion(still, 8.0, 0.0, centre), Motion(still, 0.0, 0.2, centre)):
        change = np.abs(exposed(light, motion) - light).mean(2)
        middle = change[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4]
        assert middle.mean() < 0.2 * change[:, :16].mean()


def test_a_shake_has_its_length_and_moves_nothing_on_average() -> None:
    path = random_path(np.random.default_rng(1), 20.0, 25)
    assert np.ptp(path, axis=0).max() == pytest.approx(20)
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 1
    blurred = exposed(point, Motion(path))[..., 0].astype(np.float64)
    centre = [(blurred.sum(axis) * np.arange(65)).sum() / blurred.sum() for axis in (0, 1)]
    assert np.count_nonzero(blurred > 1e-4) > 20
    assert centre == pytest.approx([32, 32], abs=0.01)


def test_objects_move_on_their_own_and_the_sharp_partner_shows_them_in_the_middle() -> None:
    black, white = np.zeros((64, 64, 3), np.float32), np.ones((64, 64, 3), np.float32)
    camera = random_motion(np.random.default_rng(2), (64, 64), 12.0)
    sharp, blurred = with_moving_objects(black, black, white, camera, np.random.default_rng(3))
    assert 0.02 < sharp.mean() < 0.9
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.2)
    assert np.abs(blurred - sharp).max() > 0.3
