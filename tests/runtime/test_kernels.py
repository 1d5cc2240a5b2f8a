"""The CUDA kernels: their source computes what frames.py does, and the PTX that ships was made of that source.

The source is compiled as C++ for this CPU, where a loop over threads takes the place of the GPU.
"""

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.frames import Padding, batch_from_frame, frame_from_batch
from unblur.runtime.tensorrt import engine_buffers as kernels

SOURCE = Path(kernels.__file__).with_name("kernels.cu")
PTX = SOURCE.with_suffix(".ptx")

CUDA_ON_A_CPU = """
#include <math.h>
#define __global__
struct Index { int x, y; };
static Index blockIdx, threadIdx, blockDim;
#include "SOURCE"
#define RUN(kernel) \\
    blockDim.x = block_x; blockDim.y = block_y; \\
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y) \\
    for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x) \\
    for (threadIdx.y = 0; threadIdx.y < block_y; ++threadIdx.y) \\
    for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x) kernel
extern "C" void run_batch_from_frame(int grid_x, int grid_y, int block_x, int block_y,
    const unsigned char *source, float *target, int h, int w, int ph, int pw)
{ RUN(batch_from_frame)(source, target, h, w, ph, pw); }
extern "C" void run_frame_from_batch(int grid_x, int grid_y, int block_x, int block_y,
    const float *source, unsigned char *target, int h, int w, int ph, int pw)
{ RUN(frame_from_batch)(source, target, h, w, ph, pw); }
"""


class CpuModule:
    """See cuda.Module; the kernels run at once, on this CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self, kernel: str, grid: tuple[int, int], block: tuple[int, int], arguments: tuple[int, ...], stream: object
    ) -> None:
        addresses = (ctypes.c_void_p(address) for address in arguments[:2])
        getattr(self._library, f"run_{kernel}")(*grid, *block, *addresses, *arguments[2:])

    def load(self, ptx: bytes) -> "CpuModule":
        assert ptx == PTX.read_bytes()
        return self

    def free(self) -> None: ...


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> kernels.Kernels:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) to compile the kernels with")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "cpu.cpp").write_text(CUDA_ON_A_CPU.replace("SOURCE", str(SOURCE)))
    command = [compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", "cpu.so", "cpu.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    return kernels.Kernels(CpuModule(ctypes.CDLL(str(folder / "cpu.so"))))  # type: ignore[arg-type]


@pytest.mark.parametrize("size_hw", [(64, 96), (45, 61), (1, 1), (33, 16)])
def test_a_frame_becomes_the_same_batch(
    compiled: kernels.Kernels, make_frame: Callable[[int, int], NDArray[np.uint8]], size_hw: tuple[int, int]
) -> None:
    frame, padding = make_frame(*size_hw), Padding.to_multiple(size_hw, 16)
    batch = np.full((1, 3, *padding.padded_hw), np.nan, np.float32)
    compiled.batch_from_frame(frame.ctypes.data, batch.ctypes.data, padding, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch, batch_from_frame(frame, padding))


def test_each_level_becomes_the_same_float(compiled: kernels.Kernels) -> None:
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    padding = Padding.to_multiple((16, 16), 16)
    batch = np.empty((1, 3, 16, 16), np.float32)
    compiled.batch_from_frame(frame.ctypes.data, batch.ctypes.data, padding, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch, batch_from_frame(frame, padding))


@pytest.mark.parametrize("size_hw", [(64, 96), (45, 61), (1, 1)])
def test_a_batch_becomes_the_same_frame(compiled: kernels.Kernels, size_hw: tuple[int, int]) -> None:
    padding = Padding.to_multiple(size_hw, 16)
    batch = np.random.default_rng(5).uniform(-0.2, 1.2, (1, 3, *padding.padded_hw)).astype(np.float32)
    batch.flat[:5] = np.array([0.5, 2.5, 3.5, 254.5, 255.5], np.float32) / 255  # halves go to even
    frame = np.empty((*size_hw, 3), np.uint8)
    compiled.frame_from_batch(batch.ctypes.data, frame.ctypes.data, padding, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(frame, frame_from_batch(batch.copy(), padding))


def test_what_is_no_number_becomes_black_and_what_is_infinite_white(compiled: kernels.Kernels) -> None:
    batch = np.full((1, 3, 16, 16), np.nan, np.float32)
    batch[0, 0], batch[0, 2] = np.inf, -np.inf
    frame = np.empty((16, 16, 3), np.uint8)
    padding = Padding.to_multiple((16, 16), 16)
    compiled.frame_from_batch(batch.ctypes.data, frame.ctypes.data, padding, None)  # type: ignore[arg-type]
    assert (frame == [255, 0, 0]).all()


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
