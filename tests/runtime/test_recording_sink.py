"""Recordings of live streams: whole after any end, at the times of capture, in one size."""

import logging
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.media.interfaces import TIME_BASE, MediaInfo, Sink, TimedFrame
from unblur.runtime.media.open_media import open_sink, open_sinks

pytestmark = pytest.mark.realtime

SIZE_HW = (64, 96)
LIVE = MediaInfo(None, "live", SIZE_HW, frames=None, rate=Fraction(25), time_base=TIME_BASE, url="test://camera")


def grey(level: int, time_s: Fraction, size_hw: tuple[int, int] = SIZE_HW) -> TimedFrame:
    return TimedFrame(np.full((*size_hw, 3), level, np.uint8), time_s)


def write(sink: Sink, frames: int, start_s: Fraction = Fraction(0)) -> None:
    for index in range(frames):
        sink.write(grey(10 * index % 250, start_s + Fraction(index, 25)))


def decode(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """Times and frames, by FFmpeg."""
    with av.open(str(path)) as container:
        packets = list(container.demux(video=0))
        frames = [frame for packet in packets for frame in decoded(packet)]
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in frames]


def decoded(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    """As a player does: what was cut in two is left out."""
    try:
        return packet.decode()
    except InvalidDataError:
        return []


@pytest.fixture(params=["mp4", "mkv", "mov"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / f"camera.{request.param}"


def test_frames_at_the_times_of_capture(path: Path) -> None:
    captured = [Fraction(0), Fraction(1, 25), Fraction(1, 5), Fraction(3, 10)]
    with open_sink(str(path), LIVE) as sink:
        for index, time_s in enumerate(captured):
            sink.write(grey(50 * index + 20, 9 + time_s))
        sink.finish(complete=True)
    frames = decode(path)
    assert [time for time, _ in frames] == pytest.approx([float(time_s) for time_s in captured], abs=0.001)
    assert [float(frame.mean()) for _, frame in frames] == pytest.approx([20, 70, 120, 170], abs=2)


def test_times_go_on_when_the_source_was_opened_again(path: Path) -> None:
    with open_sink(str(path), LIVE) as sink:
        write(sink, 3, start_s=Fraction(700))
        write(sink, 3)
        sink.finish(complete=True)
    times = [time for time, _ in decode(path)]
    assert times == sorted(times)
    assert len(times) == 6
    assert times[5] < 5


def test_it_is_kept_without_an_end(path: Path) -> None:
    """As when the loop fails."""
    with open_sink(str(path), LIVE) as sink:
        write(sink, 10)
    assert len(decode(path)) == 10


def test_without_a_frame_there_is_no_file(path: Path) -> None:
    with open_sink(str(path), LIVE):
        assert path.exists()
    assert not path.exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from test_recording_sink import LIVE, open_sinks, write
with open_sinks(sys.argv[1:], LIVE) as sink:
    write(sink, 130)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_costs_two_seconds_at_most(tmp_path: Path) -> None:
    paths = [tmp_path / f"camera{suffix}" for suffix in (".mp4", ".mkv", ".mov")]
    code = KILLED.format(folder=str(Path(__file__).parent))
    assert subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=False).returncode == -9
    assert all(len(decode(path)) >= 130 - 50 for path in paths)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What the kernel refuses then is what it refuses on a full disk, under another name."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_stops_it_and_leaves_what_fits(path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (10, *SIZE_HW, 3), np.uint8)
    frames = (TimedFrame(noise[index % 10], Fraction(index, 25)) for index in range(500))
    message = rf"^cannot write {path}: File too large; it holds the first [1-9]\.\d s$"
    with files_of_at_most(300_000), open_sink(str(path), LIVE) as sink, pytest.raises(BadInput, match=message):
        deque(map(sink.write, frames))
    assert len(decode(path)) >= 25


def test_another_size_is_shown_in_the_first_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_sink(str(path), LIVE) as sink, caplog.at_level(logging.WARNING):
        write(sink, 2)
        for index in range(3):
            sink.write(grey(200, Fraction(2 + index, 25), size_hw=(96, 96)))
        write(sink, 1)
        sink.finish(complete=True)
    frames = decode(path)
    assert {frame.shape for _, frame in frames} == {(*SIZE_HW, 3)}
    tall = frames[3][1].astype(float)
    assert tall[:, 20:76].mean() == pytest.approx(200, abs=3)  # 64 of 96 columns, in the middle
    assert max(tall[:, :12].mean(), tall[:, 84:].mean()) < 4
    assert caplog.messages == [
        "test://camera now has frames of 96 x 96; they are shown within the 96 x 64 it began with",
        "test://camera now has frames of 96 x 64; they are shown within the 96 x 64 it began with",
    ]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"no/a\.mp4: the folder .*no does not exist; create it first$"),
        open_sink(str(tmp_path / "no" / "a.mp4"), LIVE),
    ):
        pytest.fail("the sink was entered")
    (tmp_path / "a.mp4").mkdir()
    with (
        pytest.raises(BadInput, match=r"cannot write .*a\.mp4: it is a folder, not a file$"),
        open_recording(tmp_path / "a.mp4"),
    ):
        pytest.fail("the sink was entered")


def open_recording(path: Path) -> Sink:
    """Past `open_sink`, which takes what is a folder for one."""
    from unblur.runtime.media.encode import RecordingSink

    return RecordingSink(path, LIVE, "mp4", crf=18)


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"out\.png is one image, but test://camera is a live source; give a folder"):
        open_sink(str(tmp_path / "out.png"), LIVE)


def test_a_folder_fills_at_once_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    for start in (0, 2):
        with open_sink(f"{out}/", LIVE) as sink:
            sink.write(grey(start, Fraction(0)))
            sink.write(grey(start + 1, Fraction(1), size_hw=(32, 32)))  # a folder takes any size
            assert len(list(out.iterdir())) == start + 2
    assert sorted(picture.name for picture in out.iterdir()) == [f"00000{index}.png" for index in range(4)]


def test_several_sinks_and_the_one_that_fails(tmp_path: Path) -> None:
    recording, folder = tmp_path / "a.mkv", tmp_path / "frames"
    with open_sinks([str(recording), f"{folder}/", "null:"], LIVE) as sink:
        write(sink, 1)
        (folder / "000000.png").unlink()
        folder.rmdir()
        with pytest.raises(BadInput, match=r"^cannot write .*frames/000001\.png: the folder .* does not exist"):
            write(sink, 1)
    assert len(decode(recording)) == 2  # the other one is kept all the same
