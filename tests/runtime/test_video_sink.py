"""What goes into a video file: times, size, colours and sound of the source, whole or not at all."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import MAX_PIXELS
from unblur.runtime.media.encode import pixel_format
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.video_sink import VideoSink
from unblur.runtime.media.video_source import VideoSource
from unblur.runtime.metrics import psnr_db

MakeClip = Callable[..., Path]
UNEVEN = (0, 1, 5, 6, 13, 40, 41, 100)


def copy(source: Path, sink: Path, *, crf: int = 18, only: int | None = None) -> VideoSource:
    """Decode and encode again; stop after `only` frames, as Ctrl-C does. The source is closed when it returns."""
    with VideoSource(source, max_pixels=MAX_PIXELS) as frames, VideoSink(sink, frames.info, crf=crf) as target:
        for index, frame in enumerate(frames):
            if index == only:
                break
            target.write(frame)
        target.finish(complete=only is None)
    return frames


def read(path: Path) -> tuple[list[TimedFrame], MediaInfo]:
    with VideoSource(path, max_pixels=MAX_PIXELS) as source:
        return list(source), source.info


def audio_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """(start in seconds, bytes) of the packets of the first sound track."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov"])
def test_uneven_times_survive_exactly(make_clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    clip = make_clip(time_base=Fraction(1, 600), pts=UNEVEN)
    copy(clip, tmp_path / f"out{suffix}")
    assert [frame.time_s for frame in read(tmp_path / f"out{suffix}")[0]] == [Fraction(pts, 600) for pts in UNEVEN]


def test_matroska_rounds_times_to_its_millisecond(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip(time_base=Fraction(1, 600), pts=tuple(10 * pts for pts in UNEVEN))
    copy(clip, tmp_path / "out.mkv")
    times = [float(frame.time_s) for frame in read(tmp_path / "out.mkv")[0]]
    assert times == pytest.approx([pts / 60 for pts in UNEVEN], abs=0.0005)


@pytest.mark.parametrize("first", [64, 77, 500])
def test_a_late_first_frame_stays_late(make_clip: MakeClip, tmp_path: Path, first: int) -> None:
    clip = make_clip(time_base=Fraction(1, 12_800), pts=tuple(first + 512 * index for index in range(8)))
    copy(clip, tmp_path / "out.mp4")
    start_s = read(clip)[0][0].time_s
    assert start_s == pytest.approx(Fraction(first, 12_800), abs=0.001)  # PyAV's own writer rounds it
    assert read(tmp_path / "out.mp4")[0][0].time_s == start_s


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(60), Fraction(15, 2)])
def test_the_frame_rate_and_the_duration_are_kept(make_clip: MakeClip, tmp_path: Path, rate: Fraction) -> None:
    clip = make_clip(time_base=1 / rate)
    source = copy(clip, tmp_path / "out.mp4")
    frames, info = read(tmp_path / "out.mp4")
    assert info.rate == source.info.rate == rate
    assert frames[-1].time_s + frames[-1].duration_s == 8 / rate


def test_the_last_frame_lasts_as_long_as_it_did(tmp_path: Path, frame: Frame) -> None:
    with VideoSink(tmp_path / "out.mp4", MediaInfo(tmp_path, "folder", (64, 96)), crf=18) as sink:
        sink.write(TimedFrame(frame, Fraction(0), Fraction(1, 25)))
        sink.write(TimedFrame(frame, Fraction(1, 25), Fraction(2)))
        sink.finish(complete=True)
    assert read(tmp_path / "out.mp4")[0][-1].duration_s == 2


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 2), (63, 95), (64, 95), (63, 96), (7, 200)])
def test_any_size_is_kept(make_clip: MakeClip, tmp_path: Path, size_hw: tuple[int, int]) -> None:
    clip = make_clip(size_hw=size_hw, pixel_format="yuv444p", frames=3)
    copy(clip, tmp_path / "out.mp4")
    frames, info = read(tmp_path / "out.mp4")
    assert info.size_hw == size_hw
    assert [frame.rgb.shape[:2] for frame in frames] == [size_hw] * 3


