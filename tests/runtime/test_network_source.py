"""Network cameras, from real servers on loopback: RTSP, MJPEG and MPEG-TS over HTTP, and what goes wrong."""

import gc
import itertools
import subprocess
import time
import weakref
from fractions import Fraction

import numpy as np
import pytest
from stream_servers import (
    at_once,
    free_port,
    http_server,
    mjpeg,
    need,
    rtsp_server,
    transport_stream,
    wait_for_port,
)

from unblur.runtime.errors import BadInput
from unblur.runtime.images import MAX_PIXELS
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.media.open_media import is_live, open_source

pytestmark = pytest.mark.realtime


def watch(url: str, count: int) -> list[TimedFrame]:
    assert is_live(url)
    with open_source(url) as source:
        return list(itertools.islice(source, count))


def test_rtsp() -> None:
    with rtsp_server() as url, open_source(url) as source:
        info = source.info
        assert (info.kind, info.path, info.name, info.size_hw, info.rate) == ("live", None, url, (64, 96), 30)
        frames = list(itertools.islice(source, 20))
        steps = [late.time_s - early.time_s for early, late in itertools.pairwise(frames[1:])]
        assert steps == [pytest.approx(Fraction(1, 30), abs=0.001)] * 18  # the camera's times, not those of arrival
        white, blue = frames[-1].rgb[10, 3], frames[-1].rgb[10, 92]  # of the colour bars
        assert white.min() > 170
        assert blue[2] > 150 > 80 > blue[:2].max()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1  # leaving does not wait for the server


def test_rtsp_asks_for_a_password() -> None:
    with rtsp_server("viewer", "secret") as url:
        with_password = url.replace("//", "//viewer:secret@")
        with open_source(with_password) as source:
            assert source.info.name == url.replace("//", "//viewer@")
        with pytest.raises(
            BadInput, match=r"//viewer@127.*: wrong user or password \(401\); write USER:PASSW"
        ) as caught:
            open_source(with_password.replace("secret", "guessed"))
        assert "guessed" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_server_that_goes_away_ends_the_source_soon() -> None:
    with rtsp_server() as url:
        source = open_source(url)
        frames = iter(source)
        next(frames)
    began_s = time.monotonic()
    with source:
        for _ in frames:
            pass
    assert time.monotonic() - began_s < 3


def test_mjpeg_over_http() -> None:
    with http_server(*mjpeg(30)) as url:
        frames = watch(url, 30)
    levels = [round(float(frame.rgb.mean())) for frame in frames]
    assert levels == [pytest.approx(10 * (index % 20 + 1), abs=2) for index in range(30)]
    took_s = frames[-1].time_s - frames[0].time_s
    assert 0.4 < took_s < 3  # of arrival: FFmpeg would say 29/25


def test_mpeg_ts_over_http() -> None:
    need("ffmpeg", "ffmpeg")
    port = free_port()
    url = f"http://127.0.0.1:{port}/stream"
    serve = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=25", "-t", "3"]
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-f", "mpegts", "-listen", "1", url]
    with subprocess.Popen([*serve, *encode], stderr=subprocess.DEVNULL) as server:
        wait_for_port(port)
        frames = watch(url, 30)
        server.kill()
    assert [frame.rgb.shape for frame in frames] == [(64, 96, 3)] * 30
    assert frames[29].time_s - frames[9].time_s == Fraction(20, 25)


def test_a_password_for_http() -> None:
    with http_server(*mjpeg(30), account="me:p w") as url:
        assert len(watch(url.replace("//", "//me:p%20w@"), 2)) == 2
        with pytest.raises(BadInput, match=r"^cannot read http://127.*/stream: wrong user or password \(401\)"):
            open_source(url)


def test_a_stream_that_changes_its_size() -> None:
    with http_server(*at_once(transport_stream(10) + transport_stream(10, (48, 64)))) as url:
        frames = watch(url, 20)
    # one is lost at the seam, where the counters of the transport stream start anew
    assert [frame.rgb.shape[:2] for frame in frames] == [(64, 96)] * 9 + [(48, 64)] * 10
    assert all(
        early.time_s < late.time_s for early, late in itertools.pairwise(frames)
    )  # though its clock starts anew


def test_too_large_from_the_start_or_later() -> None:
    with http_server(*at_once(transport_stream(10) + transport_stream(10, (96, 128)))) as url:
        with pytest.raises(
            BadInput, match="frames of 96 x 64 pixels, more than the limit of 6143; raise --max-pixels"
        ):
            open_source(url, max_pixels=64 * 96 - 1)
        with open_source(url, max_pixels=64 * 96) as source, pytest.raises(BadInput, match="128 x 96 pixels, more"):
            list(source)


def test_damaged_packets_are_left_out_and_counted() -> None:
    whole = transport_stream(25)
    damaged = bytearray(whole)
    del damaged[188 * 60 : 188 * 62]
    with http_server(*at_once(bytes(damaged))) as url, open_source(url) as source:
        frames = len(list(source))
    assert source.lost_frames == 2  # the hole begins in one frame and ends in the next
    assert frames == 23


@pytest.mark.parametrize(
    ("scheme", "message"),
    [("rtsp", "Connection refused"), ("http", "Connection refused")],
)
def test_nobody_answers(scheme: str, message: str) -> None:
    url = f"{scheme}://me:secret@127.0.0.1:{free_port()}/live"
    with pytest.raises(BadInput, match=rf"^cannot read {url.replace(':secret', '')}: {message}$"):
        open_source(url)


def test_no_such_stream() -> None:
    with rtsp_server() as url, pytest.raises(BadInput, match=r"elsewhere: Server returned 404 Not Found$"):
        open_source(url.replace("live", "elsewhere"))


@pytest.mark.parametrize("body", [b"<html>a login page</html>" * 100, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"])
def test_what_is_no_video(body: bytes) -> None:
    """A playlist could make FFmpeg open files of this machine."""
    with (
        http_server(*at_once(body)) as url,
        pytest.raises(BadInput, match="it answers, but not with video that can be read"),
    ):
        open_source(url)


def test_frames_are_used_again() -> None:
    with http_server(*at_once(transport_stream(40))) as url, open_source(url, max_pixels=MAX_PIXELS) as source:
        places = {frame.rgb.ctypes.data for frame in source}
    assert len(places) <= 3


def test_it_says_what_a_pixel_is() -> None:
    """The noise that was sent, through H.264 and back."""
    with http_server(*at_once(transport_stream(1))) as url:
        frame = watch(url, 1)[0].rgb
    sent = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert abs(float(frame.mean()) - float(sent.mean())) < 4


def test_a_source_that_is_left_early_is_freed_at_once() -> None:
    """Without the garbage collector: a decoder has threads and buffers, and a camera may stall a thousand times."""
    gc.collect()
    gc.disable()
    try:
        with http_server(*mjpeg(100)) as url:
            source = open_source(url)
            with source:
                next(iter(source))
            freed = weakref.ref(source)
            del source
            assert freed() is None
    finally:
        gc.enable()
