"""SRN-DeblurNet, the scale-recurrent network, and the baselines it is compared with.

"Scale-recurrent Network for Deep Image Deblurring" (Tao et al., CVPR 2018). One encoder-decoder
restores a pyramid of the blurred image from coarse to fine with the same weights:

    L_i, h_i = Net([B_i, up(L_(i+1))], up(h_(i+1)))        i = 2, 1, 0: 1/4, 1/2 and full size

    Net: conv, blocks | conv/2, blocks | conv/2, blocks | ConvLSTM | blocks, deconv | blocks, deconv | blocks, conv

with `width`, 2 and 4 x `width` channels, ReLU after every convolution but the last of a residual block and the
last of all, and encoder features added to the decoder's. h is hidden state and cell of the ConvLSTM. What the paper
leaves open is as in the authors' code: transposed convolutions are 4 x 4, and the coarsest scale, which has no
estimate yet, is given the blurred image twice. Sizes are halved by averaging 2 x 2 and doubled bilinearly.

The table of the paper as options (parameters at `kernel=3`, which is what its counts fit; 5 is what it says):

    SS        2.73M   scales=1, state="none": the image alone goes in
    SC        8.19M   shared=False, state="none": each scale its own weights
    w/oR      2.73M   state="none": one convolution in place of the ConvLSTM
    RNN       3.03M   state="rnn": h = tanh(conv(input) + conv(h)), out = conv(h)
    SR-Flat   2.66M   layout="flat", block="plain", state="none": 43 convolutions, no strides, no skips
    SR-RB     2.66M   layout="flat", state="none": the same in residual blocks
    SR-ED     3.76M   block="plain": two convolutions in place of each residual block
    SR-EDRB1, SR-EDRB2, SR-EDRB3   2.21M, 2.99M, 3.76M   blocks=1, 2, 3; the last is the network itself
"""

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import ConvLSTM, ConvReLU, ResidualBlock, State, doubled, initialise_xavier

Memory = Literal["none", "rnn", "lstm"]
Layout = Literal["encoder-decoder", "flat"]
Block = Literal["residual", "plain"]

_DECONVOLUTION_KERNEL = 4


