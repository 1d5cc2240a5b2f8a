"""The Runner protocol: one model on one device, images in, images out.

Torch, ONNX Runtime, TensorRT and the fake of the tests all fit it, so parity, profiling, tiling and streaming
never ask which one they hold. `open_runner` turns what a user typed into one.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from unblur.runtime.frames import Batch, Frame
from unblur.runtime.spec import ModelSpec

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "tensorrt", "cuda", "cpu"]


@runtime_checkable
class FrameRunner(Protocol):
    """A runner that can also take and give pictures, converting and padding them where that costs least."""

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        """Restore a frame, uint8 RGB (H, W, 3) of any size, into `out` of the same shape, which may be the same."""
        ...


@dataclass(frozen=True)
class Parts:
    """Where the time of one inference went, in ms; together they are the time of the call.

    host: the CPU's own work around the device's: staging memory, enqueueing, waking up. copy_in, copy_out: between
    the memories of CPU and GPU; 0 where they share one. device: the network itself.
    """

    host: float
    copy_in: float
    device: float
    copy_out: float


@runtime_checkable
class TimedRunner(Protocol):
    """A runner that can also tell where its time goes. `infer` pays nothing for that."""

    def timed_infer(self, batch: Batch) -> tuple[Batch, Parts]:
        """As `Runner.infer`, with the parts of its time."""
        ...


class Runner(Protocol):
    """A context manager that owns its buffers; not thread-safe, one owner thread at a time."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """What executes it, for people: "cpu (onnxruntime 1.31.1)", "cuda:0 (TensorRT 10.3.0)"."""
        ...

    @property
    def precision(self) -> Precision: ...

    def infer(self, batch: Batch) -> Batch:
        """Restore a batch.

        batch: (N, 3, H, W) float32 in `spec.value_range`, H and W multiples of `spec.multiple_of`.
        Returns the same shape, not clipped. The array may be a buffer that the next call overwrites.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "Runner": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_batch(batch: Batch, multiple_of: int) -> None:
    """Raise TypeError or ValueError unless `batch` is what `Runner.infer` takes."""
    if batch.dtype != np.float32:
        raise TypeError(f"a batch is float32, got {batch.dtype}")
    if batch.ndim != 4 or batch.shape[1] != 3 or any(side == 0 or side % multiple_of for side in batch.shape[2:]):
        raise ValueError(
            f"a batch has the shape (N, 3, H, W) with H, W multiples of {multiple_of}, got {batch.shape}"
        )