@pytest.mark.parametrize(
    ("chroma", "size_hw", "expected"),
    [
        ("420", (64, 96), "yuv420p"),
        ("420", (63, 96), "yuv444p"),
        ("420", (64, 95), "yuv444p"),
        ("422", (63, 96), "yuv422p"),
        ("422", (64, 95), "yuv444p"),
        ("444", (64, 96), "yuv444p"),
    ],
)
def test_subsampling_needs_even_sizes(chroma: str, size_hw: tuple[int, int], expected: str) -> None:
    assert pixel_format(chroma, size_hw) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("matrix", "full_range"), [(1, False), (6, False), (9, False), (1, True), (None, False)])
def test_colours_and_their_tags_survive(
    make_clip: MakeClip, tmp_path: Path, suffix: str, matrix: int | None, full_range: bool
) -> None:
    """Decoded by our reader and by PyAV alone, which reads the tags itself."""
    clip = make_clip(matrix=matrix, full_range=full_range, pixel_format="yuv444p", frames=2)
    source = copy(clip, tmp_path / f"out{suffix}", crf=4)
    frames, info = read(tmp_path / f"out{suffix}")
    assert info.colour == source.info.colour
    before, _ = read(clip)
    assert psnr_db(frames[0].rgb, before[0].rgb) > 36
    assert np.abs(decode_with_pyav(tmp_path / f"out{suffix}") - decode_with_pyav(clip)).max() < 1.2


