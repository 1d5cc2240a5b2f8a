"""Quantisation-aware training: a network is fine-tuned as its INT8 engine will compute it.

Values are rounded exactly where `unblur calibrate` puts Q/DQ: the tensors that the INT8 layers of a calibration
table read, each step of a recursion with its own range, for everything that reads them; and the weights of those
layers, one scale an output channel, the largest magnitude / 127 as it is at that moment. The ranges of activations
are those of the table and stay. Gradients pass a rounding as if it were not there, and are zero where a value is
clipped (the straight-through estimator, Bengio et al. 2013, as used by Jacob et al. 2018).

Nothing is added to the network: its weights keep their names, and it is exported as any other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from unblur.runtime.errors import CalibrationError
from unblur.runtime.model.calibration_table import CalibrationTable, read_table
from unblur.runtime.spec import ModelSpec
from unblur.train.checkpoint import load_checkpoint, resolve_checkpoint
from unblur.train.networks import DeblurringNetwork
from unblur.train.recipe import Recipe

_LEVELS = 127
_OUTPUT_AXIS: Mapping[Callable[..., Tensor], int] = {F.conv2d: 0, F.conv_transpose2d: 1}  # of their weights
_RATE_RATIO = 0.01


def fine_tuning(recipe: Recipe) -> Recipe:
    """The recipe of a fine-tuning: a hundredth of the learning rate, no adversary.

    The guide of NVIDIA's pytorch-quantization advises that rate, a tenth of the length of the training, and ranges
    that stay.
    """
    return replace(
        recipe,
        learning_rate=_RATE_RATIO * recipe.learning_rate,
        final_learning_rate=_RATE_RATIO * recipe.final_learning_rate,
        adversarial=None,
    )


def open_fake_quantized(preset_or_checkpoint: str, table: Path) -> "FakeQuantized":
    """Trained weights, by the name of a shipped preset or the path of a checkpoint, to be tuned with a table.

    Raises BadInput or SpecMismatch for weights that cannot be used, CalibrationError for such a table.
    """
    network = load_checkpoint(resolve_checkpoint(preset_or_checkpoint))
    return FakeQuantized(network, read_table(table), where=str(table))


class FakeQuantized(DeblurringNetwork):
    """A network that computes as its INT8 form does, in float and with gradients.

    `state_dict` is that of the network inside, so that a checkpoint of either is one of both.
    Raises CalibrationError if the table was made for another network, or names a layer that this one does not run
    as often as the graph that was calibrated. where: the file of the table, for messages.
    """

    def __init__(self, network: DeblurringNetwork, table: CalibrationTable, *, where: str) -> None:
        super().__init__()
        table.check_spec(network.spec, where=where)
        self.network = network
        self.steps, self.training_data, self.licence = network.steps, network.training_data, network.licence
        self._points = _find_points(network, table, where)

    def describe(self) -> ModelSpec:
        return self.network.describe()

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        with _Rounding(self._points):
            return self.network.restorations(blurred)

    def targets(self, sharp: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        return self.network.targets(sharp, outputs)

    def at_steps(self, steps: int) -> DeblurringNetwork:
        """ValueError for any but its own number: the table has ranges for those alone."""
        if steps != self.steps:
            raise ValueError(f"the calibration table is for {self.steps} steps, not for {steps}")
        return super().at_steps(steps)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.network.load_state_dict(*args, **kwargs)


@dataclass
class _Points:
    """Where to round. A place is the number of feature maps that were computed before, the same in every run.

    results: place of an operation -> amax of what it gives. weights: places of INT8 convolutions. images: place of
    a convolution that alone reads the image in INT8 -> amax of the image.
    """

    results: dict[int, float] = field(default_factory=dict)
    weights: set[int] = field(default_factory=set)
    images: dict[int, float] = field(default_factory=dict)


class _Rounding(TorchFunctionMode):
    """Rounds inside the block, which is one run of a network."""

    def __init__(self, points: _Points) -> None:
        super().__init__()
        self._points, self._place = points, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place, points = self._place, self._points
        if func in _OUTPUT_AXIS and place in points.weights:
            features = args[0] if place not in points.images else round_activation(args[0], points.images[place])
            args = (features, round_weight(args[1], _OUTPUT_AXIS[func]), *args[2:])
        return self._rounded(func(*args, **(kwargs or {})))

    def _rounded(self, result: Any) -> Any:
        if isinstance(result, (tuple, list)):  # of a split
            return type(result)([self._rounded(each) for each in result])
        if not _is_feature_map(result):
            return result
        place, self._place = self._place, self._place + 1
        amax = self._points.results.get(place)
        return result if amax is None else round_activation(result, amax)


class _Recording(TorchFunctionMode):
    """Notes inside the block which weights are applied where, and where what they are applied to comes from.

    weights: id of a weight -> its name. reads: name -> for each use the place of the convolution and that of the
    operation which gave its input, None for the input of the network.
    """

    def __init__(self, weights: Mapping[int, str]) -> None:
        super().__init__()
        self._weights = weights
        self._source: dict[int, int] = {}
        self._maps: list[Tensor] = []  # kept, so that no id is given twice
        self.reads: dict[str, list[tuple[int, int | None]]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = len(self._maps)
        if func in _OUTPUT_AXIS and (name := self._weights.get(id(args[1]))):
            self.reads.setdefault(name, []).append((place, self._source.get(id(args[0]))))
        result = func(*args, **(kwargs or {}))
        self._note(result)
        return result

    def _note(self, result: Any) -> None:
        if isinstance(result, (tuple, list)):
            for each in result:
                self._note(each)
        elif _is_feature_map(result):
            self._source[id(result)] = len(self._maps)
            self._maps.append(result)


def round_activation(features: Tensor, amax: float) -> Tensor:
    """To the nearest of the values that INT8 with one scale holds: amax / 127 * (-128 .. 127)."""
    rounded = torch.fake_quantize_per_tensor_affine(features.float(), amax / _LEVELS, 0, -_LEVELS - 1, _LEVELS)
    return rounded.to(features.dtype)


def round_weight(weight: Tensor, axis: int) -> Tensor:
    """To the nearest of the values that INT8 holds, with a scale for each index of `axis`."""
    magnitudes = weight.detach().float().abs().amax([each for each in range(weight.dim()) if each != axis])
    scales = (magnitudes / _LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, axis, -_LEVELS, _LEVELS)
    return rounded.to(weight.dtype)


def _find_points(network: DeblurringNetwork, table: CalibrationTable, where: str) -> _Points:
    recording = _Recording({id(weight): name for name, weight in network.named_parameters()})
    side = 2 * network.spec.multiple_of
    blurred = next(network.parameters()).new_zeros((1, 3, side, side))
    was_training = network.training
    with torch.no_grad(), recording:
        network.eval().restorations(blurred)
    network.train(was_training)
    points = _Points()
    for name, tensors in table.reads.items():
        uses = recording.reads.get(name, [])
        if len(uses) != len(tensors):
            raise CalibrationError(
                f"{where} does not fit the network '{table.preset}': it has ranges for {len(tensors)} uses of "
                f"'{name}', the network makes {len(uses)}; calibrate this network"
            )
        for tensor, (place, source) in zip(tensors, uses, strict=True):
            points.weights.add(place)
            if source is None or tensor in table.image_tensors:
                points.images[place] = table.ranges[tensor].amax
            else:
                points.results[source] = table.ranges[tensor].amax
    if not points.weights:
        raise CalibrationError(f"{where} does not say which layers are INT8; calibrate again")
    for tensor in table.joins:
        points.results[_place_of(tensor, recording, where)] = table.ranges[tensor].amax
    return points


def _place_of(tensor: str, recording: _Recording, where: str) -> int:
    """The place of the convolution that writes `tensor`; exports name it "embed/Conv" or "step2/head/Conv"."""
    for name, uses in recording.reads.items():
        module = name.rpartition(".")[0]
        for step, (place, _) in enumerate(uses, start=1):
            if tensor.startswith((f"{module}/", f"step{step}/{module}/")):
                return place
    raise CalibrationError(f"{where} rounds '{tensor}', which the network does not compute; calibrate it")


def _is_feature_map(value: object) -> bool:
    """Four dimensions and float: not what batch norm counts, nor the vectors of a spectral norm."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()
