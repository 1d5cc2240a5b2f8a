"""The most INT8 that stays within a budget of dB.

All candidates first: most networks need no more than that. Where it fails the layers are ranked by what each costs
alone for the multiply-accumulates that it brings, the longest affordable head of the ranking is found by bisection,
and layers left out are tried again. Costs of layers add up nearly, so that is the greedy answer to a knapsack, at
least half of the best; and nothing is taken on trust, every answer was evaluated as a whole.
"""

from collections.abc import Callable, Mapping, Sequence

from unblur.calibration.judge import Cost
from unblur.runtime.errors import CalibrationError

Evaluate = Callable[[frozenset[str]], Cost]
"""What it costs to have these layers, and no others, in INT8."""

_TRIES = 24


def most_int8(macs: Mapping[str, int], evaluate: Evaluate, budget_db: float) -> frozenset[str]:
    """The largest set of layers, by multiply-accumulates, whose loss is at most `budget_db` in the mean and twice
    that in the worst picture.

    macs: of the candidates. evaluate: deterministic and remembered, so that asking again costs nothing; called once
        if all the candidates keep to the budget, else at most about len(macs) + log2(len(macs)) + 24 times.
    Raises CalibrationError that tells the best reachable if no layer does.
    """
    everything = frozenset(macs)
    if evaluate(everything).loss_db <= budget_db:
        return everything
    alone = {layer: evaluate(frozenset({layer})).loss_db for layer in macs}
    affordable = [layer for layer in macs if alone[layer] <= budget_db]
    if not affordable:
        best = min(alone, key=lambda layer: alone[layer])
        raise CalibrationError(
            f"no choice of INT8 layers keeps to a loss of {budget_db:g} dB; the best reachable loses "
            f"{alone[best]:.2g} dB, with '{best}' alone in INT8: raise the budget, or use fp16"
        )
    head = _longest_head(sorted(affordable, key=lambda layer: alone[layer] / macs[layer]), evaluate, budget_db)
    by_size = sorted(affordable, key=lambda layer: -macs[layer])
    if sum(macs[layer] for layer in head) < macs[by_size[0]]:
        head = frozenset(by_size[:1])
    return _win_back(head, by_size, evaluate, budget_db)


def _longest_head(ranking: Sequence[str], evaluate: Evaluate, budget_db: float) -> frozenset[str]:
    """Bisection, as if each further layer could only cost more; one layer is known to be affordable."""
    fits, fails = 1, len(ranking) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if evaluate(frozenset(ranking[:middle])).loss_db <= budget_db:
            fits = middle
        else:
            fails = middle
    return frozenset(ranking[:fits])


def _win_back(
    layers: frozenset[str], by_size: Sequence[str], evaluate: Evaluate, budget_db: float
) -> frozenset[str]:
    """Add what still fits, the largest first."""
    for layer in [layer for layer in by_size if layer not in layers][:_TRIES]:
        if evaluate(layers | {layer}).loss_db <= budget_db:
            layers |= {layer}
    return layers
