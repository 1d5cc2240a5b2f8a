"""What a user types becomes the right source and sink, and the wrong is told in a line."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageCms

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image, read_still, write_image
from unblur.runtime.media.image_files import FolderSink, ImageSink, ImageSource
from unblur.runtime.media.interfaces import MediaInfo
from unblur.runtime.media.open_media import open_sink, open_source
from unblur.runtime.media.video_sink import VideoSink

MakeClip = Callable[..., Path]
MakeFrame = Callable[[int, int], Frame]


@pytest.fixture
def folder(tmp_path: Path, make_frame: MakeFrame) -> Path:
    """Three pictures of one size; by name a.png, b.jpg, c.png."""
    path = tmp_path / "pictures"
    path.mkdir()
    for index, name in enumerate(("c.png", "a.png", "b.jpg")):
        write_image(path / name, np.roll(make_frame(64, 96), index, axis=0))
    return path


def copy(source: Path | str, sink: Path | str, **options: object) -> MediaInfo:
    with (
        open_source(str(source), **options) as frames,  # type: ignore[arg-type]
        open_sink(str(sink), frames.info) as target,
    ):
        for frame in frames:
            target.write(frame)
        target.finish(complete=True)
    return frames.info


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_picture_to_a_picture(folder: Path, tmp_path: Path, suffix: str) -> None:
    info = copy(folder / "a.png", tmp_path / f"out{suffix}")
    assert (info.kind, info.frames, info.size_hw) == ("image", 1, (64, 96))
    np.testing.assert_array_equal(read_image(tmp_path / f"out{suffix}"), read_image(folder / "a.png"))


def test_a_picture_to_a_folder_keeps_its_name(folder: Path, tmp_path: Path) -> None:
    copy(folder / "a.png", tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png"]


def test_a_folder_to_a_folder_keeps_names_and_pictures(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    info = copy(folder, tmp_path / "out")
    assert (info.kind, info.frames) == ("folder", 3)
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "c.png"]
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "c.png"), read_image(folder / "c.png"))


def test_pictures_of_a_folder_may_differ_in_size(folder: Path, tmp_path: Path, make_frame: MakeFrame) -> None:
    write_image(folder / "d.png", make_frame(20, 30))
    assert copy(folder, tmp_path / "out").size_hw is None
    assert read_image(tmp_path / "out" / "d.png").shape == (20, 30, 3)


def test_colour_profiles_go_with_their_pictures(folder: Path, tmp_path: Path, frame: Frame) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_image(folder / "a.png", frame, profile)
    copy(folder, tmp_path / "out")
    copy(folder / "a.png", tmp_path / "a.jpg")
    assert (
        read_still(tmp_path / "out" / "a.png").about.icc_profile
        == read_still(tmp_path / "a.jpg").about.icc_profile
        == profile
    )
    assert read_still(tmp_path / "out" / "c.png").about.icc_profile is None


def test_a_folder_to_a_video_and_back(folder: Path, tmp_path: Path) -> None:
    copy(folder, tmp_path / "out.mp4", rate=Fraction(30_000, 1001))
    info = copy(tmp_path / "out.mp4", tmp_path / "frames")
    assert (info.kind, info.frames, info.rate, info.size_hw) == ("video", 3, Fraction(30_000, 1001), (64, 96))
    assert names(tmp_path / "frames") == ["000000.png", "000001.png", "000002.png"]
    for number, name in enumerate(("a.png", "b.jpg", "c.png")):
        decoded = read_image(tmp_path / "frames" / f"{number:06d}.png").astype(int)
        assert np.abs(decoded - read_image(folder / name)).mean() < 8


def test_a_folder_keeps_what_else_is_in_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.d"
    out.mkdir()
    (out / "a.png").write_text("an older result")
    (out / "notes.txt").write_text("keep me")
    copy(folder, out)
    assert names(out) == ["a.png", "b.jpg", "c.png", "notes.txt"]
    np.testing.assert_array_equal(read_image(out / "a.png"), read_image(folder / "a.png"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_not_finished_leaves_no_trace(folder: Path, tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with open_source(str(folder)) as frames, open_sink(str(out), frames.info) as sink:
        sink.write(next(iter(frames)))
        assert not (out / "a.png").exists()
    assert names(tmp_path) == (["out", "pictures"] if exists else ["pictures"])
    assert not exists or names(out) == []


@pytest.mark.parametrize(
    ("sink", "kind"),
    [
        ("out.png", ImageSink),
        ("out.JPG", ImageSink),
        ("out", FolderSink),
        ("out.frames/", FolderSink),
        ("out.MP4", VideoSink),
        ("out.mkv", VideoSink),
        ("file.with.dots.mov", VideoSink),
    ],
)
def test_the_suffix_chooses_the_sink(folder: Path, tmp_path: Path, sink: str, kind: type) -> None:
    with open_source(str(folder / "a.png")) as frames:
        assert isinstance(open_sink(f"{tmp_path}/{sink}", frames.info), kind)


def test_a_suffix_of_no_kind(folder: Path, tmp_path: Path) -> None:
    with (
        open_source(str(folder)) as frames,
        pytest.raises(
            BadInput,
            match=r"out\.xyz: '\.xyz' is neither an image \(\.avif .*\) nor a video \(\.m4v \.mkv \.mov \.mp4\); "
            r"for a folder end it with a slash$",
        ),
    ):
        open_sink(str(tmp_path / "out.xyz"), frames.info)


@pytest.mark.parametrize("source", ["folder", "video"])
def test_many_frames_do_not_fit_one_picture(folder: Path, make_clip: MakeClip, tmp_path: Path, source: str) -> None:
    path = folder if source == "folder" else make_clip()
    with (
        open_source(str(path)) as frames,
        pytest.raises(BadInput, match=rf"out\.png is one image, but .* is a {source}; give a folder or a video"),
    ):
        open_sink(str(tmp_path / "out.png"), frames.info)


def test_the_source_is_never_overwritten(folder: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip()
    (tmp_path / "link.mp4").symlink_to(clip)
    (tmp_path / "link").symlink_to(folder)
    pairs = [
        (clip, clip),
        (clip, tmp_path / "link.mp4"),
        (folder, folder),
        (folder, tmp_path / "link"),
        (folder / "a.png", folder / "a.png"),
        (folder / "a.png", folder),
    ]
    for source, sink in pairs:
        with (
            open_source(str(source)) as frames,
            pytest.raises(BadInput, match=r" is the source itself; give another sink$"),
        ):
            open_sink(str(sink), frames.info)


def test_an_unknown_scheme(folder: Path) -> None:
    expected = r"^srt://me@camera has the unknown scheme 'srt:', not one of {}; for a file .* \./srt://me@camera$"
    with pytest.raises(BadInput, match=expected.format("csi file gst http https rtsp test v4l2")):
        open_source("srt://me:secret@camera")
    with (
        open_source(str(folder)) as frames,
        pytest.raises(BadInput, match=expected.format("file null rtmp rtsp udp")),
    ):
        open_sink("srt://me:secret@camera", frames.info)


def test_a_colon_in_the_name_of_a_file(
    folder: Path, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip("cam:1.mp4")
    monkeypatch.chdir(tmp_path)
    assert copy("cam:1.mp4", "./cam:2.mp4").frames == 8
    assert copy("cam:2.mp4", "out").frames == 8


def test_an_image_of_a_folder_that_cannot_be_read_is_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    """By its header before the work begins, by its data on the way."""
    (folder / "b.jpg").write_text("no image")
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:3000])
    with open_source(str(folder)) as frames, open_sink(str(tmp_path / "out"), frames.info) as sink:
        assert isinstance(frames, ImageSource)
        assert [path.name for path in frames.failed] == ["b.jpg"]
        for frame in frames:
            sink.write(frame)
        sink.finish(complete=True)
    assert [path.name for path in frames.failed] == ["b.jpg", "c.png"]
    assert frames.lost_frames == 2
    assert names(tmp_path / "out") == ["a.png"]


def test_the_pixel_limit_holds_for_every_kind(folder: Path, make_clip: MakeClip) -> None:
    for path in (folder, folder / "a.png", make_clip()):
        open_source(str(path), max_pixels=64 * 96)
        with pytest.raises(BadInput, match=r"more than the limit of 6143"):
            open_source(str(path), max_pixels=64 * 96 - 1)


def test_a_folder_that_cannot_be_made(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for sink, reason in (("no/out", "the folder .*no does not exist; create it first"), ("file/out", "the folder")):
        with (
            open_source(str(folder)) as frames,
            pytest.raises(BadInput, match=rf"cannot write .*out: {reason}"),
            open_sink(str(tmp_path / sink), frames.info),
        ):
            pytest.fail("the sink was entered")
    with (
        open_source(str(folder)) as frames,
        pytest.raises(BadInput, match=r"cannot write .*file: File exists$"),
        open_sink(str(tmp_path / "file"), frames.info) as target,
    ):
        target.finish(complete=True)
