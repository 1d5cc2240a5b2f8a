"""Forms of one network with some of its candidates in INT8, made and judged on demand."""

from collections.abc import Collection, Iterable, Mapping

from onnx import ModelProto

from unblur.calibration.judge import Cost, Judge, Trial
from unblur.calibration.placement import Placement
from unblur.calibration.quantize import quantize
from unblur.calibration.sensitivity import Sensitivity, layer_costs, sqnr_db
from unblur.runtime.calibration_table import TensorRange
from unblur.runtime.console import Stage, silent


class Bench:
    """candidates: the layers to choose from, all others stay float. ranges: of what the candidates read. macs: of
    all layers; as an attribute, of the candidates.
    """

    def __init__(
        self,
        model: ModelProto,
        candidates: Placement,
        ranges: Mapping[str, TensorRange],
        macs: Mapping[str, int],
        trials: Iterable[Trial],
        stage: Stage = silent,
    ) -> None:
        self._model, self._candidates, self._ranges = model, candidates, ranges
        self._judge = Judge(model, trials)
        self._all_macs = sum(macs.values())
        self.macs = {layer: macs[layer] for layer in candidates.layers}
        self._costs: dict[frozenset[str], Cost] = {}
        self._stage = stage
        self._advance = stage("judging", len(self.macs))

    def evaluate(self, layers: frozenset[str]) -> Cost:
        """What it costs to have these candidates in INT8; remembered."""
        if layers not in self._costs:
            int8 = quantize(self._model, self._candidates.only(layers), self._ranges)
            self._costs[layers] = self._judge.cost(int8)
            self._advance()
        return self._costs[layers]

    def share(self, layers: Collection[str]) -> float:
        """The part of all multiply-accumulates that these candidates do, 0 to 1."""
        return sum(self.macs[layer] for layer in layers) / self._all_macs

    def sensitivity(self, chosen: frozenset[str]) -> Sensitivity:
        """What each candidate costs, alone and among all. chosen: those that are INT8 in the end."""
        shares = {layer: self.share([layer]) for layer in self.macs}
        layers = layer_costs(shares, self.evaluate, chosen, self._stage("comparing layers", len(shares)))
        ranges = {name: self._ranges[name] for name in self._candidates.activations}
        return Sensitivity(layers, sqnr_db(self._model, ranges, self._judge.batches()))
