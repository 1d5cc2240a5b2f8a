"""Clips for the benchmarks: the frames of a given video, or synthetic ones that move and have detail."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np

from unblur.runtime.frames import Frame, eight_bits
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import open_source
from unblur.runtime.media.video_sink import VideoSink

_RATE = Fraction(25)


def write_clip(path: Path, frames: int, size_hw: tuple[int, int], like: Path | None = None) -> Path:
    """Write `frames` frames of H.264, over and over those of `like` if it is given; in RAM is one at a time.

    size_hw: of a synthetic clip; frames that are given keep their size.
    """
    images = islice(_synthetic(size_hw) if like is None else _repeated(like), frames)
    first = next(images)
    info = MediaInfo(path, "folder", (first.shape[0], first.shape[1]), frames, _RATE, 1 / _RATE)
    with VideoSink(path, info, crf=18) as sink:
        for index, rgb in enumerate(chain([first], images)):
            sink.write(TimedFrame(rgb, index / _RATE, 1 / _RATE))
        sink.finish(complete=True)
    return path


def _repeated(clip: Path) -> Iterator[Frame]:
    while True:
        with open_source(str(clip)) as source:
            for frame in source:
                yield eight_bits(frame.rgb)


def _synthetic(size_hw: tuple[int, int]) -> Iterator[Frame]:
    """Blocks of random colours under fine noise, moving 3 pixels a frame."""
    rng = np.random.default_rng(0)
    height, width = size_hw
    blocks = rng.integers(40, 215, (-(-height // 16), -(-width // 16), 3))
    still = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width] + rng.integers(
        -12, 13, (height, width, 3)
    )
    image = still.astype(np.uint8)
    while True:
        yield image
        image = np.roll(image, 3, axis=1)
