"""The synthetic camera: frames in time, blurred as told, with a sharp reference that fits."""

import time
from fractions import Fraction

import numpy as np
import pytest

from unblur.runtime.blur import blur_score
from unblur.runtime.errors import BadInput
from unblur.runtime.media.open_media import is_live, open_source
from unblur.runtime.media.synthetic_source import MovingScene, SyntheticSource
from unblur.runtime.media.url import Size
from unblur.runtime.metrics import psnr_db

pytestmark = pytest.mark.realtime


def source_of(**options: object) -> SyntheticSource:
    given = {"size": Size(64, 96), "fps": Fraction(200), **options}
    return SyntheticSource(MovingScene(**given), "test://moving", max_pixels=10**6)  # type: ignore[arg-type]


def test_frames_come_in_real_time_with_their_times() -> None:
    began_s = time.monotonic()
    frames = list(source_of(fps=Fraction(50), frames=6))
    assert 0.1 <= time.monotonic() - began_s < 0.5
    assert [frame.time_s for frame in frames] == [Fraction(index, 50) for index in range(6)]


def test_the_blur_is_the_mean_of_what_passes_by_in_linear_light() -> None:
    source = source_of(blur=4, frames=3)
    frame = list(source)[1].rgb
    panorama = source._sharp / 255.0
    left = round(1 * 4 / 0.5)
    shifted = [panorama[:, left + shift : left + shift + 96] ** 2.2 for shift in (-2, -1, 0, 1)]
    expected = 255 * np.mean(shifted, axis=0) ** (1 / 2.2)
    assert np.abs(frame - expected).max() < 0.51


def test_the_sharp_reference_is_sharper_and_in_the_same_place() -> None:
    source = source_of(size=Size(240, 320), blur=12, frames=4)
    for index, frame in enumerate(source):
        assert blur_score(frame.rgb) > blur_score(source.sharp(index)) + 0.1
        here = psnr_db(frame.rgb, source.sharp(index))
        assert here > psnr_db(frame.rgb, source.sharp(index + 1)) + 2


def test_without_blur_the_frame_is_the_reference() -> None:
    source = source_of(blur=0, frames=1)
    assert psnr_db(next(iter(source)).rgb, source.sharp(0)) == float("inf")


def test_the_seed_decides_the_scene() -> None:
    first, again, other = (next(iter(source_of(seed=seed))).rgb for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_it_is_opened_by_its_address() -> None:
    text = "test://moving?size=64x96&fps=100&blur=3&frames=2"
    assert is_live(text)
    with open_source(text) as source:
        assert source.info.name == text
        assert source.info.size_hw == (64, 96)
        assert [frame.rgb.shape for frame in source] == [(64, 96, 3)] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test://still", "test://still is not a test source; expected test://moving"),
        ("test://moving?sise=1x1", "unknown option 'sise'; there are size, fps, blur, seed, frames"),
        ("test://moving?size=720p", "size='720p', expected height x width"),
        ("test://moving?size=0x10", "size='0x10', expected height x width"),
        ("test://moving?fps=0", "fps='0', expected frames per second above 0"),
        ("test://moving?blur=-1", "blur='-1', expected a whole number of at least 0"),
        ("test://moving?size=9999x99999", "has 999890001 pixels a frame, at most 100000000 are allowed"),
    ],
)
def test_bad_addresses(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("?", r"\?")):
        open_source(text)
