"""What restores a frame within the deadline: anytime deblurring.

A recursive network gives a usable image after every step, and a smaller network gives one sooner, so the cost can
follow the time there is. A ladder is a model opened at several step counts, with smaller models below it; the
controller chooses a rung for each frame, from what the rungs cost on this device and how much slower than that the
device has become (heat, other work).
"""

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import TracebackType

import numpy as np

from unblur.runtime.errors import BadInput, UnblurError
from unblur.runtime.frames import AnyFrame
from unblur.runtime.loops.restorer import RestoredFrame, rung_name
from unblur.runtime.model.bundle import Bundle, read_bundle
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.open_model import find_model
from unblur.runtime.runner import Runner, RunnerOptions, SharingRunner
from unblur.runtime.spec import Precision, SpecOverrides
from unblur.runtime.yuv import YuvFrame

_log = logging.getLogger(__name__)

Clock = Callable[[], float]

UNKNOWN_SIZE_HW = (720, 1280)
"""What to time the rungs on if a source does not report its size."""

_WINDOW = 5  # frames that the slow-down is read from: how fast it is noticed, and how soon forgotten
_HEADROOM = 0.9  # go up only to what takes at most this share of the deadline
_PATIENCE = 15  # frames in a row for which there must have been headroom: half a second of video
_TIMED_RUNS = 15  # the first few of a small network are slow: threads wake up, clocks rise
_LONG_S = 0.5  # no more runs after so long: the jitter of a long one is small against it


@dataclass(frozen=True)
class RungCost:
    """What a rung costs and gives. name: see `rung_name`. ms: of one frame on this device, measured at start.
    db: PSNR on the pairs the bundle was measured with; None if it was measured without any.
    """

    name: str
    ms: float
    db: float | None = None


class Controller:
    """Chooses among rungs of rising cost, frame by frame; plain arithmetic, no clock of its own.

    What a rung will take is predicted as its cost at start times the slow-down. The slow-down is the second
    largest ratio of measured to expected time among the last 5 frames: one hiccup is no slow-down, two are. So it
    steps down after two late frames, straight to a rung that fits, and it steps up one rung at a time, once the
    next one has fitted with a tenth to spare for 15 frames in a row: it neither flickers nor holds out too long.
    """

    def __init__(self, costs_ms: Sequence[float]) -> None:
        """costs_ms: of each rung, rising. ValueError if there is none or they do not rise."""
        if not costs_ms or list(costs_ms) != sorted(costs_ms):
            raise ValueError(f"a ladder needs rungs of rising cost, got {list(costs_ms)} ms")
        self._costs_ms = costs_ms
        self._ratios: deque[float] = deque([1.0] * _WINDOW, maxlen=_WINDOW)
        self._rung: int | None = None
        self._had_room = 0

    @property
    def slowdown(self) -> float:
        """Measured over expected time; 1 is the speed at start."""
        return sorted(self._ratios)[-2]

    def predict_ms(self, rung: int) -> float:
        """What a frame on this rung would take now."""
        return self._costs_ms[rung] * self.slowdown

    def choose(self, deadline_ms: float) -> int:
        """The rung for the next frame: the highest that is predicted to fit, or the lowest if none does."""
        fits = self._highest(deadline_ms)
        if self._rung is None or fits < self._rung:
            self._rung, self._had_room = fits, 0
        elif self._highest(deadline_ms * _HEADROOM) > self._rung:
            self._had_room += 1
            if self._had_room >= _PATIENCE:
                self._rung, self._had_room = self._rung + 1, 0
        else:
            self._had_room = 0
        return self._rung

    def observe(self, rung: int, elapsed_ms: float) -> None:
        """Tell what a frame on `rung` took."""
        self._ratios.append(elapsed_ms / self._costs_ms[rung])

    def _highest(self, deadline_ms: float) -> int:
        rungs = range(len(self._costs_ms) - 1, 0, -1)
        return next((rung for rung in rungs if self.predict_ms(rung) <= deadline_ms), 0)


