from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unblur.export.report.images import compare_crops, gain_db, most_detailed_crop


def decoded(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))))


def test_the_most_detailed_crop_is_compared() -> None:
    sharp = np.full((700, 1000, 3), 90, np.uint8)
    sharp[300:690:2, 400:990] = 200
    crop = most_detailed_crop(sharp)
    shown = compare_crops("street", crop, sharp // 2, sharp - 10, sharp)
    assert shown.size_hw == (480, 720)
    assert shown.after_db == pytest.approx(20 * np.log10(255 / 10))
    assert shown.after_db - shown.before_db == pytest.approx(gain_db(crop, sharp // 2, sharp - 10, sharp))
    images = [decoded(uri) for uri in (shown.before, shown.after, shown.sharp)]
    assert {image.shape for image in images} == {(480, 720, 3)}
    assert images[2].max() > 90  # the stripes are in the crop


def test_a_small_frame_is_shown_whole() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    shown = compare_crops("stamp", most_detailed_crop(frame), frame, frame, frame)
    assert decoded(shown.after).shape == (40, 50, 3)
