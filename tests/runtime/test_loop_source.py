"""A file that begins again at its end."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.images import write_image
from unblur.runtime.media.open_media import open_source


def test_times_go_on_and_the_order_is_kept(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    for level, name in enumerate(("b.png", "a.png", "c.png")):
        write_image(tmp_path / name, np.full_like(frame, level))
    with open_source(str(tmp_path), rate=Fraction(10), loop=True) as source:
        assert source.info.frames is None
        frames = list(itertools.islice(source, 7))
    assert [frame.rgb[0, 0, 0] for frame in frames] == [1, 0, 2, 1, 0, 2, 1]
    assert [frame.time_s for frame in frames] == [Fraction(index, 10) for index in range(7)]


def test_a_video(make_clip: Callable[..., Path]) -> None:
    path = make_clip(frames=3, pts=(0, 1, 4))
    with open_source(str(path), loop=True) as source:
        frames = list(itertools.islice(source, 7))
    np.testing.assert_array_equal(frames[0].rgb, frames[3].rgb)
    steps = [float(late.time_s - early.time_s) * 25 for early, late in itertools.pairwise(frames)]
    assert steps == pytest.approx([1, 3, 3, 1, 3, 3])  # the last frame is shown as long as the one before it


def test_the_file_is_taken_away(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.png"
    write_image(path, frame)
    with open_source(str(path), loop=True) as source:
        frames = iter(source)
        next(frames)
        path.unlink()
        with pytest.raises(BadInput, match=r"a\.png does not exist$"):
            next(frames)


def test_a_camera_has_no_end_to_begin_again_at() -> None:
    with open_source("test://moving?size=64x96&fps=100&frames=2", loop=True) as source:
        assert len(list(source)) == 2
