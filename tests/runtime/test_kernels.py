"""The CUDA kernels: their source computes what frames.py does, and the PTX that ships was made of that source.

The source is compiled as C++ for this CPU, where a loop over threads takes the place of the GPU.
"""

import ctypes
import hashlib
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.frames import Frame, NetworkValues, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.spec import ModelSpec
from unblur.runtime.tensorrt import engine_buffers as kernels
from unblur.runtime.tensorrt.trt import PLANAR_FLOAT, TensorFormat
from unblur.runtime.yuv import Matrix, YuvFormat, YuvFrame, YuvLayout, batch_from_yuv

SOURCE = Path(kernels.__file__).with_name("kernels.cu")
PTX = SOURCE.with_suffix(".ptx")

CUDA_ON_A_CPU = """
#include <math.h>
#include <string.h>
#define __global__
#define __device__
struct Index { int x, y; };
static Index blockIdx, threadIdx, blockDim;
static unsigned short half_from_float(float value)
{ _Float16 half = (_Float16)value; unsigned short bits; memcpy(&bits, &half, 2); return bits; }
static float float_from_half(unsigned short bits) { _Float16 half; memcpy(&half, &bits, 2); return (float)half; }
#include "SOURCE"
#define RUN(kernel, Source, Target, Arguments) \\
extern "C" void run_##kernel(int grid_x, int grid_y, int block_x, int block_y, Source *source, Target *target, \\
                             Arguments *arguments) { \\
    blockDim.x = block_x; blockDim.y = block_y; \\
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y) \\
    for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x) \\
    for (threadIdx.y = 0; threadIdx.y < block_y; ++threadIdx.y) \\
    for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x) kernel(source, target, *arguments); }
RUN(batch_from_frame, const unsigned char, void, Conversion)
RUN(batch_from_yuv, const unsigned char, void, YuvConversion)
RUN(frame_from_batch, const void, unsigned char, Conversion)
"""


