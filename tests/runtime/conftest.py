"""Small real networks for the tests of the runtime, as ONNX files and as a bundle, and small video clips.

The networks are a miniature of LPRN: `steps` times the same two convolutions on a 1/4 grid, added to the blurred
input, so that alignment, halo, shared weights and dynamic sizes matter as they do in the real one.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from engine_workshop import Workshop
from numpy.typing import NDArray
from tiny_network import TinyNetwork

from unblur.runtime.frames import Batch
from unblur.runtime.model.bundle import ENGINES, BundleManifest, Variant, seal_bundle
from unblur.runtime.model.golden import make_golden
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality import verify as engine_checks
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt import engine_runner


class FunctionRunner:
    """A Runner around a function of a batch: the one fake of these tests."""

    device = "fake"

    def __init__(self, function: Callable[[Batch], Batch], precision: Precision = "fp32", **spec: object) -> None:
        self.function = function
        self.precision = precision
        self.spec = replace(TinyNetwork(steps=1).spec, **spec)  # type: ignore[arg-type]
        self.calls = 0

    def infer(self, batch: Batch) -> Batch:
        self.calls += 1
        return self.function(batch)

    def close(self) -> None: ...

    def __enter__(self) -> "FunctionRunner":
        return self

    def __exit__(self, *error: object) -> None: ...


@pytest.fixture
def fake_runner() -> Callable[..., FunctionRunner]:
    """`fake_runner(lambda batch: batch + 0.1, precision="int8", multiple_of=8)`; spec fields as keywords."""
    return FunctionRunner


@pytest.fixture
def make_onnx(tmp_path: Path) -> Callable[..., Path]:
    """`make_onnx(precision="int8", steps=3, pooling="global", scale=1.01)` -> path of a new .onnx file."""

    def make(**options: object) -> Path:
        network = replace(TinyNetwork(), **options)  # type: ignore[arg-type]
        name = "-".join(str(value) for value in (network.precision, network.steps, network.pooling, network.scale))
        return network.write(tmp_path / f"{name}.onnx")

    return make


@pytest.fixture
def tiny_onnx(make_onnx: Callable[..., Path]) -> Path:
    """An fp32 network of 2 steps: spec multiple_of 16, receptive field 20."""
    return make_onnx()


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A sealed bundle with fp32, fp16 and int8 at 2 steps, fp32 and fp16 at 1, and golden vectors for each."""
    return make_bundle(tmp_path / "tiny.unblur")


def make_bundle(folder: Path, scale: float = 1.0) -> Path:
    """scale: of the residual of its networks."""
    folder.mkdir()
    variants = []
    for precision, steps in (("fp32", 2), ("fp16", 2), ("int8", 2), ("fp32", 1), ("fp16", 1)):
        network = TinyNetwork(precision, steps, scale=scale)  # type: ignore[arg-type]
        file = f"{precision}.onnx" if steps == 2 else f"{precision}-{steps}.onnx"
        network.write(folder / file)
        variants.append(Variant(network.precision, steps, file))
    golden = []
    for variant in variants:
        with OnnxRunner(folder / variant.file, graph_optimization=False) as runner:
            golden.append(make_golden(folder, runner))
    manifest = BundleManifest(
        name="tiny",
        spec=TinyNetwork().spec,
        created="2026-11-21T00:00:00Z",
        versions={"unblur": "0.1.0"},
        variants=tuple(variants),
        golden=tuple(golden),
    )
    seal_bundle(folder, manifest)
    return folder


