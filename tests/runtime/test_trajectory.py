"""The measure of Koehler et al.: the best frame of a path, after a change of brightness and a shift are undone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import write_image
from unblur.runtime.quality.evaluate import fit, trajectory_score


@pytest.fixture
def trajectory(tmp_path: Path, make_frame: Callable[..., Frame]) -> list[Path]:
    """Three frames of 176 x 192 that differ by more than a shift: the first is what the tests restore."""
    sharp = make_frame(176, 192)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, step in zip(paths, (1, 2, 3), strict=True):
        write_image(path, (sharp // step * step).astype(np.uint8))
    return paths


def test_the_best_frame_counts(trajectory: list[Path], make_frame: Callable[..., Frame]) -> None:
    score = trajectory_score(make_frame(176, 192), trajectory[::-1])
    assert score.psnr_db == np.inf
    assert score.mssim == pytest.approx(1)
    assert score.sharp == trajectory[0]
    assert trajectory_score(make_frame(176, 192), trajectory[2:]).psnr_db < 60


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-7, 2), (4, 6)])
def test_brightness_and_shift_are_undone(make_frame: Callable[..., Frame], down: int, right: int) -> None:
    wide = make_frame(200, 220) / 255
    sharp = wide[12:188, 14:206]
    shown = wide[12 - down : 188 - down, 14 - right : 206 - right] * 0.8
    moved, inside = fit(shown, sharp)
    height, width = 176 - abs(down), 192 - abs(right)
    assert np.count_nonzero(inside.any(axis=2)) == height * width
    assert np.count_nonzero(moved.any(axis=2)) == height * width
    scale = np.vdot(sharp, shown) / np.vdot(shown, shown)
    np.testing.assert_allclose(moved / (0.8 * scale), inside, atol=1e-12)


def test_a_black_picture_is_not_scaled(make_frame: Callable[..., Frame]) -> None:
    black = np.zeros((176, 192, 3))
    moved, _ = fit(black, make_frame(176, 192) / 255)
    assert np.array_equal(moved, black)


def test_frames_that_do_not_fit(trajectory: list[Path], make_frame: Callable[..., Frame]) -> None:
    with pytest.raises(BadInput, match=r"0\.png is 176 x 192, its blurred image is not"):
        trajectory_score(make_frame(180, 192), trajectory)
    with pytest.raises(BadInput, match=r"is 64 x 96; MSSIM needs at least 161 pixels a side"):
        trajectory_score(make_frame(64, 96), trajectory)
