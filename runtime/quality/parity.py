"""How much of a restoration is lost from one form of a model to the next: torch -> fp32 -> fp16 -> int8.

    ledger = measure([fp32_runner, int8_runner], find_pairs(folder))
    for hop in ledger.hops:
        print(hop.name, hop.psnr_db, hop.delta_db, hop.passed, hop.reason)

Everything goes frame by frame: memory does not depend on how many frames there are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import MIN_SSIM_SIDE, psnr_db, psnr_float_db, ssim
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.tolerances import FLOOR_DB, INT8_LOSS_LIMIT_DB
from unblur.runtime.runner import Runner
from unblur.runtime.spec import Precision

_LEVEL = 1 / 255
_BLACK = 1 * _LEVEL  # mean below this: black
_CONSTANT = 0.5 * _LEVEL  # standard deviation below this: one colour
_ALIVE = 4  # times as much in the form before: the input itself was not black or constant

Defect = Literal["not finite", "black", "constant"]


@dataclass(frozen=True)
class Hop:
    """The step from one form of a model to the next, over some frames.

    name: "fp32 -> int8". precision, steps: of the later form.
    psnr_db, ssim, max_levels: of the later against the earlier, in the worst frame; PSNR on float images, SSIM
        and the largest difference (0 to 255) on 8-bit ones. PSNR is inf if equal, NaN if a value is not finite.
    earlier_db, later_db: PSNR against ground truth, mean over the frames; None without ground truth.
    delta_db: later - earlier; negative is a loss.
    not_finite, black, constant: frames of the later form with NaN or infinity, or that are black or of one colour
        although the earlier form's are not.
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
    passed: bool
    reason: str


@dataclass(frozen=True)
class Quality:
    """One form against ground truth, mean over the frames; None without ground truth."""

    precision: Precision
    steps: int
    db: float | None
    ssim: float | None


@dataclass(frozen=True)
class Ledger:
    """What `measure` found: one quality per form, one hop between neighbours."""

    frames: int
    blurred_db: float | None
    qualities: tuple[Quality, ...]
    hops: tuple[Hop, ...]

    @property
    def passed(self) -> bool:
        return all(hop.passed for hop in self.hops)


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
    """Run every form on every frame once and compare neighbours, and each with ground truth.

    frames: uint8 RGB (H, W, 3), at least 11 x 11 pixels for SSIM, or pairs, which bring ground truth; not both.
    Inputs are not tiled. progress: called once a frame. names: of the hops. Raises BadInput if there is no
    frame, one is too small, or a picture of a pair cannot be read.
    """
    blurred_db: list[float] = []
    tracks = [_Track() for _ in runners]
    tallies = [_HopTally() for _ in runners[1:]]
    for shot in shots(runners, frames):
        for tally, (earlier, later) in zip(tallies, pairwise(shot.outputs), strict=True):
            tally.add(earlier, later)
        if shot.sharp is not None:
            blurred_db.append(psnr_db(shot.blurred, shot.sharp))
            for track, output in zip(tracks, shot.outputs, strict=True):
                track.add(output.picture, shot.sharp)
        if progress is not None:
            progress()
    qualities = tuple(track.quality(runner) for track, runner in zip(tracks, runners, strict=True))
    names = names or [f"{earlier.precision} -> {later.precision}" for earlier, later in pairwise(runners)]
    hops = (
        tally.finish(name, *forms) for tally, name, forms in zip(tallies, names, pairwise(qualities), strict=True)
    )
    return Ledger(len(frames), _mean(blurred_db), qualities, tuple(hops))


@dataclass(frozen=True)
class Output:
    """What one form made of one frame: as float (1, 3, H, W), and as the 8-bit picture that people see."""

    values: Batch
    picture: Frame

    @classmethod
    def from_batch(cls, batch: Batch, padding: Padding) -> "Output":
        height, width = padding.size_hw
        values = batch[:, :, :height, :width].copy()  # the runner may reuse its buffer
        whole = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
        return cls(values, frame_from_batch(whole, Padding(padding.size_hw, padding.size_hw)))

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.values).all())


