"""What both loops restore frames with: one model, a ladder, or a switch between ladders."""

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, cast

import numpy as np

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import AnyFrame, FramePool, blend, eight_bits, sixteen_bits, white_of
from unblur.runtime.media.interfaces import TimedFrame
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import Runner
from unblur.runtime.yuv import YuvFrame


@dataclass(frozen=True)
class RestoredFrame:
    """rgb: (H, W, 3), of the type of the frame. rung: of the ladder, counted from 1; 0 if the frame was passed on
    as it is. ms: the time it took. late: more than the deadline.
    """

    rgb: AnyFrame
    rung: int
    ms: float
    late: bool


class Restorer(Protocol):
    """Restores one frame after the other, in one thread."""

    @property
    def runner(self) -> Runner:
        """What runs the highest rung."""
        ...

    @property
    def rung_names(self) -> tuple[str, ...]:
        """What the rungs are called, the lowest first."""
        ...

    def restore(
        self,
        frame: AnyFrame | YuvFrame,
        out: AnyFrame,
        *,
        deadline_ms: float | None = None,
        highest_rung: int | None = None,
    ) -> RestoredFrame:
        """Restore uint8 or uint16 RGB (H, W, 3), or YUV, into `out`, on the highest rung that fits.

        deadline_ms, highest_rung: None is no limit.
        """
        ...


def rung_name(model: Deblurrer, *, others: bool = False) -> str:
    """What a rung is called: "lprn-s", or among other rungs of the same network by its steps, "lprn, 3 steps"."""
    spec = model.spec
    name = spec.preset or spec.system
    return f"{name}, {spec.steps} step{'s' if spec.steps > 1 else ''}" if others else name


def take_output(pool: FramePool, frame: AnyFrame | YuvFrame, restorer: Restorer) -> AnyFrame:
    """An array for what a frame is restored to: uint8, or uint16 as the frame."""
    shape = (*restorer.runner.spec.output_hw((frame.shape[0], frame.shape[1])), 3)
    return pool.take(shape) if isinstance(frame, YuvFrame) else pool.take(shape, like=frame)


@contextmanager
def naming_frame(index: int) -> Iterator[None]:
    """Let a DeviceError say at which frame, counted from 0, it was raised."""
    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"frame {index}: {error}") from error


