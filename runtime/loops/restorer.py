"""What both loops restore frames with: one model, a ladder of step counts, or a switch between ladders."""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Frame
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import Runner


@dataclass(frozen=True)
class RestoredFrame:
    """rgb: uint8 (H, W, 3). steps: 0 if the frame was passed on as it is. ms: the time it took.
    late: more than the deadline.
    """

    rgb: Frame
    steps: int
    ms: float
    late: bool


class Restorer(Protocol):
    """Restores one frame after the other, in one thread."""

    @property
    def runner(self) -> Runner:
        """What runs the model at the most steps."""
        ...

    def restore(
        self, frame_rgb: Frame, out: Frame, *, deadline_ms: float | None = None, most_steps: int | None = None
    ) -> RestoredFrame:
        """Restore uint8 RGB (H, W, 3) into `out` of the same shape, with the most steps that fit.

        deadline_ms: None is no limit. most_steps: None is no limit; the fewest there are if that is more.
        """
        ...


def restored_shape(frame_rgb: Frame, restorer: Restorer) -> tuple[int, int, int]:
    """Of what a frame is restored to."""
    height, width = restorer.runner.spec.output_hw((frame_rgb.shape[0], frame_rgb.shape[1]))
    return height, width, 3


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

    def restore(
        self, frame_rgb: Frame, out: Frame, *, deadline_ms: float | None = None, most_steps: int | None = None
    ) -> RestoredFrame:
        """Restore with all steps, whatever the limits; see `Restorer.restore`."""
        began_s = time.perf_counter()
        rgb = self._deblurrer(frame_rgb, out=out)
        elapsed_ms = (time.perf_counter() - began_s) * 1e3
        late = deadline_ms is not None and elapsed_ms > deadline_ms
        return RestoredFrame(rgb, self._deblurrer.spec.steps, elapsed_ms, late)

    def __enter__(self) -> "FixedSteps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deblurrer.close()
