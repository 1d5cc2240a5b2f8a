"""A runner that takes a stated time on a clock that the test turns by hand, and marks its frames."""

from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from unblur.runtime.frames import Batch
from unblur.runtime.spec import ModelSpec, Precision


@dataclass
class HandClock:
    """Seconds that pass when told to; `slowdown` multiplies the work of every runner on it."""

    now_s: float = 0.0
    slowdown: float = 1.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, ms: float) -> None:
        self.now_s += ms * self.slowdown / 1e3


@dataclass
class TimedRunner:
    """Adds `steps` levels to every pixel, in `ms_per_step` a step."""

    steps: int
    clock: HandClock
    ms_per_step: float = 10.0
    device: str = "fake"
    precision: Precision = "fp32"
    closed: bool = field(default=False, init=False)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("lprn", "timed", self.steps, multiple_of=1, receptive_field=8, pooling="none")

    def infer(self, batch: Batch) -> Batch:
        self.clock.work(self.steps * self.ms_per_step)
        return batch + np.float32(self.steps / 255)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "TimedRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
