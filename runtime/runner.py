"""The Runner protocol: one model on one device, images in, images out.

Torch, ONNX Runtime, TensorRT and the fake of the tests all fit it, so parity, profiling, tiling and streaming
never ask which one they hold. `open_runner` turns what a user typed into one.
"""

import difflib
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.spec import ModelSpec

Precision = Literal["fp32", "fp16", "int8"]
Batch = NDArray[np.float32]

_SHIPPED = Path(__file__).parent / "bundles"


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
) -> Runner:
    """Open what a user names as a model, checked and ready to infer.

    model: a shipped preset ("lprn-s"), a bundle folder or an .onnx file.
    precision: "auto" is fp32 from a bundle, since INT8 is slower on CPUs; an .onnx file has only its own.
    steps: recursion steps; default the model's own. threads, graph_optimization: see OnnxRunner.

    Raises BadInput if there is no such model, BundleError if a bundle is damaged, SpecMismatch if it has no such
    variant.
    """
    # Here, not above: the file that defines the protocol stays light, and the runners import it.
    from unblur.runtime.bundle import read_bundle
    from unblur.runtime.onnx_runner import OnnxRunner

    path = find_model(model)
    if path.is_dir():
        bundle = read_bundle(path)
        wanted = bundle.variant("fp32" if precision == "auto" else precision, steps)
        path = bundle.path / wanted.file
        precision, steps = wanted.precision, wanted.steps
    runner = OnnxRunner(path, threads=threads, graph_optimization=graph_optimization)
    try:
        _check_variant(path, runner, precision, steps)
    except SpecMismatch:
        runner.close()
        raise
    return runner


def find_model(model: str | Path) -> Path:
    """The bundle folder or .onnx file that `model` names; see `open_runner`. A shipped name goes before a file."""
    shipped = shipped_presets()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if path.is_dir() or path.suffix == ".onnx":
        return path
    if path.is_file():
        raise BadInput(f"{path} is no model that runs; expected a bundle folder or an .onnx file (`unblur export`)")
    near = difflib.get_close_matches(str(model), shipped, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped: {', '.join(shipped) or 'none'}."
    raise BadInput(f"there is no model '{model}'; {hint} A bundle folder or an .onnx file serves too")


def shipped_presets() -> dict[str, Path]:
    """The bundles that come with the package, by preset name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.unblur"))}


def _check_variant(path: Path, runner: Runner, precision: Precision | Literal["auto"], steps: int | None) -> None:
    if precision not in ("auto", runner.precision):
        raise SpecMismatch(f"{path} is {runner.precision}, asked for {precision}; give a bundle that has both")
    if steps not in (None, runner.spec.steps):
        raise SpecMismatch(
            f"{path} runs {runner.spec.steps} steps, asked for {steps}; export it again with --steps {steps}"
        )
