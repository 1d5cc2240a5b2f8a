"""Golden vectors: does this device compute what the machine that built the bundle computed?

`make_golden` is called once per variant when a bundle is built, `check_golden` wherever it is used. Golden
vectors need no data set, take a fraction of a second, and find what hashes cannot: a kernel, driver or instruction
set that computes something else.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BundleError, SpecMismatch
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, cell_means, check_frame
from unblur.runtime.metrics import psnr_float_db
from unblur.runtime.model.bundle import Bundle, Golden, Variant
from unblur.runtime.quality.tolerances import TOLERANCES, Agreement, Tolerance, judge
from unblur.runtime.runner import Runner
from unblur.runtime.spec import Precision

FOLDER = "golden"

_SIZE_HW = (96, 160)
_SMALL_HW = (48, 64)  # one period of the blocks


@dataclass(frozen=True)
class GoldenResult:
    """One variant on this device against its golden vectors.

    psnr_db, threshold_db: found and needed, see `Agreement`. max_levels: largest difference, of 255.
    passed: None if void. reason: why it did not pass, else empty.
    """

    precision: Precision
    steps: int
    psnr_db: float
    max_levels: float
    threshold_db: float
    passed: bool | None
    reason: str


def make_golden(folder: Path, runner: Runner, *, small: bool = False) -> Golden:
    """Write the golden input and the output of `runner` for it into the bundle under `folder`.

    small: only a corner of the image, a fifth of its pixels. Open the runner with graph_optimization=False: golden
    is the graph as it is written.
    """
    golden = Golden(
        precision=runner.precision,
        steps=runner.spec.steps,
        input=f"{FOLDER}/{'input-small' if small else 'input'}.npy",
        expected=f"{FOLDER}/{runner.precision}-{runner.spec.steps}.npy",
    )
    (folder / FOLDER).mkdir(exist_ok=True)
    height, width = runner.spec.usual_hw(_SMALL_HW if small else _SIZE_HW)
    frame = np.ascontiguousarray(golden_frame()[:height, :width])
    np.save(folder / golden.input, frame)
    np.save(folder / golden.expected, _restore(runner, frame))
    return golden


def check_golden(
    bundle: Bundle, variant: Variant, runner: Runner, tolerance: Tolerance | None = None
) -> GoldenResult:
    """Run the golden input of `variant` through `runner` and compare. tolerance: default that of golden vectors.

    Raises SpecMismatch if the bundle has no golden vectors for it, BundleError if they are not what they should be.
    """
    golden = bundle.golden(variant)
    if golden is None:
        raise SpecMismatch(
            f"{bundle.path} has no golden vectors for {variant.precision} at {variant.steps} steps; deploy it again"
        )
    frame = read_golden_frame(bundle, golden)
    expected = np.asarray(_load(bundle, golden.expected, np.float32), np.float32)
    _restore(runner, np.ascontiguousarray(frame[::-1]))  # another frame first: a stale output would be that one's
    restored = _restore(runner, frame)
    if restored.shape != expected.shape:
        raise BundleError(
            f"{bundle.path}: {golden.expected} has the shape {expected.shape}, expected {restored.shape}"
        )
    agreement = agreement_of(
        restored, expected, _unpadded(frame), tolerance or TOLERANCES["golden"][variant.precision]
    )
    return GoldenResult(
        precision=variant.precision,
        steps=variant.steps,
        psnr_db=agreement.psnr_db,
        max_levels=255 * float(np.abs(restored - expected).max()),
        threshold_db=agreement.needed_db,
        passed=agreement.passed,
        reason=agreement.reason,
    )


def agreement_of(restored: Batch, expected: Batch, batch: Batch, tolerance: Tolerance) -> Agreement:
    """Judge an output against its reference, both (N, 3, H, W); `batch` is the input of both, of scale 1."""
    if not np.isfinite(restored).all():
        return Agreement(math.nan, tolerance.floor_db, False, "the output holds NaN or infinity")
    scale = expected.shape[2] // batch.shape[2]
    change_db = psnr_float_db(batch, cell_means(expected, scale))
    return judge(tolerance, [psnr_float_db(restored, expected)], [change_db])


def read_golden_frame(bundle: Bundle, golden: Golden) -> Frame:
    """The input of golden vectors; BundleError if it is not an image."""
    frame = np.asarray(_load(bundle, golden.input, np.uint8), np.uint8)
    try:
        check_frame(frame)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {golden.input}: {error}; deploy the bundle again") from error
    return frame


def golden_frame() -> Frame:
    """An image of what deblurring meets: edges in all directions, fine and coarse waves, flat colour, noise."""
    rng = np.random.default_rng(2026)
    height, width = _SIZE_HW
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    waves = np.stack([np.sin(distance / 3), np.cos(columns / 9), np.sin((rows + columns) / 17)], axis=2)
    blocks = ((rows // 24 + columns // 32) % 2)[..., None]
    values = 90 + 50 * waves + 90 * blocks + rng.normal(0, 4, (height, width, 3))
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _unpadded(frame: Frame) -> Batch:
    """The frame as float32 (1, 3, H, W), as networks see it."""
    size_hw = frame.shape[0], frame.shape[1]
    return batch_from_frame(frame, Padding(size_hw, size_hw))


def _restore(runner: Runner, frame: Frame) -> Batch:
    """float32 (1, 3, H, W), of `scale` times the size of the frame; a copy."""
    padding = Padding.to_multiple((frame.shape[0], frame.shape[1]), runner.spec.multiple_of)
    height, width = runner.spec.output_hw(padding.size_hw)
    return runner.infer(batch_from_frame(frame, padding))[:, :, :height, :width].copy()


def _load(bundle: Bundle, name: str, dtype: type[np.generic]) -> NDArray[np.generic]:
    try:
        array = np.load(bundle.path / name, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{bundle.path}: {name} is not an array: {error}; deploy the bundle again") from error
    if array.dtype != dtype:
        raise BundleError(f"{bundle.path}: {name} is {array.dtype}, expected {np.dtype(dtype)}; deploy it again")
    return np.asarray(array)
