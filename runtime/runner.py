"""The Runner protocols, and how a caller asks for a runner; `unblur.runtime.model.open_model` opens one.

Torch, ONNX Runtime, TensorRT and the fake of the tests all fit `Runner`, so parity, profiling, tiling and the
loops never ask which one they hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from unblur.runtime.frames import Batch, Frame
from unblur.runtime.spec import Device, ModelSpec, Precision, SpecOverrides
from unblur.runtime.yuv import YuvFrame


@dataclass(frozen=True)
class RunnerOptions:
    """How to open a model.

    precision: "auto" is what was the fastest on this device, see `choose_variant`. A single file has one precision.
    steps: recursion steps; None is the model's own number.
    threads: CPU threads of one inference; None is one per physical core.
    device: "auto" is the fastest for a bundle; for an .onnx file ONNX Runtime, on the GPU if it can, else the CPU.
    graph_optimization: False evaluates the ONNX graph node by node on the CPU: the reference for INT8.
    quiet: do not log which variant runs where, and why.
    overrides: what the user states about the network itself; goes before what the model says.
    """

    precision: Precision | Literal["auto"] = "auto"
    steps: int | None = None
    threads: int | None = None
    device: Device = "auto"
    graph_optimization: bool = True
    quiet: bool = False
    overrides: SpecOverrides = SpecOverrides()


@dataclass(frozen=True)
class InferenceTiming:
    """Where the time of one inference went; the fields add up to the time of the call.

    host_ms: the CPU's own work: staging memory, enqueueing, waking up. copy_in_ms, copy_out_ms: between the
    memories of CPU and GPU, 0 where they share one. device_ms: the network itself.
    """

    host_ms: float
    copy_in_ms: float
    device_ms: float
    copy_out_ms: float


class Runner(Protocol):
    """A context manager that owns its buffers. Not thread-safe: one owner thread at a time."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """What executes the model, for people: "cpu (onnxruntime 1.31.1)", "cuda:0 (TensorRT 10.3.0)"."""
        ...

    @property
    def precision(self) -> Precision: ...

    def infer(self, batch: Batch) -> Batch:
        """Restore a batch.

        batch: (N, 3, H, W) float32, RGB in [0, 1] whatever the network itself takes, H and W multiples of
        `spec.multiple_of`. Returns `spec.scale` times that size, not clipped. The array may be a buffer that the
        next call overwrites.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "Runner": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class FrameRunner(Protocol):
    """A runner that also takes whole frames, and converts and pads them where that costs least."""

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        """Restore a frame, uint8 RGB (H, W, 3) of any size, into `out` of the same shape, which may be the same."""
        ...


SizeRange = tuple[tuple[int, int], tuple[int, int]]
"""The least and the largest height and width, in pixels."""


@runtime_checkable
class SizedRunner(Protocol):
    """A runner that takes batches of some sizes only."""

    @property
    def sizes(self) -> Sequence[SizeRange]:
        """Of single images; each is enough."""
        ...


@runtime_checkable
class YuvRunner(Protocol):
    """A runner that takes frames as cameras give them, in 1.5 bytes a pixel, and converts them to RGB itself."""

    def infer_yuv(self, frame: YuvFrame, out: Frame) -> None:
        """As `FrameRunner.infer_frame`, of a YUV frame."""
        ...


@runtime_checkable
class OverlappingRunner(Protocol):
    """A runner that copies frames while it computes another: two may be under way."""

    def begin_frame(self, frame: Frame | YuvFrame, out: Frame) -> None:
        """Begin to restore a frame into `out`, which is filled when `end_frame` has returned for it."""
        ...

    def end_frame(self) -> None:
        """Wait for the frame that was begun first."""
        ...


@runtime_checkable
class SharingRunner(Protocol):
    """A runner whose scratch memory can be another's too, if they are never used at the same time."""

    def share_memory(self, other: Runner) -> None:
        """Use one piece of memory with `other` from now on; of no effect on a runner of another kind."""
        ...


@runtime_checkable
class TimedRunner(Protocol):
    """A runner that can also report where its time goes. `infer` pays nothing for that."""

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        """As `Runner.infer`, with its timing."""
        ...


@runtime_checkable
class TimedFrameRunner(Protocol):
    """A frame runner that can also report where the time of a frame goes."""

    def timed_infer_frame(self, frame_rgb: Frame, out: Frame) -> InferenceTiming:
        """As `FrameRunner.infer_frame`, with its timing."""
        ...


def check_batch(batch: Batch, multiple_of: int) -> None:
    """Raise TypeError or ValueError unless `batch` is what `Runner.infer` takes."""
    if batch.dtype != np.float32:
        raise TypeError(f"a batch is float32, got {batch.dtype}")
    if batch.ndim != 4 or batch.shape[1] != 3 or any(side == 0 or side % multiple_of for side in batch.shape[2:]):
        raise ValueError(
            f"a batch has the shape (N, 3, H, W) with H, W multiples of {multiple_of}, got {batch.shape}"
        )
