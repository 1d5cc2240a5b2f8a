"""How much of a restoration is lost from one variant of a model to the next: torch -> fp32 -> fp16 -> int8.

    ledger = measure([fp32_runner, int8_runner], find_pairs(folder))
    for hop in ledger.hops:
        print(hop.name, hop.psnr_db, hop.delta_db, hop.passed, hop.reason)

Frames are processed one at a time, so memory does not depend on their number.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, cell_means, frame_from_batch, not_finite
from unblur.runtime.metrics import MIN_SSIM_SIDE, psnr_db, psnr_float_db, ssim
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.tolerances import INT8_LOSS_LIMIT_DB, TOLERANCES, Agreement, judge
from unblur.runtime.runner import Runner
from unblur.runtime.spec import Precision

_LEVEL = 1 / 255
_BLACK = 1 * _LEVEL  # mean below this: black
_CONSTANT = 0.5 * _LEVEL  # standard deviation below this: one colour
_ALIVE = 4  # times as much in the earlier variant: the input itself was not black or constant

Defect = Literal["not finite", "black", "constant"]


@dataclass(frozen=True)
class Hop:
    """Two neighbouring variants of a model compared on some frames: the later against the earlier.

    name: "fp32 -> int8". precision, steps: of the later variant.
    psnr_db, threshold_db: found and needed in the frame that decides, see `Agreement`; PSNR is of float images.
    ssim, max_levels: in the worst frame; SSIM and the largest difference (0 to 255) are of 8-bit images.
    earlier_db, later_db: PSNR against ground truth, mean over the frames; None without ground truth.
    delta_db: later - earlier; negative is a loss.
    not_finite, black, constant: frames of the later variant with NaN or infinity, or that are black or of one
        colour although those of the earlier are not.
    passed: None if void, because the network changes these frames too little. reason: why it did not pass.
    """

    name: str
    precision: Precision
    steps: int
    frames: int
    psnr_db: float
    ssim: float
    max_levels: int
    earlier_db: float | None
    later_db: float | None
    earlier_ssim: float | None
    later_ssim: float | None
    delta_db: float | None
    not_finite: int
    black: int
    constant: int
    threshold_db: float
    passed: bool | None
    reason: str


@dataclass(frozen=True)
class Quality:
    """One variant against ground truth, mean over the frames; None without ground truth."""

    precision: Precision
    steps: int
    db: float | None
    ssim: float | None


@dataclass(frozen=True)
class Ledger:
    """The result of `measure`: one quality per variant, one hop between neighbours."""

    frames: int
    blurred_db: float | None
    qualities: tuple[Quality, ...]
    hops: tuple[Hop, ...]

    @property
    def passed(self) -> bool | None:
        """False if a hop failed, else None if one is void."""
        return conjunction(hop.passed for hop in self.hops)


def conjunction(verdicts: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is, else True."""
    found = set(verdicts)
    return False if False in found else None if None in found else True


def compare(
    reference: Runner,
    candidate: Runner,
    frames: Sequence[Frame | Pair],
    progress: Callable[[], object] | None = None,
    *,
    name: str | None = None,
) -> Hop:
    """The hop from `reference` to `candidate`; see `measure`. name: replaces "fp32 -> int8" in the result."""
    names = None if name is None else [name]
    return measure([reference, candidate], frames, progress, names=names).hops[0]


def measure(
    runners: Sequence[Runner],
    frames: Sequence[Frame | Pair],
    progress: Callable[[], object] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Ledger:
    """Run every variant on every frame once, and compare neighbours, and each with ground truth.

    frames: uint8 RGB (H, W, 3), at least 11 x 11 pixels for SSIM, or pairs, which bring ground truth; not both.
    Frames are not tiled. progress: called once per frame. names: of the hops. Raises BadInput if there is no frame,
    one is too small, or an image of a pair cannot be read; DeviceError if the only variant gives NaN.
    """
    blurred_db: list[float] = []
    tracks = [_Track() for _ in runners]
    differences = [_Differences() for _ in runners[1:]]
    for item, result in zip(frames, frame_results(runners, frames), strict=True):
        if len(runners) == 1:
            result.check_finite(item, runners[0])
        for difference, (earlier, later) in zip(differences, pairwise(result.outputs), strict=True):
            difference.add(result.values, earlier, later)
        if result.sharp is not None:
            blurred_db.append(psnr_db(result.blurred, result.sharp))
            for track, output in zip(tracks, result.outputs, strict=True):
                track.add(output.image, result.sharp)
        if progress is not None:
            progress()
    qualities = tuple(track.quality(runner) for track, runner in zip(tracks, runners, strict=True))
    names = names or [f"{earlier.precision} -> {later.precision}" for earlier, later in pairwise(runners)]
    compared = zip(differences, names, pairwise(qualities), strict=True)
    hops = (difference.finish(name, *neighbours) for difference, name, neighbours in compared)
    return Ledger(len(frames), _mean(blurred_db), qualities, tuple(hops))


@dataclass(frozen=True)
class Output:
    """A variant's output for one frame, at the size of the frame: float (1, 3, H, W), and the 8-bit image."""

    values: Batch
    image: Frame

    @classmethod
    def from_batch(cls, batch: Batch, padding: Padding, scale: int = 1) -> "Output":
        height, width = padding.size_hw
        values = cell_means(batch, scale)[:, :, :height, :width].copy()  # the runner may reuse its buffer
        finite = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
        return cls(values, frame_from_batch(finite, Padding(padding.size_hw, padding.size_hw)))

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.values).all())