def decode_with_pyav(path: Path) -> np.ndarray:
    """Mean of each channel of the first frame."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").mean((0, 1))


def test_a_turned_video_is_written_upright(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip(display_matrix=(0, 1, -1, 0), pixel_format="yuv422p")
    copy(clip, tmp_path / "out.mp4", crf=4)
    before, after = read(clip)[0], read(tmp_path / "out.mp4")[0]
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width, frame.rotation) == (96, 64, 0)
    assert psnr_db(after[0].rgb, np.ascontiguousarray(before[0].rgb)) > 36


def test_pixels_keep_their_shape(tmp_path: Path, frame: Frame) -> None:
    info = MediaInfo(tmp_path, "folder", (64, 96), pixel_aspect=Fraction(16, 11))
    with VideoSink(tmp_path / "out.mp4", info, crf=18) as sink:
        sink.write(TimedFrame(frame))
        sink.finish(complete=True)
    assert read(tmp_path / "out.mp4")[1].pixel_aspect == Fraction(16, 11)


@pytest.mark.parametrize(
    ("codec", "suffix", "sink"),
    [("aac", ".mp4", ".mov"), ("aac", ".mp4", ".mkv"), ("flac", ".mkv", ".mp4"), ("pcm_s16le", ".mov", ".mkv")],
)
def test_sound_is_copied_packet_by_packet(
    make_clip: MakeClip, tmp_path: Path, codec: str, suffix: str, sink: str
) -> None:
    clip = make_clip(f"a{suffix}", audio=codec, frames=50)
    copy(clip, tmp_path / f"out{sink}")
    before, after = audio_packets(clip), audio_packets(tmp_path / f"out{sink}")
    assert [data for _, data in after] == [data for _, data in before]
    shift = {round(float(new - old), 2) for (new, _), (old, _) in zip(after, before, strict=True)}
    assert shift == {0.0}
    assert [frame.time_s for frame in read(tmp_path / f"out{sink}")[0]] == [Fraction(i, 25) for i in range(50)]


def test_sound_of_a_broadcast_moves_with_its_picture(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("a.ts", audio="mp2", pts=tuple(range(100, 150)), frames=50)
    with av.open(str(clip)) as container:
        starts = {stream.type: stream.start_time * stream.time_base for stream in container.streams}
    copy(clip, tmp_path / "out.mp4")
    picture, sound = read(tmp_path / "out.mp4")[0][0].time_s, audio_packets(tmp_path / "out.mp4")[0][0]
    assert float(picture - sound) == pytest.approx(float(starts["video"] - starts["audio"]), abs=0.001)


def test_a_container_that_cannot_hold_the_sound_says_so_at_once(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("a.mkv", audio="flac")
    with (
        VideoSource(clip, max_pixels=MAX_PIXELS) as frames,
        pytest.raises(
            BadInput, match=r"out\.mov: \.mov does not take libx264 and flac .* a sink that ends in \.mkv$"
        ),
        VideoSink(tmp_path / "out.mov", frames.info, crf=18),
    ):
        pytest.fail("the sink was entered")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_run_that_was_stopped_is_playable_with_its_sound(
    make_clip: MakeClip, tmp_path: Path, suffix: str
) -> None:
    clip = make_clip("a.mp4", audio="aac", frames=75)
    copy(clip, tmp_path / f"out{suffix}", only=30)
    frames, _ = read(tmp_path / f"out{suffix}")
    assert [frame.time_s for frame in frames] == [Fraction(index, 25) for index in range(30)]
    assert float(audio_packets(tmp_path / f"out{suffix}")[-1][0]) == pytest.approx(30 / 25, abs=0.03)


def test_less_crf_is_better_and_larger(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip()
    original = read(clip)[0][0].rgb
    quality, size = [], []
    for crf in (0, 18, 40):
        copy(clip, tmp_path / "out.mp4", crf=crf)
        quality.append(psnr_db(read(tmp_path / "out.mp4")[0][0].rgb, original))
        size.append((tmp_path / "out.mp4").stat().st_size)
    assert quality == sorted(quality, reverse=True)
    assert size == sorted(size, reverse=True)
    assert quality[0] > 38


def test_leaving_without_finish_discards_and_keeps_the_old_file(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip()
    (tmp_path / "out.mp4").write_text("old")
    with (
        VideoSource(clip, max_pixels=MAX_PIXELS) as frames,
        VideoSink(tmp_path / "out.mp4", frames.info, crf=18) as sink,
    ):
        sink.write(next(iter(frames)))
    assert (tmp_path / "out.mp4").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_an_error_in_the_block_discards_and_passes(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip()

    def failing() -> Iterator[None]:
        with VideoSource(clip, max_pixels=MAX_PIXELS) as frames, VideoSink(tmp_path / "o.mp4", frames.info, crf=18):
            raise RuntimeError("the device failed")
        yield

    with pytest.raises(RuntimeError, match="the device failed"):
        next(failing())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"cannot write .*out\.mp4: the folder .*no does not exist; create it first$"),
        VideoSink(tmp_path / "no" / "out.mp4", MediaInfo(tmp_path, "folder", (64, 96)), crf=18),
    ):
        pytest.fail("the sink was entered")


def test_pictures_of_different_sizes(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"holds images of different sizes, a video needs one; give a folder as sink"
    ):
        VideoSink(tmp_path / "out.mp4", MediaInfo(tmp_path, "folder", None), crf=18)


FULL_DISK = """
import resource, sys
from pathlib import Path
from unblur.runtime.errors import BadInput
from unblur.runtime.media.open_media import open_sink, open_source

source, sink, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    with open_source(source) as frames, open_sink(sink, frames.info, crf=4) as target:
        for frame in frames:
            target.write(frame)
        target.finish(complete=True)
except BadInput as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_disk_that_fills_at_any_moment(make_clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    """From the first byte to the last: the header, a frame, and the index at the end."""
    clip = make_clip(frames=30)

    def write(path: Path, limit: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", FULL_DISK, str(clip), str(path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = tmp_path / f"whole{suffix}"  # by a process of its own too: after other tests its size differs
    assert write(whole, 1 << 40).returncode == 0
    out = tmp_path / "out"
    out.mkdir()
    for limit in (10, whole.stat().st_size // 2, whole.stat().st_size - 200):  # within the index
        result = write(out / f"a{suffix}", limit)
        assert result.returncode == 1
        assert result.stderr == f"cannot write {out / f'a{suffix}'}: File too large\n"
        assert list(out.iterdir()) == []
