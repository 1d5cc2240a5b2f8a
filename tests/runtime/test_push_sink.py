"""Pushing a stream to who listens for it: RTSP, RTMP and UDP on loopback, received by FFmpeg."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stream_servers import ffmpeg_receiver, free_port, rtsp_server, wait_for_port

from unblur.runtime.errors import BadInput
from unblur.runtime.media import push_sink
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import open_sink, open_sinks
from unblur.runtime.media.url import without_secrets

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
    shown = url.replace(":secret", "").replace("live/camera", "live/camera" if scheme == "rtsp" else r"live/\*\*\*")
    with pytest.raises(BadInput, match=rf"^cannot push to {shown}: nobody listens there; start the server first$"):
        push(url)


def test_the_server_goes_away(tmp_path: Path) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/camera"
    listen = ("-listen", "1", "-i", url, "-frames:v", "5")
    with ffmpeg_receiver(*listen, into=tmp_path / "received.mkv"):
        wait_for_port(port)
        with pytest.raises(
            BadInput,
            match=rf"^cannot push to {re.escape(without_secrets(url))}: (Broken pipe|Connection reset by peer)$",
        ):
            push(url, frames=500, fps=500)


def test_a_wrong_password() -> None:
    with (
        rtsp_server("camera", "secret") as url,
        pytest.raises(BadInput, match=r"//camera@.*wrong user or password"),
    ):
        push(url.replace("//", "//camera:guess@"))


def test_a_server_that_takes_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/camera"
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (512, 512, 3), np.uint8) for _ in range(200))  # more than the kernel keeps for it
    frames = (TimedFrame(rgb, Fraction(index, 25)) for index, rgb in enumerate(noise))
    with ffmpeg_receiver("-listen", "1", "-i", url, into=tmp_path / "received.mkv") as receiver:
        wait_for_port(port)
        with open_sink(url, replace(LIVE, size_hw=(512, 512)), crf=0) as sink:
            monkeypatch.setattr(push_sink, "_PATIENCE_S", 0.5)
            receiver.send_signal(signal.SIGSTOP)
            with pytest.raises(
                BadInput,
                match=rf"^cannot push to {re.escape(without_secrets(url))}: it took nothing for 0 seconds$",
            ):
                deque(map(sink.write, frames))
        receiver.kill()


def test_pictures_of_different_sizes_do_not_stream() -> None:
    pictures = MediaInfo(Path("pictures"), "folder", None)
    with pytest.raises(BadInput, match="pictures holds images of different sizes, a video needs one"):
        open_sink("udp://127.0.0.1:1", pictures)


@contextmanager
def mute_server() -> Iterator[int]:
    """A port where connections are accepted, by the kernel, and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_a_server_that_never_answers(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_sink, "_PATIENCE_S", 1.0)
    with mute_server() as port, pytest.raises(BadInput, match=r"it took nothing for 1 seconds$"):
        push(f"{scheme}://127.0.0.1:{port}/live/camera")


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_a_stuck_sink_stops_neither_the_loop_nor_its_end(scheme: str, tiny_onnx: Path, tmp_path: Path) -> None:
    """The recording beside it goes on, and SIGTERM ends all within 5 s."""
    with mute_server() as port:
        command = [sys.executable, "-m", "unblur.runtime.cli.main", "run", str(tiny_onnx), "--threads", "1"]
        command += ["--source", "test://moving?size=64x96&fps=20", "--sink", str(tmp_path / "a.mkv"), "--json"]
        command += ["--sink", f"{scheme}://127.0.0.1:{port}/live/camera"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert "took nothing for 4 seconds; connecting again" in "".join(
                itertools.islice((line for line in process.stderr if "connecting again" in line), 1)
            )
            time.sleep(3)
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            stdout, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - began_s < 5
    assert process.returncode == 0
    assert json.loads(stdout)["frames"] > 10


def test_a_connection_that_breaks_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_sink, "_FIRST_WAIT_S", 0.1)
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/camera"
    frame = TimedFrame(np.full((*SIZE_HW, 3), 90, np.uint8))
    first = ffmpeg_receiver("-listen", "1", "-i", url, "-frames:v", "5", into=tmp_path / "first.mkv")
    with first as receiver:
        wait_for_port(port)
        with open_sinks([url], LIVE, retry=True) as sink:
            while receiver.poll() is None:
                sink.write(frame)
                time.sleep(0.02)
            with ffmpeg_receiver(
                "-listen", "1", "-i", url, "-frames:v", "5", into=tmp_path / "second.mkv"
            ) as again:
                give_up_s = time.monotonic() + 60
                while again.poll() is None and time.monotonic() < give_up_s:
                    sink.write(frame)
                    time.sleep(0.02)
                assert again.poll() == 0


def test_the_process_that_pushes_ends_with_its_parent() -> None:
    code = """
import sys, time
from fractions import Fraction
from unblur.runtime.media.interfaces import MediaInfo
from unblur.runtime.media.open_media import open_sink
with open_sink(sys.argv[1], MediaInfo(None, "live", (64, 96), rate=Fraction(25))) as sink:
    print(sink._process.pid, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, f"udp://127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
    give_up_s = time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text() and time.monotonic() < give_up_s:
        time.sleep(0.05)
    assert not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2]
