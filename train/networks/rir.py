"""RiR: an encoder-decoder of residual-in-residual blocks with channel attention.

"Blind Deblurring using GANs", section 4.2.2 and figure 5, which did not survive; where the words leave a
choice, this is ours:

    ResBlock(x)  = x + CA(conv3(relu(CA(conv3(x)))))         "two series of convolution and channel attention"
    Encode(x)    = ReLU(BN(conv4 stride 2(Res(Res(x))))) + conv1(x at 1/2)
    Decode(x, e) = ReLU(BN(transposed conv4(Res(Res(m))))) + conv1(m) at 2;  m = conv1([x, e]), e of the same size
    L            = B + tanh(conv3(...))                      global residual

A convolution in front brings the image to `width` channels, so that the first ResBlocks have features to work on.
The paper tests RiR on 1280 x 720 pixels and its large variant, "one extra encoder as well as decoder block", on
1280 x 768: 720 can be halved 4 times and 768 more often, so RiR has 4 levels and the large one 5.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import (
    ChannelAttention,
    ConvReLU,
    after_every_third,
    doubled,
    image_from_logits,
    normalise_spectrally,
    start_at_zero,
)


class AttentiveResidualBlock(nn.Module):
    """ResBlock of the paper: two convolutions, each with channel attention, plus the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            ChannelAttention(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            ChannelAttention(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.body(features)
        return features + change


class EncodeBlock(nn.Module):
    """A residual of residual blocks, to half the height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = _body(inputs, nn.Conv2d(inputs, outputs, 4, 2, 1), outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.body(features)
        shortcut: Tensor = self.shortcut(F.avg_pool2d(features, 2))
        return shortcut + change


class DecodeBlock(nn.Module):
    """A residual of residual blocks, to twice the height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = _body(inputs, nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.body(features)
        return doubled(self.shortcut(features)) + change


def _body(inputs: int, resize: nn.Module, outputs: int) -> nn.Sequential:
    residual = (AttentiveResidualBlock(inputs), AttentiveResidualBlock(inputs))
    return nn.Sequential(*residual, resize, nn.BatchNorm2d(outputs), nn.ReLU())


class RiR(DeblurringNetwork):
    """The generator.

    width: channels at full size, doubled up to 8 times that. levels: blocks each way; height and width are
    multiples of 2^levels. self_attention (after every three blocks), spectral_norm, global_residual: on in both
    rows of the paper's table. attention_grid: see `SelfAttention`. Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        *,
        preset: str = "rir",
        width: int = 64,
        levels: int = 4,
        self_attention: bool = True,
        global_residual: bool = True,
        spectral_norm: bool = True,
        attention_grid: int = 16,
    ) -> None:
        super().__init__()
        if min(width, levels, attention_grid) < 1:
            raise ValueError(
                f"width, levels and attention_grid are at least 1, got {width}, {levels} and {attention_grid}"
            )
        self.preset, self.width, self.levels = preset, width, levels
        self.self_attention, self.global_residual = self_attention, global_residual
        self.spectral_norm, self.attention_grid = spectral_norm, attention_grid
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        downwards, upwards = pairwise(widths), pairwise(reversed(widths))
        encode: list[nn.Module] = [EncodeBlock(inputs, outputs) for inputs, outputs in downwards]
        decode: list[nn.Module] = [DecodeBlock(inputs, outputs) for inputs, outputs in upwards]
        if self_attention:
            encode = after_every_third(encode, widths[1:], attention_grid)
            decode = after_every_third(decode, widths[-2::-1], attention_grid)
        self.head = ConvReLU(3, width)
        self.encode, self.decode = nn.ModuleList(encode), nn.ModuleList(decode)
        self.merge = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for channels in widths[-2:0:-1])
        self.reconstruct = nn.Conv2d(width, 3, 3, padding=1)
        if spectral_norm:
            normalise_spectrally(self)
        elif global_residual:
            start_at_zero(self.reconstruct)

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        return (self.reconstruct,)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        features, encoded = self.head(blurred), []
        for block in self.encode:
            features = block(features)
            encoded.append(features)
        features = self.decode[0](encoded.pop())
        for merge, block in zip(self.merge, self.decode[1:], strict=True):
            features = block(merge(torch.cat([features, encoded.pop()], 1)))
        return [image_from_logits(self.reconstruct(features), blurred if self.global_residual else None)]

    def describe(self) -> ModelSpec:
        return ModelSpec(
            system="rir",
            preset=self.preset,
            steps=1,
            multiple_of=1 << self.levels,
            receptive_field=0,
            pooling="global",
            options={
                "width": self.width,
                "levels": self.levels,
                "self_attention": self.self_attention,
                "global_residual": self.global_residual,
                "spectral_norm": self.spectral_norm,
                "attention_grid": self.attention_grid,
            },
        )