class Ladder:
    """Models of rising cost, timed on this device. Owned by one thread; closes its rungs."""

    def __init__(
        self,
        rungs: Sequence[Deblurrer],
        size_hw: tuple[int, int] | None,
        *,
        quality_db: Sequence[float | None] = (),
        clock: Clock = time.perf_counter,
    ) -> None:
        """Times every rung on a frame of `size_hw`; with None none is, and only `at_size` is of use.

        rungs: by rising cost; ValueError if there is none. quality_db: PSNR of each, if known.
        """
        known_db = quality_db or [None] * len(rungs)
        self._clock = clock
        measured_ms = [self._measure_ms(rung, size_hw) for rung in rungs]
        # Jitter can time two steps of a tiny network as faster than one; costs rise by definition.
        rising_ms = itertools.accumulate(measured_ms, max)
        named = zip(_names(rungs), rising_ms, known_db, strict=True)
        self.costs = tuple(RungCost(*each) for each in named)
        self.rungs = tuple(rungs)
        self._controller = Controller([cost.ms for cost in self.costs])

    @property
    def slowdown(self) -> float:
        """See Controller."""
        return self._controller.slowdown

    @property
    def runner(self) -> Runner:
        """That of the highest rung."""
        return self.rungs[-1].runner

    @property
    def rung_names(self) -> tuple[str, ...]:
        return tuple(cost.name for cost in self.costs)

    def at_size(self, size_hw: tuple[int, int]) -> "Ladder":
        """A ladder of its own on the same models, timed at another size; closing it leaves them open."""
        rungs = [Deblurrer(rung.runner) for rung in self.rungs]
        return Ladder(rungs, size_hw, quality_db=[cost.db for cost in self.costs], clock=self._clock)

    def restore(
        self,
        frame: AnyFrame | YuvFrame,
        out: AnyFrame,
        *,
        deadline_ms: float | None = None,
        highest_rung: int | None = None,
    ) -> RestoredFrame:
        """Restore a frame into `out` on the highest rung that fits. deadline_ms: None always takes the highest."""
        rung = len(self.rungs) - 1 if deadline_ms is None else self._controller.choose(deadline_ms)
        if highest_rung is not None:
            rung = min(rung, highest_rung - 1)
        began_s = self._clock()
        rgb = self.rungs[rung](frame, out=out)
        elapsed_ms = (self._clock() - began_s) * 1e3
        self._controller.observe(rung, elapsed_ms)
        late = deadline_ms is not None and elapsed_ms > deadline_ms
        return RestoredFrame(rgb, rung + 1, elapsed_ms, late)

    def close(self) -> None:
        for rung in self.rungs:
            rung.close()

    def __enter__(self) -> "Ladder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _measure_ms(self, rung: Deblurrer, size_hw: tuple[int, int] | None) -> float:
        """Median time of a frame, after one that opens what is opened late. Noise, since zeros may be faster."""
        if size_hw is None:
            return 0.0
        noise = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
        out = np.empty((*rung.spec.output_hw(size_hw), 3), np.uint8)
        rung(noise, out=out)
        times_s: list[float] = []
        while len(times_s) < _TIMED_RUNS and sum(times_s) < _LONG_S:
            began_s = self._clock()
            rung(noise, out=out)
            times_s.append(self._clock() - began_s)
        return median(times_s) * 1e3


def open_ladder(
    model: str | Path,
    size_hw: tuple[int, int] | None,
    options: RunnerOptions = RunnerOptions(),
    *,
    fallbacks: Sequence[str | Path] = (),
) -> Ladder:
    """Open a model at every number of steps in its bundle, or at `options.steps` alone; time it at `size_hw`.

    fallbacks: models for frames that it has no time for, the best first; each becomes a rung below the others, at
    its own number of steps.
    The rungs of one model are of one precision. Those that would run elsewhere (an engine was built for some steps
    only) are left out, which the log reports. Raises BadInput for a fallback that scales by another factor, and
    what `open_runner` raises.
    """
    path = find_model(model)
    bundle = read_bundle(path) if path.is_dir() and options.steps is None else None
    with ExitStack() as stack:
        top = stack.enter_context(Deblurrer(model, options))
        fewer = [] if bundle is None else _open_fewer(bundle, top, options)
        upper = [*(stack.enter_context(rung) for rung in fewer), top]
        quality_db = [None if bundle is None else _quality_db(bundle, rung) for rung in upper]
        lower = [stack.enter_context(_open_fallback(name, top, options)) for name in reversed(fallbacks)]
        for rung in 2 * [
            *lower,
            *fewer,
        ]:  # one at a time computes; what is larger than the first ones is found last
            if isinstance(rung.runner, SharingRunner):
                rung.runner.share_memory(top.runner)
        ladder = Ladder([*lower, *upper], size_hw, quality_db=[*(None for _ in lower), *quality_db])
        stack.pop_all()
    return ladder


