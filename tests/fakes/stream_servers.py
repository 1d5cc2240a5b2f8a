"""Real servers and receivers on loopback: HTTP by Python, RTSP by GStreamer, and what FFmpeg receives.

What is not installed skips the test and says what to install; `.ci/run` installs all of it.
"""

import base64
import io
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

SYSTEM_PYTHON = "/usr/bin/python3"
PATTERN = "videotestsrc is-live=true ! video/x-raw,width=96,height=64,framerate=30/1"

Send = Callable[[Callable[[bytes], object]], None]
"""Writes the body of an answer: called with the function that sends bytes, which raises once nobody listens."""


def need(program: str, packages: str) -> None:
    """Skip the test unless `program` is installed."""
    if shutil.which(program) is None:
        pytest.skip(f"NOT TESTED WITHOUT {program}: apt-get install {packages}")


def need_gstreamer() -> None:
    need("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good")


@cache
def _has_rtsp_server() -> bool:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
    code += "Gst.init(None); assert Gst.ElementFactory.find('x264enc')"
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def free_port() -> int:
    """A TCP port that nobody uses, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rtsp_server(*account: str, encoder: str = "x264enc tune=zerolatency key-int-max=15") -> Iterator[str]:
    """A moving pattern at the yielded address; account: user and password it asks for."""
    if not _has_rtsp_server():
        pytest.skip(
            "NO RTSP TESTED: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly"
        )
    pipeline = f"{PATTERN} ! {encoder} ! rtph264pay name=pay0 pt=96 config-interval=1"
    script = Path(__file__).with_name("rtsp_server.py")
    command = [SYSTEM_PYTHON, str(script), pipeline, *account]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"rtsp://127.0.0.1:{int(server.stdout.readline())}/live"
        finally:
            server.kill()


@contextmanager
def http_server(content_type: str, send: Send, account: str = "") -> Iterator[str]:
    """Answers every request with what `send` writes; account: USER:PASSWORD it asks for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            expected = "Basic " + base64.b64encode(account.encode()).decode()
            if account and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                send(lambda data: self.wfile.write(b"%X\r\n%s\r\n" % (len(data), data)))
                self.wfile.write(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                return  # the client has seen enough

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/stream"
        finally:
            server.shutdown()


def mjpeg(frames: int, size_hw: tuple[int, int] = (64, 96), fps: float = 50) -> tuple[str, Send]:
    """For `http_server`: grey frames of level 10, 20, ..., as an IP camera sends them."""

    def send(write: Callable[[bytes], object]) -> None:
        for index in range(frames):
            buffer = io.BytesIO()
            level = 10 * (index % 20 + 1)
            Image.fromarray(np.full((*size_hw, 3), level, np.uint8)).save(buffer, "JPEG")
            jpeg = buffer.getvalue()
            write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
            time.sleep(1 / fps)

    return "multipart/x-mixed-replace;boundary=next", send


def transport_stream(frames: int, size_hw: tuple[int, int] = (64, 96)) -> bytes:
    """MPEG-TS with H.264 at 25 frames per second, a key frame every 5, of noise: some packets a frame."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "tune": "zerolatency", "crf": "20"})
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            noise = rng.integers(0, 256, (*size_hw, 3), np.uint8)
            container.mux(stream.encode(VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def at_once(body: bytes) -> tuple[str, Send]:
    """For `http_server`: a transport stream as fast as it goes."""

    def send(write: Callable[[bytes], object]) -> None:
        write(body)

    return "video/mp2t", send


@contextmanager
def ffmpeg_receiver(*listen: str, into: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """FFmpeg listens as told and copies what it receives into a Matroska file, until the sender has gone."""
    need("ffmpeg", "ffmpeg")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *listen, "-c", "copy", "-f", "matroska", str(into)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as receiver:
        try:
            yield receiver
            receiver.wait(10)
        finally:
            receiver.kill()


def wait_for_port(port: int) -> None:
    """Until somebody listens on a TCP port, without connecting to it: FFmpeg takes one connection only."""
    deadline_s = time.monotonic() + 10
    while f":{port:04X} 00000000:0000 0A" not in Path("/proc/net/tcp").read_text():  # 0A: LISTEN
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"nobody listens on port {port}")
        time.sleep(0.02)
