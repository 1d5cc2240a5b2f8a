"""The score grows with the blur, as scikit-image's does, and is cheap to have."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d
from skimage import data
from skimage.measure import blur_effect

from unblur.runtime.blur import BlurGate, blur_score
from unblur.runtime.frames import Frame


@pytest.fixture(scope="module")
def photograph() -> Frame:
    return np.ascontiguousarray(data.chelsea())


def smeared(frame: Frame, pixels: int, axis: int) -> Frame:
    return uniform_filter1d(frame, pixels, axis=axis, mode="nearest") if pixels > 1 else frame


@pytest.mark.parametrize("axis", [0, 1])
def test_it_grows_with_motion_in_either_direction(photograph: Frame, axis: int) -> None:
    scores = [blur_score(smeared(photograph, pixels, axis)) for pixels in (1, 5, 9, 17)]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] > 0.2


@pytest.mark.parametrize("pixels", [1, 7, 13])
def test_it_ranks_like_the_original(photograph: Frame, pixels: int) -> None:
    frame = smeared(photograph, pixels, 1)
    assert blur_score(frame) == pytest.approx(blur_effect(frame, channel_axis=2), abs=0.12)


def test_contrast_and_brightness_do_not_matter(photograph: Frame) -> None:
    darker = (photograph // 3 + 20).astype(np.uint8)
    assert blur_score(darker) == pytest.approx(blur_score(photograph), abs=0.03)


@pytest.mark.parametrize("frame", [np.full((64, 96, 3), 9, np.uint8), np.zeros((64, 8, 3), np.uint8)])
def test_what_shows_nothing_is_not_called_sharp(frame: Frame) -> None:
    assert blur_score(frame) == 1


def test_the_gate_spares_what_is_sharp(photograph: Frame) -> None:
    score = blur_score(photograph)
    assert BlurGate(sharp=score, mild=1).highest_rung(photograph) == 0
    assert BlurGate(sharp=0, mild=score).highest_rung(photograph) == 1
    assert BlurGate(sharp=0, mild=score - 0.01).highest_rung(photograph) is None
