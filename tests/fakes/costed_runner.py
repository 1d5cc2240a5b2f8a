"""A runner whose inferences take as long as a function says, on a clock turned by hand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from timed_runner import HandClock, TimedRunner

from unblur.runtime.frames import Batch


def nanoseconds(clock: HandClock) -> Callable[[], int]:
    """The clock as a profile takes it."""
    return lambda: round(clock.now_s * 1e9)


@dataclass
class CostedRunner(TimedRunner):
    """cost: ms that a batch takes. batches: what was fed."""

    cost: Callable[[Batch], float] = lambda batch: 1.0
    batches: list[Batch] = field(default_factory=list, init=False)

    def infer(self, batch: Batch) -> Batch:
        self.batches.append(batch)
        self.clock.work(self.cost(batch))
        return batch


def scripted(clock: HandClock, script: Iterable[float]) -> CostedRunner:
    """A runner that takes the times of `script`, one after the other."""
    times_ms = iter(script)
    return CostedRunner(1, clock, cost=lambda batch: next(times_ms))
