"""The most INT8 that stays within a budget of dB.

All candidates first: most networks need no more than that. Where it fails the layers are ranked by what each costs
alone for the multiply-accumulates that it brings, the longest affordable head of the ranking is found by bisection,
and layers left out are tried again. Costs of layers add up nearly, so that is the greedy answer to a knapsack, at
least half of the best; and nothing is taken on trust, every answer was evaluated as a whole.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from unblur.calibration.onnx_model import OnnxModel, open_session
from unblur.calibration.placement import Placement
from unblur.calibration.quality_evaluator import Cost, QualityEvaluator
from unblur.calibration.quantize import quantize
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch
from unblur.runtime.model.calibration_table import TensorRange

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


_SIGNAL, _NOISE = ".signal", ".noise"


@dataclass(frozen=True)
class LayerCost:
    """A layer is a weight: all the steps of a recursion that use it.

    macs_share: of all convolutions, 0 to 1. alone_db: lost if it alone is INT8, mean over the trials.
    spared_db: won back if it alone is float and all other candidates are INT8. int8: whether it is in the result.
    """

    layer: str
    macs_share: float
    alone_db: float
    spared_db: float
    int8: bool


@dataclass(frozen=True)
class Sensitivity:
    """sqnr_db: tensor read in INT8 -> its signal to quantisation noise, in dB."""

    layers: tuple[LayerCost, ...]
    sqnr_db: Mapping[str, float]


def layer_costs(
    shares: Mapping[str, float],
    evaluate: Evaluate,
    chosen: frozenset[str],
    progress: Callable[[], object] | None = None,
) -> tuple[LayerCost, ...]:
    """Quantise each layer alone, and all but each.

    shares: candidate -> its share of all multiply-accumulates. chosen: those that are INT8 in the end. progress:
        called once a layer.
    """
    everything = frozenset(shares)
    costs = []
    for layer, macs_share in shares.items():
        alone = evaluate(frozenset({layer})).delta_db
        rest = everything - {layer}
        spared = (evaluate(rest).delta_db if rest else 0.0) - evaluate(everything).delta_db
        costs.append(LayerCost(layer, macs_share, -alone, spared, layer in chosen))
        if progress is not None:
            progress()
    return tuple(costs)


def sqnr_db(model: OnnxModel, ranges: Mapping[str, TensorRange], batches: Iterable[Batch]) -> dict[str, float]:
    """Signal to quantisation noise of each activation, in dB, over all the batches; inf if INT8 holds it exactly.

    Both powers are summed inside the fp32 graph, so that two numbers a tensor leave it. model: fp32.
    """
    session = open_session(_with_powers(model, ranges))
    powers = sum(
        np.array(session.run(None, {model.input: model.network_values(batch)}), np.float64) for batch in batches
    )
    signal, noise = np.reshape(powers, (-1, 2)).T
    ratio = np.divide(signal, noise, out=np.full_like(signal, np.inf), where=noise > 0)
    return dict(zip(ranges, (10 * np.log10(ratio)).tolist(), strict=True))


def _with_powers(model: OnnxModel, ranges: Mapping[str, TensorRange]) -> ModelProto:
    """A copy of the graph whose outputs are the energy of each tensor, and of what INT8 makes wrong of it."""
    copy = model.copied()
    graph = copy.graph
    del graph.output[:]
    zero = ".int8_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    for name, seen in ranges.items():
        scale, integer, rounded, error = (f"{name}.{part}" for part in ("int8_scale", "int8", "rounded", "error"))
        graph.initializer.append(numpy_helper.from_array(np.array(seen.scale, np.float32), scale))
        graph.node.append(helper.make_node("QuantizeLinear", [name, scale, zero], [integer]))
        graph.node.append(helper.make_node("DequantizeLinear", [integer, scale, zero], [rounded]))
        graph.node.append(helper.make_node("Sub", [name, rounded], [error]))
        for source, suffix in ((name, _SIGNAL), (error, _NOISE)):
            graph.node.append(helper.make_node("ReduceSumSquare", [source], [name + suffix], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, []))
    return copy


@dataclass(frozen=True)
class Explanation:
    """What a layer costs if it alone is INT8. loss_db: mean over the trials. image: the one where it costs most, by
    worst_db. macs_share: of all convolutions, 0 to 1. int8: whether it is in the result.
    """

    layer: str
    loss_db: float
    image: str
    worst_db: float
    macs_share: float
    int8: bool


class CandidateEvaluator:
    """quality: of the trials. candidates: the layers to choose from, all others stay float. ranges: of what the
    candidates read. macs: of all layers; as an attribute, of the candidates.
    """

    def __init__(
        self,
        model: OnnxModel,
        candidates: Placement,
        ranges: Mapping[str, TensorRange],
        macs: Mapping[str, int],
        quality: QualityEvaluator,
        stage: Stage = silent,
    ) -> None:
        self._model, self._candidates, self._ranges, self._quality = model, candidates, ranges, quality
        self._all_macs = sum(macs.values())
        self.macs = {layer: macs[layer] for layer in candidates.layers}
        self._costs: dict[frozenset[str], Cost] = {}
        self._stage = stage
        self._advance = stage("judging", len(self.macs))

    @property
    def everything(self) -> frozenset[str]:
        """All candidates."""
        return frozenset(self.macs)

    def evaluate(self, layers: frozenset[str]) -> Cost:
        """What it costs to have these candidates in INT8; remembered."""
        if layers not in self._costs:
            int8 = quantize(self._model, self._candidates.only(layers), self._ranges)
            self._costs[layers] = self._quality.cost(int8)
            self._advance()
        return self._costs[layers]

    def share(self, layers: Collection[str]) -> float:
        """The part of all multiply-accumulates that these candidates do, 0 to 1."""
        return sum(self.macs[layer] for layer in layers) / self._all_macs

    def explain(self, chosen: frozenset[str]) -> tuple[Explanation, ...]:
        """What each candidate costs alone, the costliest first, and on which image. chosen: INT8 in the end."""
        explanations = []
        for layer in self.macs:
            cost = self.evaluate(frozenset({layer}))
            worst_db = min(cost.deltas_db)
            image = self._quality.names[cost.deltas_db.index(worst_db)]
            share = self.share([layer])
            found = Explanation(layer, -cost.delta_db, image, -worst_db, share, layer in chosen)
            explanations.append(found)
        return tuple(sorted(explanations, key=lambda each: -each.loss_db))

    def sensitivity(self, chosen: frozenset[str]) -> Sensitivity:
        """What each candidate costs, alone and among all. chosen: those that are INT8 in the end."""
        shares = {layer: self.share([layer]) for layer in self.macs}
        layers = layer_costs(shares, self.evaluate, chosen, self._stage("comparing layers", len(shares)))
        ranges = {name: self._ranges[name] for name in self._candidates.activations}
        return Sensitivity(layers, sqnr_db(self._model, ranges, self._quality.batches()))
