"""Pushing a stream to who listens for it: RTSP, RTMP and UDP on loopback, received by FFmpeg."""

import itertools
import signal
import threading
import time
from collections import deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stream_servers import ffmpeg_receiver, free_port, rtsp_server, wait_for_port

from unblur.runtime.errors import BadInput
from unblur.runtime.media import stream_sinks as push_sink
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import open_sink

pytestmark = pytest.mark.realtime

SIZE_HW = (64, 96)
LIVE = MediaInfo(None, "live", SIZE_HW, frames=None, rate=Fraction(25), url="test://camera")


def push(url: str, frames: int = 30, fps: float = 0) -> None:
    """Grey frames of level 10, 20, ...; fps: as fast as it goes if 0."""
    with open_sink(url, LIVE) as sink:
        for index in range(frames):
            level = 10 * (index % 20 + 1)
            sink.write(TimedFrame(np.full((*SIZE_HW, 3), level, np.uint8), Fraction(index, 25)))
            time.sleep(1 / fps if fps else 0)
        sink.finish(complete=True)


def check(path: Path) -> None:
    """All frames, in their order, at their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in frames]
    assert levels == pytest.approx([10 * (index % 20 + 1) for index in range(30)], abs=2)
    assert frames[29].time - frames[4].time == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("rtsp://127.0.0.1:{}/live", ("-rtsp_flags", "listen", "-i")),
        ("rtmp://127.0.0.1:{}/live/camera", ("-listen", "1", "-i")),
    ],
)
def test_a_server_receives_it(url: str, listen: tuple[str, ...], tmp_path: Path) -> None:
    port = free_port()
    address = url.format(port)
    with ffmpeg_receiver(*listen, address, into=tmp_path / "received.mkv"):
        wait_for_port(port)
        push(address)
    check(tmp_path / "received.mkv")


def test_udp_goes_to_whoever_listens() -> None:
    url = f"udp://127.0.0.1:{free_port()}"
    sender = threading.Timer(0.2, push, (url, 60, 100))
    sender.start()
    with av.open(url, format="mpegts", timeout=5) as container:
        frames = list(itertools.islice(container.decode(video=0), 10))
    sender.join()
    assert {(frame.height, frame.width) for frame in frames} == {SIZE_HW}


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_nobody_listens(scheme: str) -> None:
    url = f"{scheme}://me:secret@127.0.0.1:{free_port()}/live/camera"
    shown = url.replace(":secret", "")
    with pytest.raises(BadInput, match=rf"^cannot push to {shown}: nobody listens there; start the server first$"):
        push(url)


def test_the_server_goes_away(tmp_path: Path) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/camera"
    listen = ("-listen", "1", "-i", url, "-frames:v", "5")
    with ffmpeg_receiver(*listen, into=tmp_path / "received.mkv"):
        wait_for_port(port)
        with pytest.raises(BadInput, match=rf"^cannot push to {url}: (Broken pipe|Connection reset by peer)$"):
            push(url, frames=500, fps=500)


def test_a_wrong_password() -> None:
    with (
        rtsp_server("camera", "secret") as url,
        pytest.raises(BadInput, match=r"//camera@.*wrong user or password"),
    ):
        push(url.replace("//", "//camera:guess@"))


def test_a_server_that_takes_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_sink, "_PATIENCE_S", 0.5)
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/camera"
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (512, 512, 3), np.uint8) for _ in range(200))  # more than the kernel keeps for it
    frames = (TimedFrame(rgb, Fraction(index, 25)) for index, rgb in enumerate(noise))
    with ffmpeg_receiver("-listen", "1", "-i", url, into=tmp_path / "received.mkv") as receiver:
        wait_for_port(port)
        with open_sink(url, replace(LIVE, size_hw=(512, 512)), crf=0) as sink:
            receiver.send_signal(signal.SIGSTOP)
            with pytest.raises(BadInput, match=rf"^cannot push to {url}: it took nothing for 0 seconds$"):
                deque(map(sink.write, frames))
        receiver.kill()


def test_pictures_of_different_sizes_do_not_stream() -> None:
    pictures = MediaInfo(Path("pictures"), "folder", None)
    with pytest.raises(BadInput, match="pictures holds images of different sizes, a video needs one"):
        open_sink("udp://127.0.0.1:1", pictures)