def _open_fallback(model: str | Path, top: Deblurrer, options: RunnerOptions) -> Deblurrer:
    rung = Deblurrer(model, replace(options, steps=None, overrides=SpecOverrides()))
    if rung.spec.scale == top.spec.scale:
        return rung
    scale = rung.spec.scale
    rung.close()
    raise BadInput(f"the fallback {model} scales by {scale}, the model by {top.spec.scale}; they have to agree")


def _names(rungs: Sequence[Deblurrer]) -> list[str]:
    """The steps are named where they tell rungs apart."""
    networks = Counter(rung.spec.preset for rung in rungs)
    return [rung_name(rung, others=networks[rung.spec.preset] > 1) for rung in rungs]


def _open_fewer(bundle: Bundle, top: Deblurrer, options: RunnerOptions) -> list[Deblurrer]:
    """The rungs below `top` that run where it does, by rising steps."""
    left_out: list[int] = []
    with ExitStack() as stack:
        rungs: list[Deblurrer] = []
        for count in _fewer_steps(bundle, top):
            at_count = replace(options, precision=top.runner.precision, steps=count, quiet=True)
            rung = Deblurrer(bundle.path, at_count)
            if rung.runner.device == top.runner.device:
                rungs.append(stack.enter_context(rung))
            else:
                rung.close()
                left_out.append(count)
        stack.pop_all()
    if left_out:
        _log.warning(
            "%s %s at fewer steps (%s) is left out: it would not run on %s; build its engines with "
            "`unblur build --steps all`",
            bundle.manifest.name,
            top.runner.precision,
            ", ".join(map(str, left_out)),
            top.runner.device,
        )
    return rungs


def _fewer_steps(bundle: Bundle, top: Deblurrer) -> list[int]:
    counts = {variant.steps for variant in bundle.manifest.variants if variant.precision == top.runner.precision}
    return sorted(count for count in counts if count < top.spec.steps)


def _quality_db(bundle: Bundle, rung: Deblurrer) -> float | None:
    """PSNR against ground truth as the bundle's ledger has it."""
    wanted = (rung.runner.precision, rung.spec.steps)
    hops = bundle.manifest.ledger
    return next((hop.later_db for hop in hops if (hop.precision, hop.steps) == wanted), None)


class LadderSwitch:
    """Restores with one ladder and opens another between two frames, when asked to.

    Any thread may ask; the one that restores opens and closes, since a runner belongs to one thread. Its loop
    stands still meanwhile: a ladder is timed when it is opened.
    """

    def __init__(self, ladder: Ladder, open_ladder: Callable[[Precision], Ladder]) -> None:
        """ladder: to begin with; closed here, like every other. open_ladder: raises UnblurError if it cannot."""
        self.ladder = ladder
        self.error: str | None = None
        self._open_ladder = open_ladder
        self._asked: Precision | None = None

    @property
    def runner(self) -> Runner:
        """Of the ladder in use."""
        return self.ladder.runner

    @property
    def rung_names(self) -> tuple[str, ...]:
        return self.ladder.rung_names

    @property
    def precision(self) -> Precision:
        """Of the ladder in use."""
        return self.runner.precision

    @property
    def asked(self) -> Precision | None:
        """The precision that is being opened; None if there is nothing to do."""
        return self._asked

    def ask(self, precision: Precision) -> None:
        """Change to `precision` before the next frame. If that fails all stays as it is, and `error` says why."""
        self.error = None
        self._asked = None if precision == self.precision else precision

    def restore(
        self,
        frame: AnyFrame | YuvFrame,
        out: AnyFrame,
        *,
        deadline_ms: float | None = None,
        highest_rung: int | None = None,
    ) -> RestoredFrame:
        """See `Ladder.restore`."""
        if self._asked is not None:
            self._change(self._asked)
        return self.ladder.restore(frame, out, deadline_ms=deadline_ms, highest_rung=highest_rung)

    def _change(self, precision: Precision) -> None:
        try:
            opened = self._open_ladder(precision)
        except UnblurError as error:
            self.error = str(error)
            _log.warning("cannot change to %s: %s", precision, error)
        else:
            self.ladder.close()
            self.ladder = opened
        if self._asked == precision:  # nobody asked for another one meanwhile
            self._asked = None

    def __enter__(self) -> "LadderSwitch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ladder.close()
