"""Frames <-> batches on the GPU, with the arithmetic of frames.py.

Why a kernel, and not the CPU or the network: on a Jetson's CPU the conversion of a 720p frame costs about as
much as the network does on its GPU, and as float32 a frame is four times the bytes to copy. As nodes of the graph
the conversion would change what an engine takes and gives, so that golden vectors, tiles and engines made by
other tools would need engines of their own, and padding would still be the CPU's. A kernel pads as it reads.

PTX, not CUDA C, is what ships: the driver compiles it, so no device needs nvcc at run time.
"""

from pathlib import Path

from unblur.runtime.engine.cuda import Cuda, Stream
from unblur.runtime.frames import Padding

_PTX = Path(__file__).with_name("kernels.ptx")
_BLOCK = (32, 8)  # columns x rows: a warp reads one row


class Kernels:
    """The two conversions, loaded for one GPU. Addresses are of device or mapped memory."""

    def __init__(self, cuda: Cuda) -> None:
        self._module = cuda.load(_PTX.read_bytes())

    def batch_from_frame(self, frame: int, batch: int, padding: Padding, stream: Stream) -> None:
        """Enqueue uint8 RGB (H, W, 3) -> float32 (1, 3, H', W') in [0, 1], edge pixels repeated."""
        self._launch("batch_from_frame", padding.padded_hw, frame, batch, padding, stream)

    def frame_from_batch(self, batch: int, frame: int, padding: Padding, stream: Stream) -> None:
        """Enqueue float32 (1, 3, H', W') -> uint8 RGB (H, W, 3): clipped, rounded, the padding cut off."""
        self._launch("frame_from_batch", padding.size_hw, batch, frame, padding, stream)

    def free(self) -> None:
        self._module.free()

    def _launch(
        self, name: str, threads_hw: tuple[int, int], source: int, target: int, padding: Padding, stream: Stream
    ) -> None:
        grid = (-(-threads_hw[1] // _BLOCK[0]), -(-threads_hw[0] // _BLOCK[1]))
        self._module.launch(name, grid, _BLOCK, (source, target, *padding.size_hw, *padding.padded_hw), stream)
