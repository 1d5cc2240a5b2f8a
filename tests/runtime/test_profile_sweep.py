"""Sweeps find the law by which a runner slows down; two runners measured in turn are told apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from costed_runner import CostedRunner, nanoseconds
from timed_runner import HandClock

from unblur.runtime.frames import Batch
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.profile.measure import Control, Plan
from unblur.runtime.profile.profile_model import profile_against
from unblur.runtime.profile.sweep import SweepRequest, power_law, sizes_around, sweep
from unblur.runtime.runner import Runner

PLAN = Plan((64, 64), seconds=6, telemetry=False)


def lawful(clock: HandClock, law: Callable[[int, int, int], float], seed: int = 0) -> CostedRunner:
    """A runner that takes law(N, H, W) ms, with 1 % of noise."""
    rng = np.random.default_rng(seed)

    def cost(batch: Batch) -> float:
        count, _, height, width = batch.shape
        return float(law(count, height, width) * np.exp(0.01 * rng.standard_normal()))

    return CostedRunner(1, clock, cost=cost)


def unopened() -> Runner:
    raise AssertionError("no second runner was asked for")


def test_sizes_give_the_exponent() -> None:
    clock = HandClock()
    runner = lawful(clock, lambda n, height, width: 0.02 * (height * width) ** 1.2)
    control = Control(clock=nanoseconds(clock))
    found = sweep(SweepRequest(sizes=()), runner, unopened, PLAN, control).sizes
    assert found is not None
    assert [point.value for point in found.points] == ["16x16", "24x24", "32x32", "48x48", "64x64"]
    assert found.exponent == pytest.approx(1.2, abs=0.01)
    assert found.exponent_interval is not None
    low, high = found.exponent_interval
    assert low < 1.2 < high
    assert found.fit_error == pytest.approx(1, abs=0.02)


def test_a_constant_cost_is_seen_as_a_misfit() -> None:
    clock = HandClock()
    runner = lawful(clock, lambda n, height, width: 5 + 0.01 * height * width)
    sizes = ((8, 8), (16, 16), (64, 64))
    found = sweep(SweepRequest(sizes=sizes), runner, unopened, PLAN, Control(clock=nanoseconds(clock))).sizes
    assert found is not None
    assert found.exponent is not None
    assert found.exponent < 0.6
    assert found.fit_error is not None
    assert found.fit_error > 1.2


def test_two_sizes_make_no_law() -> None:
    clock = HandClock()
    runner = lawful(clock, lambda n, height, width: 0.01 * height * width)
    request = SweepRequest(sizes=((16, 32), (32, 16), (64, 64)))  # two of as many pixels
    found = sweep(request, runner, unopened, PLAN, Control(clock=nanoseconds(clock))).sizes
    assert found is not None
    assert len(found.points) == 3
    assert found.exponent is None
    assert power_law([]).exponent is None


def test_default_sizes_fit_the_network_and_none_comes_twice() -> None:
    assert sizes_around((64, 96), 32) == ((32, 32), (32, 64), (64, 96))
    assert sizes_around((720, 1280), 16)[-1] == (720, 1280)


def test_batches_tell_pictures_a_second() -> None:
    clock = HandClock()
    runner = lawful(clock, lambda n, height, width: 10 + 10 * n)
    sweeps = sweep(SweepRequest(batches=(1, 9)), runner, unopened, PLAN, Control(clock=nanoseconds(clock)))
    assert sweeps.batches is not None
    assert (sweeps.sizes, sweeps.streams) == (None, None)
    one, nine = sweeps.batches
    assert (one.pixels, nine.pixels) == (64 * 64, 9 * 64 * 64)
    assert one.latency_ms.p50 == pytest.approx(20, rel=0.02)
    assert one.fps == pytest.approx(50, rel=0.02)
    assert nine.fps == pytest.approx(90, rel=0.02)


def test_streams_run_side_by_side(tiny_onnx: Path) -> None:
    opened = []

    def open_one() -> Runner:
        opened.append(OnnxRunner(tiny_onnx, threads=1))
        return opened[-1]

    with open_one() as runner:
        plan = Plan((64, 96), seconds=0.4, telemetry=False)
        streams = sweep(SweepRequest(streams=(1, 3)), runner, open_one, plan, Control()).streams
    assert streams is not None
    assert [point.value for point in streams] == ["1", "3"]
    assert len(opened) == 1 + 1 + 3
    with pytest.raises(ValueError, match="closed"):
        opened[-1].infer(np.zeros((1, 3, 64, 96), np.float32))
    three = streams[1]
    assert three.samples >= 30  # at least 10 each
    assert three.fps > 0


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "no difference seen"), (1.1, "slower"), (0.9, "faster")])
def test_two_models_in_turn(share: float, verdict: str) -> None:
    clock = HandClock()
    runner = lawful(clock, lambda n, height, width: 10)
    other = lawful(clock, lambda n, height, width: 10 * share, seed=1)
    found = profile_against(runner, other, PLAN, model="other", control=Control(clock=nanoseconds(clock)))
    assert found is not None
    assert (found.verdict, found.model) == (verdict, "other")
    assert found.ratio == pytest.approx(share, rel=0.01)
    low, high = found.ratio_interval
    assert low is not None
    assert high is not None
    assert low < share < high
    assert found.latency_ms.p50 == pytest.approx(10 * share, rel=0.02)


def test_what_is_stopped_early_has_no_points_and_no_verdict() -> None:
    control = Control()
    control.stop.set()
    clock = HandClock()
    runner, other = (lawful(clock, lambda n, height, width: 10) for _ in range(2))
    sweeps = sweep(SweepRequest((), (1,), (1,)), runner, unopened, PLAN, control)
    assert sweeps.sizes is not None
    assert (sweeps.sizes.points, sweeps.batches, sweeps.streams) == ((), (), ())
    assert profile_against(runner, other, PLAN, model="other", control=control) is None
