"""The Runner protocol: one model on one device, images in, images out.

Torch, ONNX Runtime, TensorRT and the fake of the tests all fit it, so parity, profiling, tiling and streaming
never ask which one they hold. `open_runner` turns what a user typed into one.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Frame
from unblur.runtime.spec import ModelSpec

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "tensorrt", "cuda", "cpu"]

_SHIPPED = Path(__file__).parent / "bundles"


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


def open_runner(
    model: str | Path,
    *,
    precision: Precision | Literal["auto"] = "auto",
    steps: int | None = None,
    threads: int | None = None,
    graph_optimization: bool = True,
    device: Device = "auto",
    quiet: bool = False,
) -> Runner:
    """Open what a user names as a model, checked and ready to infer.

    model: a shipped preset ("lprn-s"), a bundle folder, an .onnx file or an .engine file.
    precision: "auto" is the fastest engine of a bundle that runs here, INT8 first, or else its fp32, since INT8 is
        slower on CPUs; a file has only its own.
    steps: recursion steps; default the model's own. threads, graph_optimization: see OnnxRunner; without
        optimisation the ONNX file is evaluated on the CPU, as a reference for all others.
    device: "auto" is an engine that fits this GPU, else ONNX Runtime on the GPU, else the CPU. quiet: do not log
        which it is.

    Raises BadInput if there is no such model, BundleError if a bundle is damaged, SpecMismatch if it has no such
    variant, EngineMismatch or DeviceError if the device that was asked for cannot run it.
    """
    # Here, not above: the file that defines the protocol stays light, and the runners import it.
    from unblur.runtime.placement import Wish, open_model

    return open_model(find_model(model), Wish(precision, steps, threads, graph_optimization, device, quiet))


def find_model(model: str | Path) -> Path:
    """The bundle folder or file that `model` names; see `open_runner`. A shipped name goes before a file."""
    shipped = shipped_presets()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if path.is_dir() or path.suffix in (".onnx", ".engine"):
        return path
    if path.is_file():
        raise BadInput(f"{path} is no model that runs; expected a bundle folder, an .onnx or an .engine file")
    near = difflib.get_close_matches(str(model), shipped, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped: {', '.join(shipped) or 'none'}."
    raise BadInput(f"there is no model '{model}'; {hint} A bundle folder or an .onnx file serves too")


def shipped_presets() -> dict[str, Path]:
    """The bundles that come with the package, by preset name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.unblur"))}
