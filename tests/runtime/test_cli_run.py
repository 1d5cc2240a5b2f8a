"""`unblur run` as a user types it: a real process, a real model, real files."""

import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from unblur.runtime.cli.run import run
from unblur.runtime.frames import Frame
from unblur.runtime.images import MAX_PIXELS, read_image, write_image
from unblur.runtime.media.open_media import DEFAULT_CRF, DEFAULT_RATE
from unblur.runtime.model.deblurrer import deblur

MakeClip = Callable[..., Path]
COMMAND = [sys.executable, "-m", "unblur.runtime.cli.main", "run"]


def start(
    model: Path, source: Path | str, sink: Path | str, *options: str, **how: object
) -> "subprocess.Popen[str]":
    command = [*COMMAND, str(model), "--source", str(source), "--sink", str(sink), "--threads", "1", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload,no-any-return]


def unblur(*arguments: object, **how: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    process = start(*arguments, **how)  # type: ignore[arg-type]
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def decode(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture
def picture(tmp_path: Path, frame: Frame) -> Path:
    write_image(tmp_path / "blurred.png", frame)
    return tmp_path / "blurred.png"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_a_picture(tiny_onnx: Path, picture: Path, out: Path, frame: Frame) -> None:
    code, stdout, stderr = unblur(tiny_onnx, picture, out / "sharp.png")
    assert (code, stderr) == (0, "")
    assert re.match(r"restored 1 image in [\d.]+ s on cpu", stdout)
    assert stdout.endswith(f", fp32: {out / 'sharp.png'}\n")
    np.testing.assert_array_equal(read_image(out / "sharp.png"), deblur(frame, tiny_onnx))


def test_a_video_and_its_json(tiny_onnx: Path, make_clip: MakeClip, out: Path) -> None:
    clip = make_clip(frames=20, audio="aac", size_hw=(63, 95), pixel_format="yuv444p")
    code, stdout, stderr = unblur(tiny_onnx, clip, out / "sharp.mp4", "--json", "--crf", "1")
    document = json.loads(stdout)
    assert (code, stderr) == (0, "")
    assert (document["frames"], document["dropped"], document["lost"], document["stopped"]) == (20, 0, 0, False)
    assert document["fps"] == pytest.approx(20 / document["seconds"])
    assert {"p50", "p90", "p99", "mean", "max"} == set(document["latency_ms"])
    assert document["device"].startswith("cpu (onnxruntime ")
    assert document["precision"] == "fp32"
    restored = decode(out / "sharp.mp4")
    assert [frame.shape for frame in restored] == [(63, 95, 3)] * 20
    expected = deblur(decode(clip)[7], tiny_onnx).astype(int)
    assert np.abs(restored[7] - expected).mean() < 2
    with av.open(str(out / "sharp.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_a_folder_through_a_bundle(tiny_bundle: Path, tmp_path: Path, out: Path, frame: Frame) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, frame)
    code, stdout, _ = unblur(tiny_bundle, tmp_path / "in", out / "sharp", "--precision", "int8", "--json")
    assert (code, json.loads(stdout)["precision"]) == (0, "int8")
    assert sorted(path.name for path in (out / "sharp").iterdir()) == ["a.png", "b.png"]


def test_it_says_in_one_line_what_it_runs_on_and_why(tiny_bundle: Path, picture: Path, out: Path) -> None:
    times = r"((fp32|int8) on (cpu|openvino) [\d.e+]+ ms(, )?){2,4}"
    for options, runs_on in (((), "(onnxruntime|openvino) .*"), (("--device", "cpu"), "onnxruntime .*")):
        code, _, stderr = unblur(tiny_bundle, picture, out / "sharp.png", *options)
        assert code == 0
        *once, line = stderr.splitlines()
        assert once in ([], ["unblur: tiny is timed on this device, once"])
        assert re.fullmatch(rf"unblur: tiny (fp32|int8) runs on cpu \({runs_on}\): {times}", line)


def test_an_engine_that_is_asked_for_and_not_there(tiny_bundle: Path, picture: Path, out: Path) -> None:
    code, _, stderr = unblur(tiny_bundle, picture, out / "sharp.png", "--device", "tensorrt")
    expected = f"unblur: {tiny_bundle} does not run on TensorRT: it has no engine; see `unblur build`\n"
    assert (code, stderr) == (2, expected)
    assert list(out.iterdir()) == []


def test_steps_choose_a_variant(tiny_bundle: Path, picture: Path, out: Path) -> None:
    for steps in ("1", "2"):
        assert unblur(tiny_bundle, picture, out / f"{steps}.png", "--steps", steps)[0] == 0
    assert not np.array_equal(read_image(out / "1.png"), read_image(out / "2.png"))


def test_the_rate_of_a_folder(tiny_onnx: Path, tmp_path: Path, picture: Path, out: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture.read_bytes())
    assert unblur(tiny_onnx, tmp_path / "in", out / "a.mp4", "--fps", "12.5")[0] == 0
    with av.open(str(out / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate or 0) == 12.5


def test_defaults_are_those_of_the_library() -> None:
    """Written out in the command, which must not import the library to print its help."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    assert (defaults["max_pixels"], defaults["crf"], defaults["fps"]) == (MAX_PIXELS, DEFAULT_CRF, DEFAULT_RATE)


def test_progress_is_drawn_on_a_terminal_only(tiny_onnx: Path, make_clip: MakeClip, out: Path) -> None:
    """On stderr, with the rate and what remains; stdout stays one JSON document."""
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [*COMMAND, str(tiny_onnx), "--source", str(make_clip(frames=40)), "--sink", str(out / "a.mkv"), "--json"],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(end)
    drawn = b""
    while chunk := _read(terminal):
        drawn += chunk
    os.close(terminal)
    stdout, _ = process.communicate(timeout=60)
    assert json.loads(stdout)["frames"] == 40
    for text in (b"restoring", b"40/40", b"frames", b"fps", b"0:00:00"):
        assert text in drawn


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux tells that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "does not exist"),
        ("none.mp4", None, "does not exist"),
        ("empty.png", b"", "is empty"),
        ("empty.mp4", b"", "is empty"),
        ("text.png", b"hello", "is not an image that can be read"),
        ("text.mp4", b"hello" * 100, "is not an image or video that can be read, or its index is missing"),
    ],
)
def test_bad_sources(
    tiny_onnx: Path, tmp_path: Path, out: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sink = out / f"sharp{Path(name).suffix}"
    assert unblur(tiny_onnx, tmp_path / name, sink) == (2, "", f"unblur: {tmp_path / name} {message}\n")
    assert list(out.iterdir()) == []


def test_a_truncated_picture_in_the_middle_of_a_folder(
    tiny_onnx: Path, tmp_path: Path, picture: Path, out: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = picture.read_bytes()
    for name, kept in (("a.png", len(data)), ("b.png", len(data) // 2), ("c.png", len(data))):
        (folder / name).write_bytes(data[:kept])
    (folder / "notes.txt").touch()
    (folder / "more").mkdir()
    code, stdout, stderr = unblur(tiny_onnx, folder, out / "sharp")
    assert code == 1
    assert re.fullmatch(rf"restored 2 images in .*: {out / 'sharp'}\n", stdout)
    lines = stderr.splitlines()
    assert lines[0] == f"unblur: skipped: {folder / 'more'}/: a folder; --recursive enters it"
    assert lines[1] == f"unblur: skipped: {folder / 'notes.txt'}: not an image or a video, by its suffix"
    assert lines[2].startswith(f"unblur: could not be restored: {folder / 'b.png'}: is damaged or truncated: ")
    assert [path.name for path in sorted((out / "sharp").iterdir())] == ["a.png", "c.png"]


def test_a_video_without_its_end_is_restored_and_told(tiny_onnx: Path, make_clip: MakeClip, out: Path) -> None:
    clip = make_clip("a.mkv", frames=50, gop=5)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    code, stdout, stderr = unblur(tiny_onnx, clip, out / "sharp.mp4", "--json")
    document = json.loads(stdout)
    assert code == 1
    assert document["frames"] + document["lost"] == pytest.approx(50, abs=2)
    assert stderr == (
        f"unblur: {document['lost']} frames of {clip} are damaged or missing and were lost; "
        f"{out / 'sharp.mp4'} holds the other {document['frames']}\n"
    )
    assert len(decode(out / "sharp.mp4")) == document["frames"]


def test_a_picture_above_the_pixel_limit(tiny_onnx: Path, picture: Path, out: Path) -> None:
    code, _, stderr = unblur(tiny_onnx, picture, out / "sharp.png", "--max-pixels", "6143")
    expected = "has 96 x 64 pixels, more than the limit of 6143; raise --max-pixels if you trust it"
    assert (code, stderr) == (2, f"unblur: {picture} {expected}\n")
    assert unblur(tiny_onnx, picture, out / "sharp.png", "--max-pixels", "6144")[0] == 0


def test_a_model_that_does_not_fit(tiny_onnx: Path, picture: Path, out: Path) -> None:
    code, _, stderr = unblur(tiny_onnx, picture, out / "sharp.png", "--steps", "5")
    assert (code, stderr) == (
        2,
        f"unblur: {tiny_onnx} runs 2 steps, asked for 5; export it again with --steps 5\n",
    )
    assert list(out.iterdir()) == []


def test_the_sink_is_the_source(tiny_onnx: Path, picture: Path) -> None:
    before = picture.read_bytes()
    code, _, stderr = unblur(tiny_onnx, picture, picture)
    assert (code, stderr) == (2, f"unblur: {picture} is the source itself; give another sink\n")
    assert picture.read_bytes() == before


@pytest.mark.parametrize("name", ["sharp.mp4", "sharp.mkv", "sharp"])
def test_a_full_disk(tiny_onnx: Path, make_clip: MakeClip, out: Path, name: str) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    code, stdout, stderr = unblur(tiny_onnx, make_clip(frames=20), out / name, preexec_fn=fill)
    path = out / name / "000000.png" if name == "sharp" else out / name
    assert (code, stdout, stderr) == (2, "", f"unblur: cannot write {path}: File too large\n")
    assert list(out.iterdir()) == []


def test_a_sink_that_cannot_be_written(tiny_onnx: Path, picture: Path) -> None:
    code, _, stderr = unblur(tiny_onnx, picture, "/proc/sharp.png")
    assert (code, stderr) == (2, "unblur: cannot write /proc/sharp.png: No such file or directory\n")


@pytest.fixture
def long_clip(make_clip: MakeClip) -> Path:
    return make_clip(frames=600, audio="aac", size_hw=(128, 192))


def interrupt(process: "subprocess.Popen[str]", folder: Path, number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal when the sink has begun to grow."""
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 60 for path in folder.rglob(".*partial*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["sharp.mp4", "sharp.mkv"])
def test_an_interrupted_video_is_playable(
    tiny_onnx: Path, long_clip: Path, out: Path, number: signal.Signals, name: str
) -> None:
    process = start(tiny_onnx, long_clip, out / name, "--json")
    code, stdout, stderr = interrupt(process, out, number)
    document = json.loads(stdout)
    assert (code, document["stopped"], document["lost"]) == (130, True, 0)
    assert 0 < document["frames"] < 600
    assert stderr == f"unblur: interrupted; {out / name} holds the first {document['frames']} frames\n"
    assert [path.name for path in out.iterdir()] == [name]
    assert len(decode(out / name)) == document["frames"]


def test_an_interrupted_folder_holds_whole_pictures(tiny_onnx: Path, long_clip: Path, out: Path) -> None:
    process = start(tiny_onnx, long_clip, out / "sharp", "--json")
    code, stdout, _ = interrupt(process, out, signal.SIGINT)
    frames = json.loads(stdout)["frames"]
    assert code == 130
    assert [path.name for path in out.iterdir()] == ["sharp"]
    assert sorted(path.name for path in (out / "sharp").iterdir()) == [f"{i:06d}.png" for i in range(frames)]
    assert read_image(out / "sharp" / f"{frames - 1:06d}.png").shape == (128, 192, 3)


def test_a_clip_with_sound_cut_without_decoding(
    tiny_onnx: Path, make_clip: MakeClip, tmp_path: Path, out: Path
) -> None:
    """As phones cut: the AAC starts before 0."""
    clip = tmp_path / "cut.mp4"
    whole = make_clip("whole.mp4", frames=20, audio="aac", matrix=1)
    with av.open(str(whole)) as reader, av.open(str(clip), "w") as writer:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.size and (packet.dts or 0) * packet.time_base < 0.3:
                packet.stream = copies[packet.stream_index]
                writer.mux(packet)
    with av.open(str(clip)) as cut:
        assert min(packet.pts for packet in cut.demux(cut.streams.audio[0]) if packet.size) < 0
    code, _, stderr = unblur(tiny_onnx, clip, out / "sharp.mov")
    assert (code, stderr) == (0, "")
    with av.open(str(clip)) as before, av.open(str(out / "sharp.mov")) as after:
        for index in (0, 1):
            times = [[(p.pts, p.time_base) for p in c.demux(c.streams[index]) if p.size] for c in (before, after)]
            starts = [sorted(float(pts * base) for pts, base in stamps) for stamps in times]
            assert starts[1] == pytest.approx(starts[0], abs=1e-4)
        colour = [
            (c.streams.video[0].codec_context.colorspace, c.streams.video[0].pix_fmt) for c in (before, after)
        ]
        assert colour[0] == colour[1] == (1, "yuv420p")
