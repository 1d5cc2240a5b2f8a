"""Passwords stay out of messages."""

import pytest

from unblur.runtime.media.url import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@camera:554/1", "rtsp://admin@camera:554/1"),
        ("rtsp://admin:p@ss@camera/1", "rtsp://admin@camera/1"),
        ("http://camera/mjpg?user=me&pwd=hunter2&fps=5", "http://camera/mjpg?user=me&pwd=***&fps=5"),
        ("http://camera/mjpg?access_token=abc#top", "http://camera/mjpg?access_token=***#top"),
        (
            "gst://rtspsrc location=rtsp://me:hunter2@camera ! decodebin",
            "gst://rtspsrc location=rtsp://me@camera ! decodebin",
        ),
        ("rtsp://camera:554/a:b@c", "rtsp://camera:554/a:b@c"),
        ("v4l2:///dev/video0?size=720x1280", "v4l2:///dev/video0?size=720x1280"),
    ],
)
def test_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