@pytest.fixture
def workshop(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """Builds into the bundle; its GPU and TensorRT are those of this machine. Nothing may be left on the GPU."""
    folder = tiny_bundle / ENGINES
    folder.mkdir()
    workshop = Workshop(folder)
    for module in (engine_checks, engine_runner):
        monkeypatch.setattr(module, "open_cuda", lambda: workshop.cuda)
        monkeypatch.setattr(module, "load_tensorrt", lambda flavour: workshop.trt)
    yield workshop
    assert workshop.leaks == 0


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    """A 64 x 96 picture with edges, gradients and noise."""
    return make_frame_of(64, 96)


@pytest.fixture
def make_frame() -> Callable[[int, int], NDArray[np.uint8]]:
    """`make_frame(height, width)` -> such a picture of any size."""
    return make_frame_of


@cache
def _still(height: int, width: int) -> NDArray[np.uint8]:
    """For clips, which move one frame about; read-only, since it is shared."""
    frame = make_frame_of(height, width)
    frame.flags.writeable = False
    return frame


def make_frame_of(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * 10_000 + width)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(rows / 7), np.cos(columns / 5), np.sin((rows + columns) / 11)], axis=2)
    blocks = ((rows // 9 + columns // 13) % 2)[..., None]
    values = 110 + 60 * waves + 50 * blocks + rng.normal(0, 6, (height, width, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Clip:
    """A video file to write with PyAV alone, so that our own reader and writer are judged by another.

    Frame i is `make_frame_of` moved i * 8 columns. pts: of each frame, in units of `time_base`; default even.
    matrix, full_range: colour tags; None leaves it untagged. audio: name of an encoder for a tone.
    display_matrix: a, b, c, d of an MP4's display matrix.
    """

    size_hw: tuple[int, int] = (64, 96)
    frames: int = 8
    pixel_format: str = "yuv420p"
    time_base: Fraction = Fraction(1, 25)
    pts: tuple[int, ...] | None = None
    matrix: int | None = None
    full_range: bool = False
    audio: str | None = None
    display_matrix: tuple[int, int, int, int] | None = None
    pixel_aspect: Fraction = Fraction(1)
    gop: int = 12

    def write(self, path: Path) -> Path:
        with av.open(str(path), "w") as container:
            video = self._add_video(container)
            audio = None if self.audio is None else container.add_stream(self.audio, rate=48_000, layout="mono")
            for index in range(self.frames):
                container.mux(video.encode(self._picture(index)))
            if isinstance(audio, AudioStream):
                start = round(self.times[0] * self.time_base * 48_000)
                container.mux(audio.encode(_tone(audio, start, 48_000 * self.frames // 25)))
                container.mux(audio.encode(None))
            container.mux(video.encode(None))
        if self.display_matrix is not None:
            _patch_display_matrix(path, self.display_matrix)
        return path

    @property
    def times(self) -> tuple[int, ...]:
        return self.pts or tuple(range(self.frames))

    def frame(self, index: int) -> NDArray[np.uint8]:
        return np.roll(_still(*self.size_hw), 8 * index, axis=1)

    def _add_video(self, container: OutputContainer) -> VideoStream:
        options = {"crf": "4", "preset": "ultrafast", "g": str(self.gop)}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = self.size_hw
        stream.pix_fmt = self.pixel_format
        stream.time_base = stream.codec_context.time_base = self.time_base
        stream.codec_context.flags |= Flags.frame_duration
        stream.codec_context.sample_aspect_ratio = self.pixel_aspect
        if self.matrix is not None:
            stream.codec_context.colorspace = self.matrix
            stream.codec_context.color_range = 2 if self.full_range else 1
        return stream

    def _picture(self, index: int) -> VideoFrame:
        picture = VideoFrame.from_ndarray(self.frame(index), "rgb24").reformat(
            format=self.pixel_format,
            dst_colorspace=self.matrix or 5,
            dst_color_range=2 if self.full_range else 1,
            interpolation=0x2 | 0x2000 | 0x40000,  # bilinear, full chroma, accurate rounding
        )
        gaps = [later - earlier for earlier, later in pairwise(self.times)] or [1]
        picture.pts = self.times[index]
        picture.duration = gaps[min(index, len(gaps) - 1)]
        picture.time_base = self.time_base
        return picture


def _tone(stream: AudioStream, start: int, samples: int) -> AudioFrame:
    wave = np.sin(np.arange(samples) / 20)[None]
    values = wave.astype(np.float32) if stream.format.name == "fltp" else (9000 * wave).astype(np.int16)
    frame = AudioFrame.from_ndarray(values, stream.format.name, "mono")
    frame.sample_rate = 48_000
    frame.pts = start
    return frame


def _patch_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """ISO/IEC 14496-12, 8.3.2: the matrix stands 40 bytes behind the name of a version 0 track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """`make_clip("a.mp4", frames=5, pts=(0, 1, 4, 5, 9))` -> path of a new video; fields of `Clip` as keywords."""

    def make(name: str = "clip.mp4", **options: object) -> Path:
        return replace(Clip(), **options).write(tmp_path / name)  # type: ignore[arg-type]

    return make