class CpuModule:
    """See cuda.Module; the kernels run at once, on this CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self, kernel: str, grid: tuple[int, int], block: tuple[int, int], arguments: tuple[Any, ...], stream: object
    ) -> None:
        addresses = (ctypes.c_void_p(address) for address in arguments[:2])
        kinds = "".join("f" if isinstance(value, float) else "i" for value in arguments[2:])
        getattr(self._library, f"run_{kernel}")(*grid, *block, *addresses, struct.pack(kinds, *arguments[2:]))

    def load(self, ptx: bytes) -> "CpuModule":
        assert ptx == PTX.read_bytes()
        return self

    def free(self) -> None: ...


SPEC = ModelSpec("lprn", "tiny", 1, 16, 1, "none")
SPECS = {
    "ours": SPEC,
    "signed": replace(SPEC, value_range=(-1.0, 1.0)),
    "BGR": replace(
        SPEC, value_range=(0.0, 255.0), colour="BGR", mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4)
    ),
    "normal": replace(SPEC, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CpuModule:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) to compile the kernels with")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "cpu.cpp").write_text(CUDA_ON_A_CPU.replace("SOURCE", str(SOURCE)))
    command = [compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", "cpu.so", "cpu.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    return CpuModule(ctypes.CDLL(str(folder / "cpu.so")))


@pytest.fixture(params=SPECS.values(), ids=SPECS)
def values(request: pytest.FixtureRequest) -> NetworkValues:
    return NetworkValues(request.param)


def batch_of(
    library: CpuModule,
    values: NetworkValues,
    frame: Frame | YuvFrame,
    padding: Padding,
    end: TensorFormat = PLANAR_FLOAT,
) -> NDArray[np.floating]:
    """By the kernel, as it lies in memory."""
    batch = np.full_like(end.packed(np.empty((1, 3, *padding.padded_hw), np.float32)), np.nan)
    compiled = kernels.Kernels(library, values)  # type: ignore[arg-type]
    data, yuv = (frame.data, frame.layout) if isinstance(frame, YuvFrame) else (frame, None)
    addresses = data.ctypes.data, batch.ctypes.data
    compiled.batch_from_frame(*addresses, padding, None, end=end, yuv=yuv)  # type: ignore[arg-type]
    return batch


def frame_of(
    library: CpuModule,
    values: NetworkValues,
    packed: NDArray[np.floating],
    padding: Padding,
    end: TensorFormat = PLANAR_FLOAT,
) -> tuple[int, Frame]:
    """Whether a value was not finite, and the frame, by the kernel."""
    height, width = padding.size_hw
    memory = np.zeros(kernels.HEADER_BYTES + 3 * height * width, np.uint8)
    compiled = kernels.Kernels(library, values)  # type: ignore[arg-type]
    addresses = packed.ctypes.data, memory.ctypes.data
    compiled.frame_from_batch(*addresses, padding, None, end=end)  # type: ignore[arg-type]
    return int(memory[0]), memory[kernels.HEADER_BYTES :].reshape(height, width, 3)


ENDS = [TensorFormat(half, lanes) for half in (False, True) for lanes in (1, 2, 8)]


@pytest.mark.parametrize("size_hw", [(64, 96), (45, 61), (1, 1), (33, 16)])
def test_a_frame_becomes_the_same_batch(
    library: CpuModule, values: NetworkValues, make_frame: Callable[[int, int], Frame], size_hw: tuple[int, int]
) -> None:
    frame, padding = make_frame(*size_hw), Padding.to_multiple(size_hw, 16)
    expected = values.taken(batch_from_frame(frame, padding))
    for end in ENDS:
        np.testing.assert_array_equal(batch_of(library, values, frame, padding, end), end.packed(expected))


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", get_args(Matrix))
@pytest.mark.parametrize("pixels", get_args(YuvFormat))
def test_yuv_becomes_the_same_batch(
    library: CpuModule, pixels: YuvFormat, matrix: Matrix, full_range: bool
) -> None:
    for size_hw in ((64, 96), (45, 61), (1, 1)):
        layout = YuvLayout.of(pixels, size_hw, matrix, full_range=full_range)
        data = np.random.default_rng(3).integers(0, 256, layout.nbytes, np.uint8)
        padding = Padding.to_multiple(size_hw, 16)
        for values in (NetworkValues(SPEC), NetworkValues(SPECS["BGR"])):
            expected = values.taken(batch_from_yuv(YuvFrame(data, layout), padding))
            for end in ENDS[::5]:
                found = batch_of(library, values, YuvFrame(data, layout), padding, end)
                np.testing.assert_array_equal(found, end.packed(expected))


def test_each_level_becomes_the_same_float(library: CpuModule, values: NetworkValues) -> None:
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    padding = Padding.to_multiple((16, 16), 16)
    expected = values.taken(batch_from_frame(frame, padding))
    np.testing.assert_array_equal(batch_of(library, values, frame, padding)[..., 0], expected)


@pytest.mark.parametrize("size_hw", [(64, 96), (45, 61), (1, 1)])
def test_a_batch_becomes_the_same_frame(
    library: CpuModule, values: NetworkValues, size_hw: tuple[int, int]
) -> None:
    padding = Padding.to_multiple(size_hw, 16)
    rgb = np.random.default_rng(5).uniform(-0.2, 1.2, (1, 3, *padding.padded_hw)).astype(np.float32)
    rgb.flat[:5] = np.array([0.5, 2.5, 3.5, 254.5, 255.5], np.float32) / 255  # halves go to even
    batch = values.taken(rgb)
    for end in ENDS:
        flag, frame = frame_of(library, values, end.packed(batch), padding, end)
        given = values.given(batch.astype(end.dtype).astype(np.float32), rgb)
        np.testing.assert_array_equal(frame, frame_from_batch(given, padding))
        assert flag == 0


@pytest.mark.parametrize(("value", "level"), [(np.nan, 0), (np.inf, 255), (-np.inf, 0)])
def test_what_is_not_finite_is_reported(library: CpuModule, value: float, level: int) -> None:
    batch = np.zeros((1, 3, 16, 16), np.float32)
    batch[0, 1, 3, 4] = value
    padding = Padding.to_multiple((16, 16), 16)
    flag, frame = frame_of(library, NetworkValues(SPEC), batch, padding)
    assert flag == 1
    assert frame[3, 4].tolist() == [0, level, 0]


def test_the_ptx_was_made_of_this_source() -> None:
    first, version, target = PTX.read_text().splitlines()[:3]
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert first.endswith(digest), "kernels.cu changed: run docs/compile_kernels.py"
    assert (version, target) == (".version 6.3", ".target sm_53")


@pytest.mark.parametrize("sm", ["sm_75", "sm_87", "sm_110", "sm_120"])
def test_the_ptx_assembles_for_the_gpus_it_is_for(sm: str, tmp_path: Path) -> None:
    assembler = shutil.which("ptxas")
    if assembler is None:
        pytest.skip("no ptxas here; it comes with the CUDA toolkit")
    done = subprocess.run([assembler, f"-arch={sm}", PTX, "-o", tmp_path / "out"], capture_output=True, text=True)
    if "is not defined for option" in done.stderr:
        pytest.skip(f"this ptxas does not know {sm}")
    assert done.returncode == 0, done.stderr
