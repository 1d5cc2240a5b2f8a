"""The Runner protocol: one model on one device, images in, images out.

Torch, ONNX Runtime, TensorRT and the fake of the tests all fit it, so parity, profiling, tiling and streaming
never ask which one they hold. `open_runner` turns what a user typed into one.
"""

from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.spec import ModelSpec

Precision = Literal["fp32", "fp16", "int8"]
Batch = NDArray[np.float32]


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