class SRN(DeblurringNetwork):
    """The scale-recurrent network; `restorations` gives one image per scale, the smallest first.

    width: channels at full size. blocks: per level. kernel: side of every convolution, odd. scales: images of the
    pyramid. shared: one set of weights for all scales. state, layout, block: see the table above.
    Raises ValueError for an option out of range, or a state that nothing carries on.
    """

    def __init__(
        self,
        *,
        preset: str = "srn",
        width: int = 32,
        blocks: int = 3,
        kernel: int = 5,
        scales: int = 3,
        shared: bool = True,
        state: Memory = "lstm",
        layout: Layout = "encoder-decoder",
        block: Block = "residual",
    ) -> None:
        super().__init__()
        _check_sizes(width, blocks, kernel, scales)
        _check_choices(state, layout, block)
        if state != "none" and (scales == 1 or not shared):
            raise ValueError(f"state '{state}' goes from scale to scale of one network; use 'none' here")
        self.preset, self.width, self.blocks, self.kernel = preset, width, blocks, kernel
        self.scales, self.shared = scales, shared
        self.state: Memory = state
        self.layout: Layout = layout
        self.block: Block = block
        image_channels = 3 if scales == 1 else 6
        self.networks = nn.ModuleList(
            _ScaleNetwork(image_channels, width, blocks, kernel, state, layout, block)
            for _ in range(1 if shared else scales)
        )
        # With a ReLU, Xavier's weights halve the variance. Residual blocks make up for that; 43 plain layers would
        # fade to nothing.
        initialise_xavier(self, nn.init.calculate_gain("relu") if block == "plain" else 1.0)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        if self.scales == 1:
            return [self.networks[0](blurred)[0]]
        pyramid = [blurred]
        while len(pyramid) < self.scales:
            pyramid.insert(0, F.avg_pool2d(pyramid[0], 2))
        restored: list[Tensor] = []
        state: State = ()
        for scale, image in enumerate(pyramid):
            estimate = doubled(restored[-1]) if restored else image
            network = self.networks[0 if self.shared else scale]
            sharp, state = network(torch.cat([image, estimate], 1), tuple(doubled(part) for part in state))
            restored.append(sharp)
        return restored

    def step_of(self, module: str, use: int) -> int | None:
        """Scale 1 is the smallest; it has no hidden state to begin with."""
        _, scale, *_, last = module.split(".")
        return int(scale) + use + (last == "from_hidden")

    def describe(self) -> ModelSpec:
        return ModelSpec(
            system="srn",
            preset=self.preset,
            steps=1,
            multiple_of=2 ** (self.scales - 1) * (4 if self.layout == "encoder-decoder" else 1),
            receptive_field=self._receptive_field(),
            pooling="none",
            options={
                "width": self.width,
                "blocks": self.blocks,
                "kernel": self.kernel,
                "scales": self.scales,
                "shared": self.shared,
                "state": self.state,
                "layout": self.layout,
                "block": self.block,
            },
        )

    def _receptive_field(self) -> int:
        """Radius in pixels that an output pixel can see: through every scale, one after the other.

        Scale i adds the radius of the network, in its own pixels of 2^i, the step up to it adds one of the next
        coarser, and averaging down to the coarsest its own size less one.
        """
        pixel_sizes: list[int] = [2**scale for scale in range(self.scales)]
        network = _radius(self.blocks, self.kernel // 2, self.state, strided=self.layout == "encoder-decoder")
        return sum(pixel_sizes) * network + sum(pixel_sizes[1:]) + pixel_sizes[-1] - 1


class _ScaleNetwork(nn.Module):
    """What runs at each scale: (images, state of the coarser scale) -> (restored image, state)."""

    def __init__(
        self, image_channels: int, width: int, blocks: int, kernel: int, state: Memory, layout: Layout, block: Block
    ) -> None:
        super().__init__()
        self.strided = layout == "encoder-decoder"
        stride = 2 if self.strided else 1
        body = partial(_blocks, count=blocks, kernel=kernel, block=block)
        self.encoder = nn.ModuleList(
            [
                nn.Sequential(ConvReLU(image_channels, width, kernel), *body(width)),
                nn.Sequential(ConvReLU(width, 2 * width, kernel, stride), *body(2 * width)),
                nn.Sequential(ConvReLU(2 * width, 4 * width, kernel, stride), *body(4 * width)),
            ]
        )
        self.bottleneck = _BOTTLENECKS[state](4 * width, kernel)
        self.decoder = nn.ModuleList(
            [
                nn.Sequential(*body(4 * width), self._halved(4 * width, kernel), nn.ReLU()),
                nn.Sequential(*body(2 * width), self._halved(2 * width, kernel), nn.ReLU()),
            ]
        )
        self.output = nn.Sequential(*body(width), nn.Conv2d(width, 3, kernel, padding=kernel // 2))

    def forward(self, images: Tensor, state: State = ()) -> tuple[Tensor, State]:
        features, skips = images, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        features, state = self.bottleneck(features, state)
        for stage, skip in zip(self.decoder, (skips[1], skips[0]), strict=True):
            features = stage(features) + skip if self.strided else stage(features)
        return self.output(features), state

    def _halved(self, channels: int, kernel: int) -> nn.Module:
        """Half the channels; at twice the height and width if the encoder has strides."""
        if self.strided:
            return nn.ConvTranspose2d(channels, channels // 2, _DECONVOLUTION_KERNEL, stride=2, padding=1)
        return nn.Conv2d(channels, channels // 2, kernel, padding=kernel // 2)


class _Memoryless(nn.Module):
    """One convolution where the others keep a state."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        return F.relu(self.conv(features)), state


class _ConvRNN(nn.Module):
    """The plain recurrent cell of the seed, with convolutions: h = tanh(U x + W h + b), out = V h + c."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.from_input = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.from_hidden = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.out = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        total = self.from_input(features)
        if state:
            total = total + self.from_hidden(state[0])
        hidden = torch.tanh(total)
        return self.out(hidden), (hidden,)


_BOTTLENECKS: dict[Memory, type[nn.Module]] = {"none": _Memoryless, "rnn": _ConvRNN, "lstm": ConvLSTM}


def _blocks(channels: int, count: int, kernel: int, block: Block) -> list[nn.Module]:
    if block == "residual":
        return [ResidualBlock(channels, kernel) for _ in range(count)]
    return [ConvReLU(channels, channels, kernel) for _ in range(2 * count)]


def _radius(blocks: int, reach: int, state: Memory, *, strided: bool) -> int:
    """Radius in its own pixels that `_ScaleNetwork` sees. reach: of one convolution, in positions.

    A stride costs one more position of the finer grid, a transposed convolution reaches one of the coarser.
    """
    half, quarter = (2, 4) if strided else (1, 1)  # pixels per position of the inner levels, and side
    level = 2 * blocks * reach
    into = reach * (1 + 1 + half) + (1 + half if strided else 0)
    out_of = (half + quarter if strided else 2 * reach) + reach
    bottleneck = reach * quarter * (2 if state == "rnn" else 1)
    return into + 2 * level * (1 + half + quarter) + bottleneck + out_of


def _check_sizes(width: int, blocks: int, kernel: int, scales: int) -> None:
    if min(width, blocks, scales) < 1:
        raise ValueError(f"width, blocks and scales are at least 1, got {width}, {blocks}, {scales}")
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel is odd and at least 3, got {kernel}")


def _check_choices(state: str, layout: str, block: str) -> None:
    for name, value, choices in (("state", state, Memory), ("layout", layout, Layout), ("block", block, Block)):
        if value not in get_args(choices):
            raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, got '{value}'")
