"""Cameras of Linux, up to the driver: there is none, it is taken, it is something else, what it is asked for."""

import errno
from pathlib import Path

import av
import pytest
from av.error import FFmpegError

from unblur.runtime.errors import BadInput
from unblur.runtime.media import stream_source as v4l2_source
from unblur.runtime.media.open_media import open_source
from unblur.runtime.media.stream_source import CameraFormat, Stream, StreamSource


def test_no_such_camera() -> None:
    with pytest.raises(
        BadInput, match=r"^cannot read v4l2:///dev/video77\?fps=30: there is no /dev/video77; this mach"
    ):
        open_source("v4l2:///dev/video77?fps=30")


def test_something_else_than_a_camera() -> None:
    with pytest.raises(BadInput, match=r"^cannot read v4l2:///dev/null: it is not a camera$"):
        open_source("v4l2:///dev/null")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "no permission; add yourself to its group: sudo usermod -aG video $USER, then log in again"),
        (errno.EBUSY, "another program is using it; close that first"),
        (
            errno.EINVAL,
            "it does not offer this size, rate or format; `v4l2-ctl --list-formats-ext` shows what it does",
        ),
        (errno.ENODEV, "the camera was unplugged"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_the_driver_says(number: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place where a driver is imitated: its answers to open(), as PyAV passes them on."""

    def refuse(*args: object, **options: object) -> None:
        raise FFmpegError(number, "Cannot allocate memory")

    monkeypatch.setattr("unblur.runtime.media.container.av.open", refuse)
    with pytest.raises(BadInput) as caught:
        open_source("v4l2:///dev/null")
    assert str(caught.value) == f"cannot read v4l2:///dev/null: {message}"


def test_what_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Stream] = []

    def remember(stream: Stream, *, max_pixels: int) -> StreamSource:
        asked.append(stream)
        raise BadInput("enough")

    monkeypatch.setattr(v4l2_source, "StreamSource", remember)
    for query in ("", "?size=480x640&fps=15/2&format=yuyv422"):
        with pytest.raises(BadInput, match="enough"):
            open_source(f"v4l2:///dev/null{query}")
    assert [stream.options for stream in asked] == [
        {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"},
        {"video_size": "640x480", "framerate": "15/2", "input_format": "yuyv422"},
    ]
    assert asked[0].format in v4l2_source._DEMUXER.split(",")


def test_a_pyav_without_video4linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "formats_available", {"mpegts"})
    with pytest.raises(BadInput, match=r"this PyAV has no Video4Linux; try gst://v4l2src device=/dev/null$"):
        open_source("v4l2:///dev/null")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("fsp=30", "has the unknown option 'fsp'; there are size, fps, format"),
        ("fps=0", "has fps='0', expected frames per second above 0, at most 1000"),
        ("size=HD", "has size='HD', expected height x width, as in 720x1280"),
    ],
)
def test_options_that_are_none(query: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_source(f"v4l2:///dev/null?{query}")
    assert str(caught.value) == f"v4l2:///dev/null?{query} {message}"


def test_the_default_is_720p() -> None:
    assert (CameraFormat().size, CameraFormat().fps) == ((720, 1280), 30)
    assert Path("/dev/null").exists()
