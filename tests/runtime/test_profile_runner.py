"""A profile tells what a runner with known latencies takes, once it has settled."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from costed_runner import CostedRunner, nanoseconds, scripted
from timed_runner import HandClock

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Batch, Frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.measure import LEAST_SAMPLES, SUSTAINED_SAMPLES, Control, Plan, profile_runner
from unblur.runtime.runner import InferenceTiming

PLAN = Plan(size_hw=(16, 16), seconds=30, telemetry=False, tensor=True)


def noisy(level_ms: float, seed: int = 0) -> Iterator[float]:
    """Lognormal latencies with a median of `level_ms`, as those of a busy machine are."""
    rng = np.random.default_rng(seed)
    while True:
        yield from level_ms * np.exp(0.05 * rng.standard_normal(1000))


def profile_of(script: Iterable[float], plan: Plan = PLAN, stop_after: int | None = None) -> Profile:
    clock, stop = HandClock(), Event()
    runner = scripted(clock, script)

    def watch(phase: str, done: float | None) -> None:
        if stop_after is not None and len(runner.batches) >= stop_after:
            stop.set()

    return profile_runner(runner, plan, control=Control(stop, watch, nanoseconds(clock)))


def test_known_latencies_come_back_within_two_percent() -> None:
    profile = profile_of(noisy(10))
    found = profile.latency_ms
    expected = 10 * np.exp(0.05 * np.array([0, 1.2816, 2.3263]))
    assert [found.p50, found.p90, found.p99] == pytest.approx(expected, rel=0.02)
    assert found.mean == pytest.approx(10, rel=0.02)
    assert profile.fps == pytest.approx(100, rel=0.02)
    assert profile.cv == pytest.approx(0.05, rel=0.1)
    assert profile.stationary
    assert profile.warmup.settled
    assert not profile.interrupted


def test_a_batch_counts_as_that_many_pictures() -> None:
    assert profile_of(
        noisy(10), Plan((16, 16), batch=4, seconds=1, telemetry=False, tensor=True)
    ).fps == pytest.approx(400, rel=0.02)


def test_a_slow_beginning_is_warm_up_and_the_first_inference_stands_apart() -> None:
    beginning = [900.0, *(10 + 30 * 0.97**index for index in range(150))]
    profile = profile_of(itertools.chain(beginning, noisy(10)))
    assert profile.cold_ms == {"import": None, "open": None, "first": 900.0}
    assert profile.warmup.samples > 75
    assert profile.latency_ms.p50 == pytest.approx(10, rel=0.02)
    assert profile.latency_ms.p999 < 15


def test_a_steady_drift_never_settles_and_is_told() -> None:
    profile = profile_of(10 * 1.003**index for index in itertools.count())
    assert not profile.warmup.settled
    assert not profile.stationary
    assert profile.warmup.seconds == pytest.approx(PLAN.warm_up_s, rel=0.01)


def test_a_slow_model_is_measured_the_least_number_of_times() -> None:
    assert profile_of(noisy(60_000)).samples == LEAST_SAMPLES


def test_many_times_are_thinned_evenly() -> None:
    profile = profile_of(noisy(1), replace(PLAN, seconds=10))
    assert profile.times_every == 3
    assert len(profile.times_ms) == -(-profile.samples // 3)


def test_random_inputs_are_fed_in_turn() -> None:
    clock = HandClock()
    runner = scripted(clock, noisy(10))
    plan = Plan((1024, 1024), seconds=1, telemetry=False, tensor=True)
    inputs = profile_runner(runner, plan, control=Control(clock=nanoseconds(clock))).inputs
    assert inputs.buffers >= 4
    assert len({id(batch) for batch in runner.batches}) == inputs.buffers
    assert all(first is not second for first, second in itertools.pairwise(runner.batches))
    assert all(0.45 < batch.mean() < 0.55 for batch in runner.batches[: inputs.buffers])
    assert runner.batches[0].shape == (1, 3, 1024, 1024)


def test_what_was_measured_before_an_interruption_is_kept() -> None:
    settled = 1 + profile_of(noisy(10)).warmup.samples
    profile = profile_of(noisy(10), stop_after=settled + 7)
    assert (profile.samples, profile.interrupted) == (7, True)


def test_an_interruption_before_that_leaves_nothing() -> None:
    with pytest.raises(BadInput, match=r"^interrupted before the latency settled, so nothing was measured;"):
        profile_of(noisy(10), stop_after=5)


def test_a_clock_that_goes_backwards_is_refused() -> None:
    ticks = itertools.chain(range(0, 100_000_000, 1_000_000), itertools.count(0, -1_000_000))
    runner = scripted(HandClock(), itertools.repeat(0))
    with pytest.raises(BadInput, match=r"^the clock went backwards by 1 ms; expected a monotonic one"):
        profile_runner(runner, PLAN, control=Control(clock=lambda: next(ticks)))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time_to_measure_is_refused(seconds: float) -> None:
    with pytest.raises(BadInput, match=f"^the time to measure is {seconds:g} s, expected more than 0$"):
        Plan(seconds=seconds)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_warm_up_before_its_beginning_is_refused(seconds: float) -> None:
    with pytest.raises(BadInput, match=f"^the longest warm-up is {seconds:g} s, expected 0 or more$"):
        Plan(warm_up_s=seconds)


def test_too_large_a_batch_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^a batch of 1 frames of 20000x20000 is more than 100,000,000 pixels;"):
        profile_of(noisy(10), Plan((20_000, 20_000), telemetry=False))


def test_a_run_that_becomes_slower_is_throttled_from_its_onset() -> None:
    script = itertools.chain(itertools.islice(noisy(10), 6000), noisy(13))
    profile = profile_of(script, replace(PLAN, seconds=120, sustained=True))
    assert profile.sustained is not None
    assert profile.sustained.verdict == "slower"
    assert profile.sustained.onset_s == pytest.approx(60, abs=6)
    assert not profile.stationary


def test_a_sustained_run_is_long_enough_to_be_judged() -> None:
    profile = profile_of(noisy(10_000), replace(PLAN, seconds=1, sustained=True))
    assert profile.samples == SUSTAINED_SAMPLES
    assert profile.sustained is not None


class PartedRunner(CostedRunner):
    """Tells parts that grow: the device's is the number of the call."""

    def timed_infer(self, batch: Batch) -> tuple[Batch, InferenceTiming]:
        return self.infer(batch), InferenceTiming(1.0, 2.0, float(len(self.batches)), 3.0)


