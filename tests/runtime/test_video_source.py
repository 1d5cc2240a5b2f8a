"""What comes out of a video file: upright frames at exact times, and an honest count of what is lost."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import MAX_PIXELS
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.media.video_source import VideoSource
from unblur.runtime.metrics import psnr_db

MakeClip = Callable[..., Path]
MakeFrame = Callable[[int, int], Frame]
UNEVEN = (0, 1, 5, 6, 13, 40, 41, 100)


def read(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[list[TimedFrame], VideoSource]:
    with VideoSource(path, max_pixels=max_pixels) as source:
        return list(source), source


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts"])
def test_frames_come_in_order_and_look_like_what_was_written(
    make_clip: MakeClip, make_frame: MakeFrame, suffix: str
) -> None:
    frames, source = read(make_clip(f"a{suffix}", pixel_format="yuv444p"))
    assert (source.info.kind, source.info.size_hw, source.info.chroma) == ("video", (64, 96), "444")
    assert (source.info.rate, source.lost_frames) == (25, 0)
    assert len(frames) == 8
    for index, frame in enumerate(frames):
        assert psnr_db(np.ascontiguousarray(frame.rgb), np.roll(make_frame(64, 96), 8 * index, axis=1)) > 38


def test_uneven_times_are_exact(make_clip: MakeClip) -> None:
    frames, source = read(make_clip(time_base=Fraction(1, 600), pts=UNEVEN))
    assert [frame.time_s for frame in frames] == [Fraction(pts, 600) for pts in UNEVEN]
    assert source.info.frames == 8


def test_a_broadcast_clock_starts_at_zero(make_clip: MakeClip) -> None:
    frames, _ = read(make_clip("a.ts", pts=tuple(range(100, 108))))
    assert [frame.time_s for frame in frames] == [Fraction(index, 25) for index in range(8)]


def test_other_files_keep_the_time_of_their_first_frame(make_clip: MakeClip) -> None:
    frames, _ = read(make_clip(time_base=Fraction(1, 1000), pts=tuple(range(500, 820, 40))))
    assert frames[0].time_s == Fraction(1, 2)


def test_times_always_increase() -> None:
    """AVI gives no time stamps, broken muxers repeat one: neither may stop a run."""

    class Picture:
        def __init__(self, pts: int | None) -> None:
            self.pts = pts

    source = VideoSource.__new__(VideoSource)
    source._decoder = type("Decoder", (), {"origin_s": Fraction(0)})()
    source._info = type("Info", (), {"time_base": Fraction(1, 100), "rate": Fraction(25)})()
    times, time_s = [], None
    for pts in (None, None, 20, 20, 19, 30):
        time_s = source._time_s(Picture(pts), time_s)  # type: ignore[arg-type]
        times.append(time_s)
    assert times == [
        0,
        Fraction(4, 100),
        Fraction(20, 100),
        Fraction(21, 100),
        Fraction(22, 100),
        Fraction(30, 100),
    ]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda stored: stored),
        ((0, 0, 0, 0), lambda stored: stored),
        ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),
        ((-1, 0, 0, -1), lambda stored: np.rot90(stored, 2)),
        ((0, -1, 1, 0), lambda stored: np.rot90(stored, 1)),
        ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
        ((1, 0, 0, -1), lambda stored: stored[::-1]),
        ((0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
    ],
    ids=["none", "zeros", "clockwise", "half", "anticlockwise", "mirror", "flip", "transpose", "antitranspose"],
)
def test_frames_are_turned_as_a_player_turns_them(
    make_clip: MakeClip,
    make_frame: MakeFrame,
    matrix: tuple[int, int, int, int],
    upright: Callable[[Frame], Frame],
) -> None:
    """(a, b, c, d) maps stored x, y to displayed ax + cy, bx + dy: (0, 1, -1, 0) sends right to down."""
    frames, source = read(make_clip(display_matrix=matrix, pixel_format="yuv444p", frames=1))
    expected = np.ascontiguousarray(upright(make_frame(64, 96)))
    assert source.info.size_hw == frames[0].rgb.shape[:2] == expected.shape[:2]
    assert psnr_db(np.ascontiguousarray(frames[0].rgb), expected) > 38


def test_pixels_of_a_turned_video_are_turned_too(make_clip: MakeClip) -> None:
    clip = make_clip(display_matrix=(0, 1, -1, 0), pixel_aspect=Fraction(4, 3))
    assert read(clip)[1].info.pixel_aspect == Fraction(3, 4)


def test_frames_before_the_start_of_an_edit_are_neither_shown_nor_lost(make_clip: MakeClip, tmp_path: Path) -> None:
    """As in a clip that a phone trimmed: they are there for the decoder only."""
    remux(make_clip("whole.mp4", frames=30, gop=30), tmp_path / "trimmed.mp4", shift=-10)
    frames, source = read(tmp_path / "trimmed.mp4")
    assert [frame.time_s for frame in frames] == [Fraction(index, 25) for index in range(20)]
    assert source.lost_frames == 0


def test_a_skewed_picture_is_refused(make_clip: MakeClip) -> None:
    clip = make_clip(display_matrix=(1, 1, -1, 1))
    with pytest.raises(BadInput, match=r"clip\.mp4 is shown turned by other than quarter turns; turn it upright"):
        read(clip)


@pytest.mark.parametrize(("full_range", "matrix"), [(False, 1), (False, 6), (True, 1), (False, 9)])
def test_tags_decide_the_colours(make_clip: MakeClip, make_frame: MakeFrame, full_range: bool, matrix: int) -> None:
    frames, source = read(make_clip(matrix=matrix, full_range=full_range, pixel_format="yuv444p"))
    assert (source.info.colour.matrix, source.info.colour.range) == (matrix, 2 if full_range else 1)
    shift = frames[0].rgb.astype(float).mean((0, 1)) - make_frame(64, 96).mean((0, 1))
    assert np.abs(shift).max() < 1.2


@pytest.mark.parametrize("keep", [0.45, 0.8])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_without_its_end_gives_what_is_there(make_clip: MakeClip, suffix: str, keep: float) -> None:
    """The header of an MP4 must come first for that, as in a download; Matroska is always so."""
    clip = make_clip(f"whole{suffix}", frames=50, gop=5)
    cut = clip.with_name(f"cut{suffix}")
    remux(clip, cut)
    data = cut.read_bytes()
    cut.write_bytes(data[: int(keep * len(data))])
    frames, source = read(cut)
    assert 0.5 * keep * 50 < len(frames) < 48
    assert source.lost_frames == pytest.approx(50 - len(frames), abs=0 if suffix == ".mp4" else 2)


def test_damaged_frames_are_left_out_and_counted(make_clip: MakeClip) -> None:
    clip = make_clip(frames=50, gop=5)
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[20], packets[33]:
        data[packet.pos + 12 : packet.pos + packet.size] = bytes(packet.size - 12)
    clip.write_bytes(data)
    frames, source = read(clip)
    assert 2 <= source.lost_frames <= 12
    assert len(frames) == 50 - source.lost_frames
    times = {frame.time_s for frame in frames}
    assert times < {Fraction(index, 25) for index in range(50)}


def test_a_whole_file_loses_nothing_even_if_iteration_ends_early(make_clip: MakeClip) -> None:
    with VideoSource(make_clip(), max_pixels=MAX_PIXELS) as source:
        next(iter(source))
        assert source.lost_frames == 0


def test_an_mp4_without_its_index(make_clip: MakeClip) -> None:
    clip = make_clip()
    clip.write_bytes(clip.read_bytes()[:3000])
    with pytest.raises(
        BadInput, match=r"clip\.mp4 is not an image or video that can be read, or its index is missing$"
    ):
        read(clip)


def test_a_video_without_a_frame(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("whole.mp4", frames=3)
    remux(clip, tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: data.index(b"mdat") + 40])
    with pytest.raises(BadInput, match=r"a\.mp4 holds no video frame that can be decoded; is the file whole\?$"):
        read(tmp_path / "a.mp4")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(BadInput, match=r"a\.mp4 is empty$"):
        read(tmp_path / "a.mp4")
    with pytest.raises(BadInput, match=r"b\.mp4 does not exist$"):
        read(tmp_path / "b.mp4")
    with pytest.raises(BadInput, match=r"is not a file$"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["list.m3u8", "notes.txt", "list.ffconcat"])
def test_playlists_and_text_are_no_videos(make_clip: MakeClip, tmp_path: Path, name: str) -> None:
    """FFmpeg would open the files and URLs that they name."""
    make_clip("clip.mp4")
    lines = {
        "list.m3u8": "#EXTM3U\n#EXTINF:1,\nclip.mp4\n",
        "list.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
    }
    (tmp_path / name).write_text(lines.get(name, "hello\n" * 50))
    with pytest.raises(BadInput, match="is not an image or video that can be read"):
        read(tmp_path / name)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "fltp", "mono")
        tone.sample_rate = 48_000
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    with pytest.raises(BadInput, match=r"a\.mp4 holds no video that can be decoded$"):
        read(tmp_path / "a.mp4")


def test_frames_above_the_pixel_limit(make_clip: MakeClip) -> None:
    clip = make_clip()
    assert len(read(clip, max_pixels=64 * 96)[0]) == 8
    with pytest.raises(BadInput, match=r"has 96 x 64 pixels, more than the limit of 6143; raise --max-pixels"):
        read(clip, max_pixels=64 * 96 - 1)


def test_a_size_that_changes_on_the_way(make_clip: MakeClip, tmp_path: Path) -> None:
    """Two MPEG-TS files in one: the second has frames of another size."""
    small, large = make_clip("a.ts"), make_clip("b.ts", size_hw=(96, 128))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(BadInput, match=r"changes its frame size from 96 x 64 to 128 x 96; split it there first$"):
        read(joined)


def remux(source: Path, target: Path, shift: int = 0) -> None:
    """Copy with the index in front, as files for download have it, and `shift` frames later."""
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (stamp + shift * packet.duration for stamp in (packet.pts, packet.dts))
                packet.stream = stream
                writer.mux(packet)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".flv", ".webm"])
def test_a_tag_that_is_not_utf8_is_no_obstacle(tmp_path: Path, suffix: str) -> None:
    """`title=Caf\\xe9`, as old cameras and editors write it, of the file and of its stream."""
    path = tmp_path / f"a{suffix}"
    codec = "libvpx" if suffix == ".webm" else "libx264"
    with av.open(str(path), "w", metadata_encoding="latin-1") as container:
        container.metadata["title"] = "Caf\xe9"
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.metadata["title"] = stream.metadata["language"] = "\xe9\xe9\xe9"
        container.mux(stream.encode(VideoFrame(96, 64, "yuv420p")))
        container.mux(stream.encode(None))
    assert b"Caf\xe9" in path.read_bytes()
    assert len(read(path)[0]) == 1


def test_files_and_streams_are_opened_in_one_place() -> None:
    """Or a tag that is not UTF-8 becomes a traceback there."""
    root = Path(__file__).parents[2]
    rooms = [root / room for room in ("runtime", "train", "calibration", "export")]
    calls = {file.name: file.read_text().count("av.open(") for room in rooms for file in room.rglob("*.py")}
    writers = {"push_child.py", "encode.py", "video_parts.py", "video_sink.py"}
    assert {name for name, count in calls.items() if count} == {"container.py", *writers}