@dataclass(frozen=True)
class FrameResult:
    """A frame, as uint8 and as the networks see it, its ground truth if any, and the output of every variant."""

    blurred: Frame
    values: Batch
    sharp: Frame | None
    outputs: tuple[Output, ...]

    def check_finite(self, item: Frame | Pair, runner: Runner) -> None:
        """DeviceError, with the name of the frame, if the first variant gave NaN or infinity."""
        if not self.outputs[0].is_finite:
            raise DeviceError(f"{item.name if isinstance(item, Pair) else 'a frame'}: {not_finite(runner.spec)}")


def frame_results(runners: Sequence[Runner], frames: Sequence[Frame | Pair]) -> Iterator[FrameResult]:
    """Run every variant on every frame, whole, one frame at a time; arguments and errors as in `measure`."""
    if not frames:
        raise BadInput("no frames to compare on; give at least one image")
    multiple_of = math.lcm(*(runner.spec.multiple_of for runner in runners))
    for item in frames:
        blurred, sharp = read_pair(item) if isinstance(item, Pair) else (item, None)
        _check_size(blurred)
        height, width = blurred.shape[:2]
        padding = Padding.to_multiple((height, width), multiple_of)
        batch = batch_from_frame(blurred, padding)
        outputs = tuple(Output.from_batch(runner.infer(batch), padding, runner.spec.scale) for runner in runners)
        yield FrameResult(blurred, batch[:, :, :height, :width], sharp, outputs)


@dataclass
class _Track:
    """PSNR and SSIM of one variant against ground truth, a value per frame."""

    db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)

    def add(self, image: Frame, sharp: Frame) -> None:
        self.db.append(psnr_db(image, sharp))
        self.ssim.append(ssim(image, sharp))

    def quality(self, runner: Runner) -> Quality:
        return Quality(runner.precision, runner.spec.steps, _mean(self.db), _mean(self.ssim))


@dataclass
class _Differences:
    """Differences of two neighbouring variants, a value per frame."""

    psnr_db: list[float] = field(default_factory=list)
    change_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def add(self, values: Batch, earlier: Output, later: Output) -> None:
        finite = earlier.is_finite and later.is_finite
        self.psnr_db.append(psnr_float_db(later.values, earlier.values) if finite else math.nan)
        self.change_db.append(psnr_float_db(values, earlier.values) if finite else math.nan)
        self.ssim.append(ssim(later.image, earlier.image))
        self.levels.append(int(np.abs(later.image.astype(np.int16) - earlier.image).max()))
        defect = _defect(earlier, later)
        if defect is not None:
            self.defects.append(defect)

    def finish(self, name: str, earlier: Quality, later: Quality) -> Hop:
        delta_db = None if earlier.db is None or later.db is None else later.db - earlier.db
        agreement = judge(TOLERANCES["ledger"][later.precision], self.psnr_db, self.change_db)
        passed, reason = _verdict(agreement, later.precision, delta_db, self.defects)
        return Hop(
            name=name,
            precision=later.precision,
            steps=later.steps,
            frames=len(self.psnr_db),
            psnr_db=agreement.psnr_db,
            ssim=min(self.ssim),
            max_levels=max(self.levels),
            earlier_db=earlier.db,
            later_db=later.db,
            earlier_ssim=earlier.ssim,
            later_ssim=later.ssim,
            delta_db=delta_db,
            not_finite=self.defects.count("not finite"),
            black=self.defects.count("black"),
            constant=self.defects.count("constant"),
            threshold_db=agreement.needed_db,
            passed=passed,
            reason=reason,
        )


def _defect(earlier: Output, later: Output) -> Defect | None:
    if not later.is_finite:
        return "not finite"
    if not earlier.is_finite:
        return None
    if later.values.mean() < _BLACK and earlier.values.mean() >= _ALIVE * _BLACK:
        return "black"
    if later.values.std() < _CONSTANT and earlier.values.std() >= _ALIVE * _CONSTANT:
        return "constant"
    return None


def _verdict(
    agreement: Agreement, precision: Precision, delta_db: float | None, defects: Sequence[Defect]
) -> tuple[bool | None, str]:
    """Whether a hop passed, and why not in one line."""
    if defects:
        return False, f"{len(defects)} frames with a defect, the first is {defects[0]}"
    loses = precision == "int8" and delta_db is not None and delta_db < -INT8_LOSS_LIMIT_DB
    if agreement.passed is not False and loses:
        loss = f"loses {-(delta_db or 0):.2f} dB against ground truth"
        return False, f"{loss}, at most {INT8_LOSS_LIMIT_DB:g} dB are allowed"
    return agreement.passed, agreement.reason


def _check_size(frame: Frame) -> None:
    if min(frame.shape[:2]) < MIN_SSIM_SIDE:
        raise BadInput(
            f"an image of {frame.shape[0]} x {frame.shape[1]} pixels is too small to compare on; "
            f"expected at least {MIN_SSIM_SIDE} x {MIN_SSIM_SIDE}"
        )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
