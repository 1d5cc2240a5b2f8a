from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unblur.calibration.quality_evaluator import Cost
from unblur.calibration.search import Evaluate, most_int8
from unblur.runtime.errors import CalibrationError

Layers = dict[str, tuple[int, float]]
"""name -> multiply-accumulates, and what the layer loses in dB; losses add up."""


def _additive(layers: Layers, asked: list[frozenset[str]] | None = None, worst: float = 1.0) -> Evaluate:
    """worst: the second of two trials loses as many times as much as the first."""

    def evaluate(chosen: frozenset[str]) -> Cost:
        if asked is not None:
            asked.append(chosen)
        loss = sum(layers[name][1] for name in chosen)
        return Cost((-loss, -loss * worst), parity_db=50.0)

    return evaluate


def _macs(layers: Layers) -> dict[str, int]:
    return {name: macs for name, (macs, _) in layers.items()}


def test_everything_is_tried_first_and_is_enough_mostly() -> None:
    layers = {"a": (10, 0.02), "b": (20, 0.03)}
    asked: list[frozenset[str]] = []
    assert most_int8(_macs(layers), _additive(layers, asked), 0.1) == {"a", "b"}
    assert len(asked) == 1


def test_the_costly_layer_is_left_out() -> None:
    layers = {"a": (10, 0.02), "costly": (50, 0.5), "b": (20, 0.03)}
    assert most_int8(_macs(layers), _additive(layers), 0.1) == {"a", "b"}


def test_a_large_layer_that_still_fits_is_won_back() -> None:
    """By cost per multiply-accumulate the small ones go first and leave no room for `c`, but for `d`."""
    layers = {"a": (10, 0.01), "b": (10, 0.01), "c": (50, 0.07), "d": (20, 0.03)}
    assert most_int8(_macs(layers), _additive(layers), 0.06) == {"a", "b", "d"}


def test_the_worst_picture_may_lose_twice_as_much_and_no_more() -> None:
    layers = {"a": (10, 0.02), "b": (20, 0.03)}
    assert most_int8(_macs(layers), _additive(layers, worst=2.5), 0.09) == {"a", "b"}
    assert most_int8(_macs(layers), _additive(layers, worst=9), 0.16) == {"b"}


def test_an_unreachable_budget_tells_the_best() -> None:
    layers = {"a": (10, 0.2), "b": (20, 0.3)}
    message = r"keeps to a loss of 0.1 dB; the best reachable loses 0.2 dB, with 'a' alone in INT8"
    with pytest.raises(CalibrationError, match=message):
        most_int8(_macs(layers), _additive(layers), 0.1)


def test_a_hundred_layers_take_few_evaluations() -> None:
    layers = {f"layer{index}": (100 + index, 0.001 * (index % 7 + 1)) for index in range(100)}
    asked: list[frozenset[str]] = []
    chosen = most_int8(_macs(layers), _additive(layers, asked), 0.1)
    assert sum(layers[name][1] for name in chosen) <= 0.1
    assert len(asked) <= 100 + 1 + 7 + 24


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0.001, 0.1)), min_size=1, max_size=7),
    st.floats(0.05, 0.3),
)
def test_the_answer_keeps_to_the_budget_and_is_near_the_best(
    costs: list[tuple[int, float]], budget_db: float
) -> None:
    """The better of the greedy head and the largest item is at least half of the optimum of any knapsack."""
    layers = {str(index): cost for index, cost in enumerate(costs)}
    affordable = [name for name, (_, loss) in layers.items() if loss <= budget_db]
    if not affordable:
        return
    chosen = most_int8(_macs(layers), _additive(layers), budget_db)
    assert sum(layers[name][1] for name in chosen) <= budget_db
    best = max(
        sum(layers[name][0] for name in some)
        for size in range(len(layers) + 1)
        for some in combinations(layers, size)
        if sum(layers[name][1] for name in some) <= budget_db
    )
    assert 2 * sum(layers[name][0] for name in chosen) >= best
