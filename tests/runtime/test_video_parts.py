"""Videos in parts: the same frames at the same times as in one go."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.media.video_parts import PartSink, VideoPart, cut_video, read_parts, times_of
from unblur.runtime.media.video_source import VideoSource


def read(path: Path, part: VideoPart | None = None) -> list[TimedFrame]:
    with VideoSource(path, max_pixels=10**6) as source:
        if part is not None:
            source.cut(part)
        return list(source)


def test_the_parts_of_a_video_are_its_frames_without_loss(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    times = (*range(0, 50, 2), 51, 60)
    clip = make_clip(frames=27, gop=6, pts=times)
    whole, parts = read(clip), cut_video(clip, 8)
    assert len(parts) == 2
    assert sum(part.frames for part in parts) == len(whole) == 27
    files = [tmp_path / f"{index}.mkv" for index in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        with VideoSource(clip, max_pixels=10**6) as source, PartSink(file) as sink:
            source.cut(part)
            for frame in source:
                sink.write(frame)
            sink.finish(complete=True)
    again = list(read_parts(files))
    assert [(frame.time_s, frame.duration_s) for frame in again] == [
        (frame.time_s, frame.duration_s) for frame in whole
    ]
    assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(again, whole, strict=True))

    times_of(files[1]).unlink()
    with pytest.raises(BadInput, match=r"1.mkv is damaged; remove .* and restore the video again"):
        list(read_parts(files))


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 65_536, (16, 32, 3), np.uint16)
    with PartSink(tmp_path / "0.mkv") as sink:
        sink.write(TimedFrame(rgb))
        sink.finish(complete=True)
    (frame,) = read_parts([tmp_path / "0.mkv"])
    assert np.array_equal(frame.rgb, rgb)


def test_a_part_that_lacks_a_frame_is_refused(make_clip: Callable[..., Path]) -> None:
    clip = make_clip(frames=20, gop=5)
    first, second = cut_video(clip, 10)
    with pytest.raises(BadInput, match="has 10 frames from 0 on, expected 11"):
        read(clip, VideoPart(first.start, first.end, 11))
    assert len(read(clip, second)) == 10


def test_a_truncated_video_is_not_cut(make_clip: Callable[..., Path]) -> None:
    clip = make_clip("clip.mkv", frames=40, gop=5)
    assert len(cut_video(clip, 10)) == 4
    clip.write_bytes(clip.read_bytes()[:-200])
    assert cut_video(clip, 10) == [VideoPart(0, None, 0)]
