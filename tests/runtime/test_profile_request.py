"""What a user asks a profile for is understood, or refused in one line."""

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.sweep import SweepRequest, sweeps_from_text
from unblur.runtime.spec import parse_size_hw


def test_a_size_is_height_times_width() -> None:
    assert parse_size_hw("720x1280") == (720, 1280)


@pytest.mark.parametrize("text", ["720", "720x0", "x", "720*1280", "-1x5", "720x1280x3", "1e3x4"])
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_size_hw(text)
    assert str(refused.value) == f"--size is '{text}', expected height x width such as 720x1280"


def test_sweeps() -> None:
    assert sweeps_from_text(["sizes", "streams"]) == SweepRequest(sizes=(), streams=(1, 2, 4))
    assert sweeps_from_text(["sizes=64x96,128x192", "batches=1,16"]) == SweepRequest(
        sizes=((64, 96), (128, 192)), batches=(1, 16)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames", "--sweep is 'frames', expected one of sizes, batches, streams, or batches=1,2,8"),
        ("batches=0", "--sweep batches has '0', expected whole numbers from 1, such as batches=1,2,8"),
        ("streams=1,", "--sweep streams has '', expected whole numbers from 1, such as streams=1,2,8"),
        ("sizes=720p", "--sweep sizes is '720p', expected height x width such as 720x1280"),
    ],
)
def test_another_sweep_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        sweeps_from_text([text])
    assert str(refused.value) == message
