"""Passwords stay out of messages."""

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.media.url import with_credentials, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@camera:554/1", "rtsp://admin@camera:554/1"),
        ("rtsp://admin:p@ss@camera/1", "rtsp://admin@camera/1"),
        ("http://camera/mjpg?user=me&pwd=hunter2&fps=5", "http://camera/mjpg?user=***&pwd=***&fps=5"),
        ("http://camera/mjpg?access_token=abc#top", "http://camera/mjpg?access_token=***#***"),
        (
            "gst://rtspsrc location=rtsp://me:hunter2@camera ! decodebin",
            "gst://rtspsrc location=rtsp://me@camera ! decodebin",
        ),
        ("http://camera/mjpg@2x", "http://camera/mjpg@2x"),
        ("rtsp://camera:554/a:b@c", "rtsp://camera@c"),  # camera:554/a:b could be a user and a password
        ("v4l2:///dev/video0?size=720x1280", "v4l2:///dev/video0?size=720x1280"),
    ],
)
def test_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


SECRET = "S3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://a:S3cr3t@h/1",
        "RTSP://a:S3cr3t@h/1",
        "Rtsp://a:S3cr3t@h:554",
        "rtsp://a:p/S3cr3t@h/1",
        "rtsp://a:S3cr3t/p@h",
        "rtsp://a:1/S3cr3t@h",
        "rtsp://a:p?S3cr3t@h",
        "rtsp://a:p#S3cr3t@h",
        "rtsp://a:p@S3cr3t@h",
        "rtsp://a:p@/S3cr3t@h",
        "rtsp://a:p S3cr3t@h",
        "rtsp://a%3AS3cr3t@h",
        "rtsp://:S3cr3t@h",
        "rtsp://S3cr3t@h",
        "rtsp:a:S3cr3t@h",
        "rtsp:/a:S3cr3t@h",
        "rtsp:///a:S3cr3t@h",
        "rtsps://a:S3cr3t@h",
        "https://a:S3cr3t@h/mjpg",
        "srt://h:9000?passphrase=S3cr3t",
        "srt://h:9000?streamid=S3cr3t",
        "rtmp://h/live2/S3cr3t",
        "rtmp://h/app/x/S3cr3t",
        "rtmps://h:443/rtmp/S3cr3t?bandwidth=1",
        "RTMP://h/live2/S3cr3t",
        "http://h/v?pw=S3cr3t",
        "http://h/v?x=1&sig=S3cr3t",
        "http://h/v?X-Amz-Signature=S3cr3t",
        "http://h/v?S3cr3t",
        "http://h/v;jsessionid=S3cr3t",
        "http://h/v#S3cr3t",
        "http://h/v?user=a&loginuse=a&loginpas=S3cr3t",
        "http://h/v?a=1;pw=S3cr3t",
        "unknown://a:S3cr3t@h",
        "gst://rtspsrc location=rtsp://h user-id=a user-pw=S3cr3t ! decodebin",
        'gst://rtspsrc location=rtsp://h user-pw="a S3cr3t" ! decodebin',
        "gst://rtspsrc location=rtsp://h user-pw=(string)S3cr3t ! decodebin",
        "gst://rtspsrc user-pw = S3cr3t ! decodebin",
        "gst://rtspsrc location=RTSP://a:p/S3cr3t@h ! decodebin",
        "gst://souphttpsrc location=http://h/v?pw=S3cr3t ! decodebin",
        "gst://souphttpsrc cookies=S3cr3t ! decodebin",
        "gst://srtsrc uri=srt://h passphrase=S3cr3t ! decodebin",
        "could not open rtsp://a:S3cr3t@h: not found",
    ],
)
def test_no_form_of_an_address_shows_its_secret(text: str) -> None:
    shown = without_secrets(text)
    assert SECRET not in shown
    assert shown.partition(":")[0] == text.partition(":")[0]


def test_credentials_are_escaped_into_the_address() -> None:
    assert with_credentials("rtsp://camera:554/1", "me:p/s@s:%\n") == "rtsp://me:p%2Fs%40s%3A%25@camera:554/1"


@pytest.mark.parametrize(
    ("url", "credentials", "message"),
    [
        ("v4l2:///dev/video0", "a:b", "v4l2:///dev/video0 takes no credentials; only rtsp:// and http"),
        ("rtsp://a:b@h", "a:b", "rtsp://a@h has credentials in it already"),
        ("rtsp://h", "ab", "the credentials of rtsp://h are not of the form USER:PASSWORD"),
    ],
)
def test_credentials_that_do_not_fit(url: str, credentials: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        with_credentials(url, credentials)
