"""What every deblurring network offers to the training loop and to the export."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unblur.runtime.frames import Padding
from unblur.runtime.spec import ModelSpec
from unblur.train.networks.blocks import fold_parametrizations


class DeblurringNetwork(nn.Module, ABC):
    """A network from a blurred image to a restored one.

    Images are float32 (N, 3, H, W) in [0, 1], RGB; H and W multiples of `spec.multiple_of`. Outputs are not
    clipped: the runtime does that once, when it rounds to 8 bits.

    recursive: the network takes an option `steps`, and the same weights run any number of them.
    """

    recursive: ClassVar[bool] = False
    steps: int = 1
    training_data: tuple[str, ...] = ()
    licence: str = "Apache-2.0"

    @property
    def spec(self) -> ModelSpec:
        """The spec of this network as it stands, with the data its weights have seen."""
        return replace(self.describe(), training_data=self.training_data, licence=self.licence)

    @abstractmethod
    def describe(self) -> ModelSpec:
        """The spec as far as the architecture decides it."""

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        """What writes the image or its residual: training computes these layers in float32, whatever the others."""
        return ()

    @abstractmethod
    def restorations(self, blurred: Tensor) -> list[Tensor]:
        """Every supervised output, coarse to fine or first to last step; the last one is the result."""

    def targets(self, sharp: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        """What training compares each of `restorations` with: the sharp image at its size, by averaging areas."""
        return [sharp if sharp.shape == output.shape else _area_means(sharp, output) for output in outputs]

    def forward(self, blurred: Tensor) -> Tensor:
        """The restored image, of the shape of `blurred`."""
        return self.restorations(blurred)[-1]

    def step_of(self, module: str, use: int) -> int | None:
        """The recursion step or scale, from 1, in which `module` computes for the `use`-th time, from 1.

        None outside of them. The export names layers by it.
        """
        return None

    def at_steps(self, steps: int) -> "DeblurringNetwork":
        """A copy with the same weights that runs another number of recursion steps.

        Raises ValueError for fewer than one, or if the network has no steps to choose.
        """
        if steps < 1 or not (self.recursive or steps == 1):
            raise ValueError(f"{self.spec.preset} cannot run {steps} steps")
        clone = copy.deepcopy(self)
        clone.steps = steps
        return clone

    def folded(self) -> "DeblurringNetwork":
        """A copy in eval mode that computes the same with plain weights: what is exported."""
        clone = copy.deepcopy(self).eval()
        fold_parametrizations(clone)
        return clone


def _area_means(images: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(images, like.shape[-2:], mode="area")


def count_parameters(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def gflop_720p(network: DeblurringNetwork) -> float:
    """GFLOP of one 1280 x 720 frame; see `gflop`."""
    return gflop(network, (720, 1280))


def gflop(network: DeblurringNetwork, size_hw: tuple[int, int]) -> float:
    """GFLOP (2 x multiply-accumulates of convolutions and matrix products) of one frame of that size, padded.

    Counted on the meta device by torch's own counter: nothing is computed, so any network takes milliseconds; it is
    on that device afterwards.
    """
    padded_hw = Padding.to_multiple(size_hw, network.spec.multiple_of).padded_hw
    on_meta = network.to("meta")
    blurred = next(on_meta.parameters()).new_empty((1, 3, *padded_hw))
    with FlopCounterMode(display=False) as counter:
        on_meta(blurred)
    return float(counter.get_total_flops()) / 1e9
