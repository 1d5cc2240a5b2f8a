"""Pipelines of GStreamer as sources: a real child, its errors in one line, and no child left behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from engine_workshop import Workshop
from PIL import Image
from stream_servers import PATTERN, need_gstreamer

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Padding, frame_from_batch
from unblur.runtime.loops.capture import Reconnect, ReconnectingCapture
from unblur.runtime.loops.live_loop import run_live_loop
from unblur.runtime.loops.restorer import FixedSteps
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.media.gstreamer_source import CsiFormat, csi_pipeline
from unblur.runtime.media.open_media import NullSink, open_source
from unblur.runtime.media.url import Size
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.yuv import YuvFrame, batch_from_yuv

pytestmark = pytest.mark.realtime

SMALL = "video/x-raw,width=96,height=64,framerate=30/1"


@pytest.fixture(autouse=True)
def _with_gstreamer() -> None:
    need_gstreamer()


def children() -> set[int]:
    """Process ids of the pipelines that run, of any test."""
    commands = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/comm")}
    return {number for number, path in commands.items() if is_pipeline(path)}


def is_pipeline(path: Path) -> bool:
    try:
        return path.read_text().startswith("gst-launch")
    except OSError:  # it has just ended
        return False


def wait_until_gone(pipelines: set[int]) -> None:
    deadline_s = time.monotonic() + 3
    while pipelines & children():
        assert time.monotonic() < deadline_s, f"{pipelines} still run"
        time.sleep(0.02)


def test_frames_with_their_size_rate_and_colours() -> None:
    with open_source(f"gst://{PATTERN.replace('is-live=true', 'pattern=red num-buffers=5')}") as source:
        assert (source.info.kind, source.info.size_hw, source.info.rate) == ("live", (64, 96), 30)
        frames = list(source)
    assert len(frames) == 5
    assert [round(float(level)) for level in frames[4].rgb.mean((0, 1))] == pytest.approx([255, 0, 0], abs=2)
    assert all(early.time_s < late.time_s for early, late in itertools.pairwise(frames))


def test_a_size_that_is_no_multiple_of_anything_and_another_format() -> None:
    with open_source("gst://videotestsrc num-buffers=2 ! video/x-raw,width=97,height=63,format=BGRx") as source:
        assert [frame.rgb.shape for frame in source] == [(63, 97, 3)] * 2


def test_quotes_are_those_of_a_shell(tmp_path: Path) -> None:
    """And what leaves the pipeline is not what an element prints on stdout."""
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(tmp_path / "two words.png")
    with open_source(f"gst://filesrc location='{tmp_path}/two words.png' ! pngdec") as source:
        assert [frame.rgb.mean() for frame in source] == [90]
    chatty = "gst://fakesrc num-buffers=1 dump=true ! fakesink videotestsrc num-buffers=3"
    with open_source(f"{chatty} ! {SMALL}") as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("nosuchelement", 'no element "nosuchelement"'),
        ("videotestsrc ! ! queue", "syntax error"),
        ("audiotestsrc", "could not link audiotestsrc0 to videoconvert0"),
        ("v4l2src device=/dev/video99", "v4l2src0: Cannot identify device '/dev/video99'."),
        ("filesrc location=/no/such/file ! decodebin", "filesrc0: Resource not found."),
    ],
)
def test_what_gstreamer_says_is_the_error(pipeline: str, message: str) -> None:
    before = children()
    with pytest.raises(BadInput) as caught:
        open_source(f"gst://{pipeline}")
    assert str(caught.value) == f"cannot read gst://{pipeline}: {message}"
    wait_until_gone(children() - before)


def test_no_pipeline_at_all() -> None:
    with pytest.raises(
        BadInput, match=r"gst:// is an empty pipeline; write one as for gst-launch-1.0, without its sink"
    ):
        open_source("gst://")
    with pytest.raises(BadInput, match=r"^gst://filesrc location='x is not a pipeline: No closing quotation$"):
        open_source("gst://filesrc location='x")
    with pytest.raises(BadInput, match=r"^gst://videotestsrc num-buffers=0 ended before its first frame$"):
        open_source("gst://videotestsrc num-buffers=0")


def test_it_fails_on_the_way() -> None:
    with (
        open_source(f"gst://videotestsrc ! {SMALL} ! identity error-after=4") as source,
        pytest.raises(BadInput, match=r"identity0: Failed after iterations as requested\.$"),
    ):
        list(source)


def test_a_pipeline_that_changes_its_size(tmp_path: Path) -> None:
    for index, width in enumerate((64, 64, 90, 90)):
        Image.fromarray(np.full((64, width, 3), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
    pictures = f"multifilesrc location={tmp_path}/%d.png caps=image/png,framerate=30/1 ! pngdec"
    with open_source(f"gst://{pictures}") as source:
        frames = list(source)
    assert [frame.rgb.shape for frame in frames] == [(64, 64, 3)] * 2 + [(64, 90, 3)] * 2
    assert [frame.rgb.max() for frame in frames] == [0, 10, 20, 30]


def test_too_large_from_the_start_or_later() -> None:
    with pytest.raises(
        BadInput, match=r"^cannot read gst://.*frames have 96 x 64 pixels, more than the limit of 6143;"
    ):
        open_source(f"gst://{PATTERN}", max_pixels=64 * 96 - 1)


def test_leaving_ends_the_child_at_once() -> None:
    before = children()
    with open_source(f"gst://{PATTERN}") as source:
        next(iter(source))
        child = children() - before
        assert len(child) == 1
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 0.9  # it went when asked to
    wait_until_gone(child)


def test_a_child_that_does_not_listen_is_killed() -> None:
    before = children()
    with open_source(f"gst://{PATTERN}") as source:
        next(iter(source))
        child = children() - before
        os.kill(next(iter(child)), signal.SIGSTOP)
    wait_until_gone(child)


def test_no_child_outlives_us() -> None:
    code = (
        "import sys; from unblur.runtime.media.open_media import open_source; source = iter(open_source(sys.argv[1]));"  # noqa: E501
        "next(source); print('running', flush=True); [None for frame in source]"
    )
    before = children()
    command = [sys.executable, "-c", code, f"gst://{PATTERN}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "running\n"
        pipelines = children() - before
        user.kill()
    assert pipelines
    wait_until_gone(pipelines)


def test_gstreamer_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BadInput, match=r"^gst-launch-1.0 is not installed; on Debian and Ubuntu: apt-get install gst"
    ):
        open_source("gst://videotestsrc")


def test_the_plugin_that_writes_the_frames_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for plugin in Path("/usr/lib").glob("*/gstreamer-1.0/libgst[cv][oi]*.so"):  # coreelements, videoconvert, ...
        (tmp_path / plugin.name).symlink_to(plugin)
    monkeypatch.setenv("GST_PLUGIN_SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("GST_REGISTRY", str(tmp_path / "registry"))
    with pytest.raises(BadInput, match=r'no element "gdppay"; apt-get install gstreamer1\.0-plugins-bad$'):
        open_source("gst://videotestsrc")


def test_a_csi_camera_is_jetpack_s_pipeline() -> None:
    """As jetson-inference builds it; nobody here has the camera."""
    assert csi_pipeline(1, CsiFormat(Size(1080, 1920), Fraction(60), flip=2)) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=60/1 "
        "! nvvidconv flip-method=2 ! video/x-raw,format=NV12"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("csi://0?size=720x1280", 'cannot read csi://0?size=720x1280: no element "nvarguscamerasrc"'),
        ("csi://front", "csi://front is not a CSI camera; expected its number, as in csi://0?size=720x1280&fps=30"),
        ("csi://0?exposure=1", "csi://0?exposure=1 has the unknown option 'exposure'; there are size, fps, flip"),
        ("csi://0?fps=0", "csi://0?fps=0 has fps='0', expected frames per second above 0, at most 1000"),
    ],
)
def test_a_csi_camera_that_cannot_be_opened(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_source(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("colours", ["bt601", "bt709", "1:4:7:1"])
@pytest.mark.parametrize("pixels", ["NV12", "I420"])
def test_yuv_is_not_converted_before_rgb_is_asked_for(pixels: str, colours: str) -> None:
    pattern = f"videotestsrc num-buffers=1 ! video/x-raw,width=97,height=63,format={pixels},colorimetry={colours}"
    with open_source(f"gst://{pattern}") as source:
        (frame,) = source
    with open_source(f"gst://{pattern} ! videoconvert ! video/x-raw,format=RGB") as source:
        (expected,) = source
    assert isinstance(expected.image, np.ndarray)
    assert isinstance(frame.image, YuvFrame)
    assert "converted" not in vars(frame)
    for rgb in (frame.rgb, frame.image.rgb()):
        errors = np.abs(rgb.astype(int) - expected.rgb)[:40]  # of the bars; another matrix makes 12
        assert np.quantile(errors, 0.75) <= 5


def test_colours_that_cannot_be_converted() -> None:
    pattern = "videotestsrc num-buffers=1 ! video/x-raw,width=96,height=64,format=NV12,colorimetry=bt2020"
    with pytest.raises(
        BadInput, match=r"have the colours 'bt2020', expected BT\.601 or BT\.709; add ! videoconvert"
    ):
        open_source(f"gst://{pattern}")


def test_a_gpu_is_given_the_frames_of_a_camera_as_they_are(tmp_path: Path) -> None:
    """Through the live loop: nothing is converted on the CPU."""
    pipeline = "gst://videotestsrc num-buffers=4 ! video/x-raw,width=96,height=64,format=NV12,framerate=30/1"
    workshop, stats, seen = Workshop(tmp_path), LoopStats(), []
    capture = ReconnectingCapture(lambda: open_source(pipeline), stats, Reconnect(retries=0))
    with workshop.open() as runner, capture, pytest.raises(BadInput, match="attempts did not bring it back"):
        run_live_loop(capture, FixedSteps(Deblurrer(runner)), NullSink(), stats, on_result=seen.append)
    assert seen
    for result in seen:
        assert "converted" not in vars(result.before)
        assert isinstance(result.before.image, YuvFrame)
    padding = Padding((64, 96), (64, 96))
    given = batch_from_yuv(seen[-1].before.image, padding)
    expected = frame_from_batch(np.float32(0.5) * given + np.float32(0.25), padding)
    np.testing.assert_array_equal(seen[-1].after.rgb, expected)
