"""`unblur run` on a camera, as a user types it: a real process, a synthetic camera, real sinks."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from unblur.runtime.cli.options import source_address
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import write_image

pytestmark = pytest.mark.realtime

COMMAND = [sys.executable, "-m", "unblur.runtime.cli.main", "run"]
CAMERA = "test://moving?size=64x96&fps=50&blur=6"


@contextmanager
def running(model: Path, source: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    fixed = ("--threads", "1", "--precision", "fp32", "--device", "cpu")  # nothing is timed first
    command = [*COMMAND, str(model), "--source", source, *fixed, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> re.Match[str]:
    """The first line on stderr that matches."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"the process ended without a line that matches {pattern}")


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_camera_into_two_sinks_until_it_is_stopped(tiny_bundle: Path, tmp_path: Path) -> None:
    recording = tmp_path / "sharp.mkv"
    with running(tiny_bundle, CAMERA, "--sink", str(recording), "--sink", "null:", "--json") as process:
        rungs = read_until(process, r"moving\?.*: (.+); deadline (\d+) ms")
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert re.fullmatch(r"tiny, 1 step \d+ ms, tiny, 2 steps \d+ ms", rungs[1])
    assert rungs[2] == "20"
    document = json.loads(stdout)
    assert document["frames"] == frames_of(recording) > 5
    assert sum(document["rungs"].values()) >= document["frames"]
    assert set(document["stages_ms"]) == {"wait", "restore", "write", "total"}
    assert document["counters"]["reconnects"] == 0
    assert document["precision"] == "fp32"


def test_people_get_a_sentence_and_prometheus_its_counters(tiny_bundle: Path) -> None:
    options = ("--sink", "null:", "--metrics-port", "0", "--deadline-ms", "0")
    with running(tiny_bundle, CAMERA, *options) as process:
        port = read_until(process, r"counters at http://127\.0\.0\.1:(\d+)/metrics")[1]
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text = answer.read().decode()
            if re.search(r"unblur_written_total\{.+\} [1-9]", text):
                break
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.search(r'unblur_rung_frames_total\{camera="test://moving\?.+",rung="tiny, 1 step"\}', text), (
        "no rung fits 0 ms, so the lowest is taken"
    )
    told = r"wrote \d+ of \d+ frames in .+ late, 0 reconnects\)\n"
    assert re.fullmatch(told, stdout), "a sink without output is not named"


def test_two_cameras_on_one_model_and_the_first_ends_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    sinks = [tmp_path / "door.mkv", tmp_path / "yard.mkv"]
    options = [option for sink in sinks for option in ("--sink", str(sink))]
    options += ["--source", CAMERA, "--retries", "0", "--metrics-port", "0", "--json"]
    with running(tiny_bundle, f"{CAMERA}&frames=30", *options) as process:
        port = read_until(process, r"counters at http://127\.0\.0\.1:(\d+)/metrics")[1]
        time.sleep(2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    written = dict(re.findall(r'unblur_written_total\{camera="test://moving.+?fps=50&blur=6(.*?)"\} (\d+)', text))
    assert set(written) == {"&frames=30", ""}
    first, second = json.loads(stdout)["cameras"]
    assert first["frames"] == frames_of(sinks[0]) == int(written["&frames=30"])
    assert 30 >= first["frames"] < second["frames"] == frames_of(sinks[1])


def test_the_gate_passes_a_sharp_camera_on(tiny_bundle: Path) -> None:
    options = ("--sink", "null:", "--skip-sharp", "--retries", "0")
    with running(tiny_bundle, "test://moving?size=240x320&fps=50&blur=0", *options, "--json") as process:
        read_until(process, "deadline")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=20)
    assert set(json.loads(stdout)["rungs"]) == {"passed on"}


def test_a_source_with_an_end_ends_the_run_and_its_recording(tiny_bundle: Path, tmp_path: Path) -> None:
    recording = tmp_path / "sharp.mp4"
    options = ("--sink", str(recording), "--retries", "0")
    with running(tiny_bundle, f"{CAMERA}&frames=300", *options) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert frames_of(recording) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sink", "sharp.png"), "sharp.png is one image, but test://moving"),
        (("--sink", "ftp://host/x"), "ftp://host/x has the unknown scheme 'ftp:'"),
        (("--sink", "null:", "--steps", "9"), "has no fp32 variant at 9 steps"),
        (
            ("--source", CAMERA, "--sink", "null:"),
            "got 2 times --source and 1 times --sink; give one --sink for each --source, in the same order",
        ),
        (
            ("--source", "b.mp4", "--sink", "null:", "--sink", "null:"),
            "b.mp4 is a file; several sources have to be",
        ),
    ],
)
def test_bad_options_are_one_line(tiny_bundle: Path, options: tuple[str, ...], message: str) -> None:
    with running(tiny_bundle, CAMERA, *options) as process:
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (2, "")
    assert message in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


def test_a_file_with_a_deadline_counts_its_rungs(tiny_bundle: Path, tmp_path: Path, frame: Frame) -> None:
    write_image(tmp_path / "blurred.png", frame)
    options = ("--sink", str(tmp_path / "sharp.png"), "--deadline-ms", "0", "--json")
    with running(tiny_bundle, str(tmp_path / "blurred.png"), *options) as process:
        stdout, _ = process.communicate(timeout=30)
    assert json.loads(stdout)["rungs"] == {"tiny, 1 step": 1}
    assert json.loads(stdout)["late"] == 1


def test_a_folder_in_a_loop_goes_on_until_it_is_stopped(tiny_onnx: Path, tmp_path: Path, frame: Frame) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", frame)
    with running(tiny_onnx, str(tmp_path / "in"), "--sink", "null:", "--loop", "--json") as process:
        time.sleep(8)  # imports alone take seconds on a busy machine
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert json.loads(stdout)["frames"] > 1


def test_credentials_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "camera").write_text("me:S3cr3t\n")
    assert source_address("rtsp://h/1", tmp_path / "camera") == "rtsp://me:S3cr3t@h/1"
    monkeypatch.setenv("UNBLUR_CREDENTIALS", "you:S3cr3t")
    assert source_address("rtsp://h/1", None) == "rtsp://you:S3cr3t@h/1"
    assert source_address("clip.mp4", None) == "clip.mp4"
    with pytest.raises(BadInput, match=r"cannot read .*none: No such file"):
        source_address("rtsp://h/1", tmp_path / "none")


@pytest.mark.parametrize("source", ["RTSP://a:S3cr3t@127.0.0.1:1/x", "no-such://a:S3cr3t@127.0.0.1:1/x"])
def test_a_failure_does_not_show_the_password(tiny_onnx: Path, source: str) -> None:
    with running(tiny_onnx, source, "--sink", "null:", "--retries", "0") as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "127.0.0.1" in stderr
    assert "S3cr3t" not in stdout + stderr
