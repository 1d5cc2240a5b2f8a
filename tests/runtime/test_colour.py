"""Colours survive decoding and encoding, whatever the tags of the video."""

from types import SimpleNamespace

import numpy as np
import pytest
from av.video.format import VideoFormat

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.media.colour import REC709, Colour, ColourConverter, chroma_of, colour_of

BT601 = Colour(matrix=6, range=1, primaries=6, transfer=6)
FULL_709 = Colour(matrix=1, range=2, primaries=1, transfer=1)
BT2020 = Colour(matrix=9, range=1, primaries=9, transfer=14)
UNTAGGED = Colour(matrix=2, range=0, primaries=2, transfer=2)


def mean_shift(frame: Frame, other: Frame) -> float:
    """Largest difference of a channel's mean, in levels."""
    return float(np.abs(frame.astype(float).mean((0, 1)) - other.mean((0, 1))).max())


@pytest.mark.parametrize("colour", [REC709, BT601, BT2020, UNTAGGED], ids=["709", "601", "2020", "untagged"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_a_round_trip_does_not_shift_colours(frame: Frame, colour: Colour, pixel_format: str) -> None:
    back = ColourConverter(colour).rgb_from(ColourConverter(colour).yuv_from(frame, pixel_format))
    assert (back.shape, back.dtype) == (frame.shape, np.uint8)
    assert mean_shift(back, frame) < 0.3


def test_full_range_does_not_shift_colours(frame: Frame) -> None:
    """swscale rounds full-range chroma down by half a level."""
    back = ColourConverter(FULL_709).rgb_from(ColourConverter(FULL_709).yuv_from(frame, "yuv444p"))
    assert mean_shift(back, frame) < 1.2
    assert np.abs(back.astype(int) - frame).max() <= 4


@pytest.mark.parametrize(("encoded", "decoded"), [(REC709, BT601), (REC709, FULL_709), (BT2020, REC709)])
def test_another_matrix_or_range_would_shift_them(frame: Frame, encoded: Colour, decoded: Colour) -> None:
    red = np.clip(frame + np.array([60, -60, -60]), 0, 255).astype(np.uint8)
    back = ColourConverter(decoded).rgb_from(ColourConverter(encoded).yuv_from(red, "yuv444p"))
    assert mean_shift(back, red) > 2


def test_the_matrix_is_the_one_of_the_standard() -> None:
    """ITU-R BT.709-6 and BT.601-7: 8-bit limited-range luma of pure red is 63 and 82."""
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    for colour, luma in ((REC709, 63), (BT601, 81)):
        plane = ColourConverter(colour).yuv_from(red, "yuv444p").to_ndarray()[0]
        assert abs(int(plane[0, 0]) - luma) <= 1


def test_odd_sizes_and_padded_rows(frame: Frame) -> None:
    odd = frame[:63, :83]
    back = ColourConverter(REC709).rgb_from(ColourConverter(REC709).yuv_from(odd, "yuv444p"))
    assert back.shape == odd.shape
    assert np.abs(back.astype(int) - odd).max() <= 3


@pytest.mark.parametrize(
    ("pixel_format", "chroma"),
    [
        ("yuv420p", "420"),
        ("yuvj420p", "420"),
        ("nv12", "420"),
        ("yuv420p10le", "420"),
        ("gray", "420"),
        ("yuv410p", "420"),
        ("yuv422p", "422"),
        ("yuv411p", "422"),
        ("yuv444p", "444"),
        ("yuv440p", "444"),
        ("gbrp", "444"),
        ("pal8", "444"),
    ],
)
def test_chroma_is_kept_or_refined(pixel_format: str, chroma: str) -> None:
    assert chroma_of(VideoFormat(pixel_format)) == chroma


def context(matrix: int) -> SimpleNamespace:
    return SimpleNamespace(colorspace=matrix, color_range=1, color_primaries=9, color_trc=16)


def test_tags_are_read_and_rgb_gets_a_matrix() -> None:
    assert colour_of(context(9), "a.mp4") == Colour(matrix=9, range=1, primaries=9, transfer=16)  # type: ignore[arg-type]
    assert colour_of(context(0), "a.mp4") == Colour(matrix=1, range=1, primaries=9, transfer=16)  # type: ignore[arg-type]


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"a\.mp4 has the colour matrix 8 \(H\.273\), expected RGB, .* convert it first"
    ):
        colour_of(context(8), "a.mp4")  # type: ignore[arg-type]