@dataclass(frozen=True)
class Shot:
    """A frame, its ground truth where there is one, and what every form made of it."""

    blurred: Frame
    sharp: Frame | None
    outputs: tuple[Output, ...]


def shots(runners: Sequence[Runner], frames: Sequence[Frame | Pair]) -> Iterator[Shot]:
    """Run every form on every frame, one frame at a time, whole; arguments and errors as of `measure`."""
    if not frames:
        raise BadInput("no frames to compare on; give at least one picture")
    multiple_of = math.lcm(*(runner.spec.multiple_of for runner in runners))
    for item in frames:
        blurred, sharp = read_pair(item) if isinstance(item, Pair) else (item, None)
        _check_size(blurred)
        padding = Padding.to_multiple((blurred.shape[0], blurred.shape[1]), multiple_of)
        batch = batch_from_frame(blurred, padding)
        outputs = tuple(Output.from_batch(runner.infer(batch), padding) for runner in runners)
        yield Shot(blurred, sharp, outputs)


@dataclass
class _Track:
    """PSNR and SSIM of one form against ground truth, a value per frame."""

    db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)

    def add(self, picture: Frame, sharp: Frame) -> None:
        self.db.append(psnr_db(picture, sharp))
        self.ssim.append(ssim(picture, sharp))

    def quality(self, runner: Runner) -> Quality:
        return Quality(runner.precision, runner.spec.steps, _mean(self.db), _mean(self.ssim))


@dataclass
class _HopTally:
    """Differences of two neighbouring forms, a value per frame."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def add(self, earlier: Output, later: Output) -> None:
        finite = earlier.is_finite and later.is_finite
        self.psnr_db.append(psnr_float_db(later.values, earlier.values) if finite else math.nan)
        self.ssim.append(ssim(later.picture, earlier.picture))
        self.levels.append(int(np.abs(later.picture.astype(np.int16) - earlier.picture).max()))
        defect = _defect(earlier, later)
        if defect is not None:
            self.defects.append(defect)

    def finish(self, name: str, earlier: Quality, later: Quality) -> Hop:
        worst_db = float(np.min(self.psnr_db))  # NaN if any frame is
        delta_db = None if earlier.db is None or later.db is None else later.db - earlier.db
        threshold_db = FLOOR_DB["ledger"][later.precision]
        reason = _reason(later.precision, worst_db, threshold_db, delta_db, self.defects)
        return Hop(
            name=name,
            precision=later.precision,
            steps=later.steps,
            frames=len(self.psnr_db),
            psnr_db=worst_db,
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
            threshold_db=threshold_db,
            passed=not reason,
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


def _reason(
    precision: Precision,
    worst_db: float,
    threshold_db: float,
    delta_db: float | None,
    defects: Sequence[Defect],
) -> str:
    """Why the hop failed, in one line; empty if it passed."""
    if defects:
        return f"{len(defects)} frames with a defect, the first is {defects[0]}"
    if not worst_db >= threshold_db:  # NaN fails too
        return f"{worst_db:.1f} dB from the form before in the worst frame, expected at least {threshold_db:g} dB"
    if precision == "int8" and delta_db is not None and delta_db < -INT8_LOSS_LIMIT_DB:
        return f"loses {-delta_db:.2f} dB against ground truth, at most {INT8_LOSS_LIMIT_DB:g} dB are allowed"
    return ""


def _check_size(frame: Frame) -> None:
    if min(frame.shape[:2]) < MIN_SSIM_SIDE:
        raise BadInput(
            f"a picture of {frame.shape[0]} x {frame.shape[1]} pixels is too small to compare on; "
            f"expected at least {MIN_SSIM_SIDE} x {MIN_SSIM_SIDE}"
        )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