class InferenceTimeout:
    """Ends the process with one line once a frame takes longer than `limit_s` seconds, first use and all.

    A call into a driver or a graph that loops cannot be stopped from Python, nor can it be waited for.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._began_s = math.inf
        self._ended = threading.Event()

    @contextmanager
    def frame(self) -> Iterator[None]:
        """One frame is restored inside the block."""
        self._began_s = time.monotonic()
        try:
            yield
        finally:
            self._began_s = math.inf

    def __enter__(self) -> "InferenceTimeout":
        self._thread = threading.Thread(target=self._watch, name="unblur-timeout", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._limit_s / 4)):
            if time.monotonic() - self._began_s > self._limit_s:
                sys.stderr.write(
                    f"unblur: a frame took more than {self._limit_s:g} s, the limit of --inference-timeout; "
                    "does the model loop, or the device hang?\n"
                )
                sys.stderr.flush()
                os._exit(2)


class FixedSteps:
    """One model at its own number of steps as a restorer; closes the model."""

    def __init__(self, deblurrer: Deblurrer) -> None:
        self._deblurrer = deblurrer

    @property
    def runner(self) -> Runner:
        return self._deblurrer.runner

    @property
    def rung_names(self) -> tuple[str, ...]:
        return (rung_name(self._deblurrer),)

    def restore(
        self,
        frame: AnyFrame | YuvFrame,
        out: AnyFrame,
        *,
        deadline_ms: float | None = None,
        highest_rung: int | None = None,
    ) -> RestoredFrame:
        """Restore with all steps, whatever the limits; see `Restorer.restore`."""
        began_s = time.perf_counter()
        rgb = self._deblurrer(frame, out=out)
        elapsed_ms = (time.perf_counter() - began_s) * 1e3
        late = deadline_ms is not None and elapsed_ms > deadline_ms
        return RestoredFrame(rgb, 1, elapsed_ms, late)

    def begin(self, frame: AnyFrame | YuvFrame, out: AnyFrame) -> bool:
        """See `Deblurrer.begin`."""
        return self._deblurrer.begin(frame, out)

    def end(self) -> None:
        """See `Deblurrer.end`."""
        self._deblurrer.end()

    def __enter__(self) -> "FixedSteps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deblurrer.close()


def restore_transparent(
    rgb: AnyFrame, alpha: AnyFrame, restore: Callable[[AnyFrame], RestoredFrame]
) -> tuple[RestoredFrame, AnyFrame]:
    """Restore the colours multiplied by alpha, as a camera would have mixed them, and alpha itself.

    Restored by themselves, the colours of hidden pixels would leak out as a halo.
    """
    cover = sixteen_bits(alpha)[..., None]
    multiplied = np.rint(sixteen_bits(rgb) * (cover / np.float32(65_535))).astype(np.uint16)
    colour, shape = restore(multiplied), restore(np.repeat(cover, 3, axis=2))
    covered = np.rint(shape.rgb.mean(axis=2, keepdims=True, dtype=np.float32))
    divided = np.minimum(colour.rgb * (65_535 / np.maximum(covered, 1)), 65_535).astype(np.uint16)
    levels: tuple[AnyFrame, AnyFrame] = divided, covered[..., 0].astype(np.uint16)
    if rgb.dtype == np.uint8:
        levels = eight_bits(levels[0]), eight_bits(levels[1])
    return replace(colour, rgb=levels[0], ms=colour.ms + shape.ms, late=colour.late or shape.late), levels[1]


class Overlap:
    """Restores frames in order; where the runner overlaps them, one begins before the one before it has ended."""

    def __init__(self, restorer: Restorer, deadline_ms: float | None, strength: float = 1) -> None:
        """deadline_ms: see `Restorer`; a frame that has one does not wait for another. strength: 0 gives the source
        back, 1 the whole restoration.
        """
        self._restorer = restorer
        self._deadline_ms = deadline_ms
        self._strength = strength
        self._pool = FramePool()
        self._begun: deque[tuple[TimedFrame, AnyFrame, float]] = deque()

    def restore(self, frame: TimedFrame) -> list[tuple[TimedFrame, RestoredFrame]]:
        """Restore a frame, or begin to; the frames that are done now, with this one or before it."""
        if frame.alpha is not None:
            return [*self.rest(), self._restore_with_alpha(frame, frame.alpha)]
        began_s = time.perf_counter()
        out = take_output(self._pool, frame.image, self._restorer)
        if self._begins(frame, out):
            self._begun.append((frame, out, began_s))
            return [self._end()] if len(self._begun) > 1 else []
        return [*self.rest(), (frame, self._restore(frame.rgb, out))]

    def _restore(self, rgb: AnyFrame, out: AnyFrame | None = None) -> RestoredFrame:
        out = take_output(self._pool, rgb, self._restorer) if out is None else out
        result = self._restorer.restore(rgb, out, deadline_ms=self._deadline_ms)
        blend(rgb, result.rgb, self._strength)
        return result

    def _restore_with_alpha(self, frame: TimedFrame, alpha: AnyFrame) -> tuple[TimedFrame, RestoredFrame]:
        if alpha.min() < white_of(alpha):
            result, alpha = restore_transparent(frame.rgb, alpha, self._restore)
        else:
            result = self._restore(frame.rgb)
            alpha = cast(AnyFrame, np.full(result.rgb.shape[:2], white_of(alpha), alpha.dtype))
        return replace(frame, alpha=alpha), result

    def rest(self) -> list[tuple[TimedFrame, RestoredFrame]]:
        """End the frames that are under way."""
        return [self._end() for _ in range(len(self._begun))]

    def _begins(self, frame: TimedFrame, out: AnyFrame) -> bool:
        overlaps = self._deadline_ms is None and isinstance(self._restorer, FixedSteps)
        return overlaps and cast(FixedSteps, self._restorer).begin(frame.image, out)

    def _end(self) -> tuple[TimedFrame, RestoredFrame]:
        cast(FixedSteps, self._restorer).end()
        frame, out, began_s = self._begun.popleft()
        elapsed_ms = (time.perf_counter() - began_s) * 1e3
        blend(frame.rgb, out, self._strength)
        return frame, RestoredFrame(out, 1, elapsed_ms, late=False)
