import json
from dataclasses import asdict
from typing import get_args

import numpy as np
import pytest

from unblur.calibration.observation import Histogram, Observed, Range
from unblur.calibration.observe import observe
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.ranges import choose_range, ranges_for_steps, step_drift, step_groups
from unblur.runtime.model.calibration_table import Method, StepPolicy

BODY = ("features1", "features2")  # what the shared weight "body.w" reads in step 1 and 2
METHODS = get_args(Method)


def _seen(scale: float, count: int = 20_000) -> Observed:
    values = np.random.default_rng(5).laplace(0, scale, count).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    return Observed(Range.of(values), histogram)


def test_what_one_weight_reads_is_a_group_in_the_order_of_steps(fp32: OnnxModel) -> None:
    groups = step_groups(fp32, ["scaled2", *reversed(BODY), "sum1", "scaled1"])
    assert {group.weight: group.tensors for group in groups} == {
        "body.w": BODY,
        "tail.w": ("scaled1", "scaled2"),
        "sum1": ("sum1",),  # read by no weight
    }


def test_without_recursion_every_group_is_one_tensor_and_policies_agree(fp32: OnnxModel) -> None:
    observed = {"features1": _seen(1.0), "scaled1": _seen(3.0)}
    per_step = ranges_for_steps(fp32, observed, "mse")
    assert ranges_for_steps(fp32, observed, "mse", "shared") == per_step
    assert ranges_for_steps(fp32, observed, "mse", "clamped") == per_step
    assert step_drift(fp32, per_step) == ()


@pytest.mark.parametrize("method", METHODS)
def test_clamped_is_the_largest_of_the_steps(fp32: OnnxModel, method: Method) -> None:
    observed = {"features1": _seen(1.0), "features2": _seen(4.0)}
    per_step = ranges_for_steps(fp32, observed, method)
    clamped = ranges_for_steps(fp32, observed, method, "clamped")
    assert per_step["features1"].magnitude < per_step["features2"].magnitude
    assert set(clamped.values()) == {per_step["features2"]}


@pytest.mark.parametrize("method", METHODS)
def test_shared_is_the_method_on_the_values_of_all_steps(fp32: OnnxModel, method: Method) -> None:
    observed = {"features1": _seen(1.0, 40_000), "features2": _seen(4.0, 10_000)}
    parts = [np.random.default_rng(5).laplace(0, scale, count) for scale, count in ((1.0, 40_000), (4.0, 10_000))]
    values = np.concatenate(parts).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    expected = choose_range(Observed(Range.of(values), histogram), method)
    shared = ranges_for_steps(fp32, observed, method, "shared")
    assert shared == dict.fromkeys(BODY, expected)


@pytest.mark.parametrize("policy", ["shared", "clamped"])
def test_a_step_that_is_always_zero_does_not_widen_its_group(fp32: OnnxModel, policy: StepPolicy) -> None:
    zero, small = Observed(Range(0, 0)), Observed(Range(0, 0.25))
    one_zero = ranges_for_steps(fp32, dict(zip(BODY, (zero, small), strict=True)), "minmax", policy)
    assert set(one_zero.values()) == {Range(-0.25, 0.25)}
    all_zero = ranges_for_steps(fp32, dict.fromkeys(BODY, zero), "minmax", policy)
    assert set(all_zero.values()) == {Range(-1.0, 1.0)}


def test_drift_tells_the_ratio_to_the_first_step(fp32: OnnxModel) -> None:
    ranges = {"features1": Range(-0.5, 0.2), "features2": Range(0, 2.0), "scaled1": Range(-1, 1)}
    (drift,) = step_drift(fp32, ranges)
    assert json.loads(json.dumps(asdict(drift))) == {
        "weight": "body.w",
        "tensors": list(BODY),
        "magnitudes": [0.5, 2.0],
        "ratios": [1.0, 4.0],
    }


def test_drift_of_a_network_that_ran(fp32: OnnxModel) -> None:
    batch = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    observed = observe(fp32, BODY, [batch], kind="histograms")
    (drift,) = step_drift(fp32, ranges_for_steps(fp32, observed, "minmax"))
    assert drift.magnitudes == tuple(observed[name].range.magnitude for name in BODY)
    assert drift.ratios[0] == 1
    assert drift.ratios[1] != 1


def test_an_unknown_policy_is_named(fp32: OnnxModel) -> None:
    with pytest.raises(ValueError, match="a step policy is one of per-step, shared, clamped, got 'none'"):
        ranges_for_steps(fp32, {}, "minmax", "none")
