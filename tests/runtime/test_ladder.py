"""The controller keeps the deadline when the device slows down, and does not flicker."""

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed_runner import HandClock, TimedRunner

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.loops.ladder import Controller, Ladder, open_ladder
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import SpecOverrides

SIZE_HW = (8, 8)
FRAME = np.full((*SIZE_HW, 3), 100, np.uint8)
COSTS_MS = [10.0, 20.0, 30.0, 60.0]


def ladder_of(clock: HandClock, *steps: int, ms_per_step: float = 10.0) -> Ladder:
    rungs = [Deblurrer(TimedRunner(count, clock, ms_per_step)) for count in steps]
    return Ladder(rungs, SIZE_HW, clock=clock)


def drive(controller: Controller, slowdowns: list[float], deadline_ms: float) -> list[int]:
    """The rung of every frame, on a device that is so much slower at each."""
    rungs = []
    for slowdown in slowdowns:
        rung = controller.choose(deadline_ms)
        controller.observe(rung, COSTS_MS[rung] * slowdown)
        rungs.append(rung)
    return rungs


def test_it_takes_the_most_steps_that_fit() -> None:
    assert drive(Controller(COSTS_MS), [1.0] * 5, deadline_ms=33) == [2] * 5
    assert drive(Controller(COSTS_MS), [1.0] * 5, deadline_ms=5) == [0] * 5
    assert drive(Controller(COSTS_MS), [1.0] * 5, deadline_ms=60) == [3] * 5


def test_it_gives_way_within_five_frames_of_a_slowdown() -> None:
    rungs = drive(Controller(COSTS_MS), [1.0] * 20 + [2.0] * 20, deadline_ms=66)
    assert rungs[:22] == [3] * 22
    assert rungs[22:] == [2] * 18  # two late frames, then the highest rung that fits at half the speed


def test_one_hiccup_is_no_slowdown() -> None:
    assert drive(Controller(COSTS_MS), [1.0] * 10 + [8.0] + [1.0] * 10, deadline_ms=66) == [3] * 21


def test_it_climbs_again_one_rung_at_a_time() -> None:
    rungs = drive(Controller(COSTS_MS), [1.0] * 5 + [4.0] * 10 + [1.0] * 60, deadline_ms=70)
    assert rungs[14] == 0
    assert rungs[-1] == 3
    climbs = [after - before for before, after in pairwise(rungs) if after > before]
    assert climbs == [1, 1, 1]


def test_it_does_not_flicker_at_the_edge() -> None:
    """60 ms predicted against a deadline of 61 ms, with 3 percent of jitter: one step down and no way back."""
    rng = np.random.default_rng(0)
    rungs = drive(Controller(COSTS_MS), list(1 + 0.03 * rng.standard_normal(400)), deadline_ms=61)
    assert sum(before != after for before, after in pairwise(rungs)) <= 1


@given(st.lists(st.floats(0.5, 8), min_size=30, max_size=30), st.floats(5, 200))
def test_a_steady_device_always_settles_on_what_fits(slowdowns: list[float], deadline_ms: float) -> None:
    controller = Controller(COSTS_MS)
    drive(controller, slowdowns, deadline_ms)
    settled = drive(controller, [2.0] * 100, deadline_ms)[-1]
    assert settled == 0 or COSTS_MS[settled] * 2 <= deadline_ms
    assert settled == 3 or COSTS_MS[settled + 1] * 2 > deadline_ms * 0.89


def test_a_ladder_times_its_rungs_and_restores_with_one_of_them() -> None:
    clock = HandClock()
    with ladder_of(clock, 1, 2, 6) as ladder:
        assert [(cost.name, round(cost.ms, 6)) for cost in ladder.costs] == [
            ("timed, 1 step", 10),
            ("timed, 2 steps", 20),
            ("timed, 6 steps", 60),
        ]
        out = np.empty_like(FRAME)
        restored = ladder.restore(FRAME, out, deadline_ms=33)
        assert (restored.rung, restored.late) == (2, False)
        assert restored.ms == pytest.approx(20)
        assert restored.rgb is out
        assert (out == 102).all()


