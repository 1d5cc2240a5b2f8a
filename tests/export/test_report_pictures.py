from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unblur.export.report.data import Picture
from unblur.export.report.pictures import compare_crops


def decoded(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(b64decode(picture.jpeg.partition(",")[2]))))


@pytest.mark.parametrize("has_truth", [True, False])
def test_the_liveliest_crop_is_shown(has_truth: bool) -> None:
    sharp = np.full((400, 600, 3), 90, np.uint8)
    sharp[210:390:2, 400:590] = 200
    restored = sharp - 10
    shown = compare_crops("street", sharp // 2, restored, restored + 1, sharp if has_truth else None)
    pictures = {picture.caption: decoded(picture) for picture in shown.pictures}
    if has_truth:
        assert list(pictures) == [
            *("before", "after", "sharp", "error before, x 4", "error after, x 4", "INT8 against fp32, x 32"),
        ]
        assert np.abs(pictures["error after, x 4"].astype(int) - 40).max() <= 1
        told = [picture.psnr_db for picture in shown.pictures]
        assert told[1] == pytest.approx(20 * np.log10(255 / 10))
        assert [db is None for db in told] == [False, False, True, True, True, True]
    else:
        assert list(pictures) == ["before", "after", "changed, x 4", "INT8 against fp32, x 32"]
    assert {picture.shape for picture in pictures.values()} == {(192, 192, 3)}
    assert pictures["before"].max() > 90  # the stripes are in the crop
    assert np.abs(pictures["INT8 against fp32, x 32"].astype(int) - 32).max() <= 1


def test_a_small_frame_is_shown_whole() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    shown = compare_crops("stamp", frame, frame, frame, None)
    assert {decoded(picture).shape for picture in shown.pictures} == {(40, 50, 3)}