def test_the_parts_are_medians_of_inferences_that_do_not_count() -> None:
    clock = HandClock()
    runner = PartedRunner(1, clock, cost=lambda batch: 10.0)
    profile = profile_runner(runner, PLAN, control=Control(clock=nanoseconds(clock)))
    counted = 1 + profile.warmup.samples + profile.samples
    assert len(runner.batches) == counted + 11
    assert profile.timing == InferenceTiming(1.0, 2.0, counted + 6.5, 3.0)


class WholeFrameRunner(CostedRunner):
    """Takes frames as they are."""

    def infer_frame(self, frame_rgb: Frame, out: Frame) -> None:
        assert (frame_rgb.dtype, frame_rgb.shape, out.shape) == (np.uint8, (16, 16, 3), (16, 16, 3))
        self.clock.work(7.0)

    def timed_infer_frame(self, frame_rgb: Frame, out: Frame) -> InferenceTiming:
        self.infer_frame(frame_rgb, out)
        return InferenceTiming(1.0, 2.0, 3.0, 1.0)


def test_frames_take_the_path_of_run() -> None:
    clock = HandClock()
    runner = WholeFrameRunner(1, clock)
    plan = replace(PLAN, tensor=False)
    profile = profile_runner(runner, plan, control=Control(clock=nanoseconds(clock)))
    assert profile.latency_ms.p50 == pytest.approx(7)
    assert profile.timing == InferenceTiming(1.0, 2.0, 3.0, 1.0)
    assert not profile.tensor
    assert runner.batches == []
    assert profile_runner(runner, PLAN, control=Control(clock=nanoseconds(clock))).tensor
    assert runner.batches


def test_conversions_on_the_host_are_part_of_a_frame(tiny_onnx: Path) -> None:
    with OnnxRunner(tiny_onnx, threads=1) as runner:
        frames = profile_runner(runner, Plan((64, 96), seconds=0.2, warm_up_s=0, telemetry=False))
        floats = profile_runner(runner, Plan((64, 96), seconds=0.2, warm_up_s=0, telemetry=False, tensor=True))
    assert frames.inputs.bytes == frames.inputs.buffers * 64 * 96 * 3
    assert floats.inputs.bytes == floats.inputs.buffers * 64 * 96 * 3 * 4
    assert frames.timing is not None
    assert floats.timing is not None
    assert frames.timing.host_ms > floats.timing.host_ms


def test_a_batch_of_frames_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^frames run one at a time; a batch of 2 needs --tensor$"):
        Plan(batch=2)


def test_a_runner_that_cannot_tell_its_parts_has_none() -> None:
    assert profile_of(noisy(10)).timing is None


def test_the_sensors_are_read_beside_it() -> None:
    clock = HandClock()
    runner = scripted(clock, noisy(10))
    plan = Plan((16, 16), seconds=1)
    telemetry = profile_runner(runner, plan, control=Control(clock=nanoseconds(clock))).telemetry
    assert telemetry is not None
    assert telemetry.samples >= 2