def test_without_a_deadline_every_step_is_taken() -> None:
    clock = HandClock()
    with ladder_of(clock, 1, 2) as ladder:
        clock.slowdown = 100
        results = [ladder.restore(FRAME, np.empty_like(FRAME)) for _ in range(10)]
    assert {result.rung for result in results} == {2}
    assert not any(result.late for result in results)


def test_a_limit_holds() -> None:
    with ladder_of(HandClock(), 2, 3, 6) as ladder:
        rungs = [ladder.restore(FRAME, np.empty_like(FRAME), highest_rung=most).rung for most in (1, 2, 5, None)]
    assert rungs == [1, 2, 3, 3]


def test_late_frames_are_told() -> None:
    clock = HandClock()
    with ladder_of(clock, 1) as ladder:
        assert ladder.restore(FRAME, np.empty_like(FRAME), deadline_ms=5).late


def test_closing_closes_every_rung() -> None:
    runners = [TimedRunner(count, HandClock()) for count in (1, 2)]
    clock = HandClock()

    class Owned(Deblurrer):
        def close(self) -> None:
            self.runner.close()

    with Ladder([Owned(runner) for runner in runners], SIZE_HW, clock=clock):
        assert not any(runner.closed for runner in runners)
    assert all(runner.closed for runner in runners)


@pytest.mark.parametrize("costs_ms", [[], [2.0, 1.0]])
def test_costs_must_rise(costs_ms: list[float]) -> None:
    with pytest.raises(ValueError, match="rungs of rising cost"):
        Controller(costs_ms)


def test_a_bundle_is_opened_at_every_number_of_steps_it_has(tiny_bundle: Path) -> None:
    with open_ladder(tiny_bundle, (64, 96)) as ladder:
        assert ladder.rung_names == ("tiny, 1 step", "tiny, 2 steps")
        assert ladder.runner.spec.steps == 2
        assert ladder.costs[0].ms <= ladder.costs[1].ms


def test_fallbacks_are_rungs_below_the_model(tiny_bundle: Path, tiny_onnx: Path, frame: Frame) -> None:
    one_step = RunnerOptions(steps=1)
    with open_ladder(tiny_bundle, (64, 96), one_step, fallbacks=[tiny_onnx]) as ladder:
        assert ladder.rung_names == ("tiny, 2 steps", "tiny, 1 step")
        lowest, highest = (np.empty_like(frame) for _ in range(2))
        assert ladder.restore(frame, lowest, deadline_ms=0).rung == 1
        assert ladder.restore(frame, highest).rung == 2
    with Deblurrer(tiny_onnx) as alone, Deblurrer(tiny_bundle, one_step) as model:
        assert (lowest == alone(frame)).all()
        assert (highest == model(frame)).all()


def test_a_fallback_of_another_scale_is_refused(tiny_bundle: Path, tiny_onnx: Path) -> None:
    doubled = RunnerOptions(overrides=SpecOverrides(scale=2))
    with pytest.raises(BadInput, match=r"the fallback .+ scales by 1, the model by 2; they have to"):
        open_ladder(tiny_onnx, (64, 96), doubled, fallbacks=[tiny_bundle])


def test_where_the_rungs_run_is_told_once(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unblur")
    open_ladder(tiny_bundle, (64, 96)).close()
    (line,) = caplog.messages
    assert line.startswith("tiny fp32 runs on cpu ")
    assert line.endswith(": fp32 on cpu 10 ms, int8 on cpu 20 ms")


def test_one_number_of_steps_or_a_single_file_is_one_rung(tiny_bundle: Path, tiny_onnx: Path) -> None:
    with open_ladder(tiny_bundle, (64, 96), RunnerOptions(steps=1)) as ladder:
        assert ladder.rung_names == ("tiny",)
    with open_ladder(tiny_onnx, (64, 96)) as ladder:
        assert ladder.rung_names == ("tiny",)
