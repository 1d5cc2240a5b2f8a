"""Pix2Pix for deblurring: a deep U-Net with batch norm, trained against a PatchGAN.

"Blind Deblurring using GANs", sections 4.2.1 and 5.1. `depth` encode blocks (conv 4x4 stride 2, batch
norm, ReLU) bring 256 x 256 pixels down to 1 x 1; as many decode blocks (transposed convolutions) bring them back,
each fed with the encoded features of its size too; the last ends in tanh. The first block and the lowest, whose
1 x 1 map has no variance to divide by, are without batch norm, as published (Isola et al. 2017).

What section 5.1 adds, one by one:

    self_attention      non-local blocks after every three encode and every three decode blocks
    channel_attention   at the bottleneck
    global_residual     the network computes what is to be added to the blurred image
    spectral_norm       on the generator (and by its preset on the discriminator)
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import (
    ChannelAttention,
    after_every_third,
    image_from_logits,
    normalise_spectrally,
    start_at_zero,
)


class Pix2Pix(DeblurringNetwork):
    """The generator.

    width: channels of the first block, doubled up to 8 times that. depth: blocks each way; height and width are
    multiples of 2^depth. attention_grid: see `SelfAttention`. The other options: see above.
    Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        *,
        preset: str = "pix2pix",
        width: int = 64,
        depth: int = 8,
        self_attention: bool = False,
        channel_attention: bool = False,
        global_residual: bool = False,
        spectral_norm: bool = False,
        attention_grid: int = 16,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 2 or attention_grid < 1:
            raise ValueError(
                f"width and attention_grid are at least 1 and depth 2, got {width}, {attention_grid} and {depth}"
            )
        self.preset, self.width, self.depth = preset, width, depth
        self.self_attention, self.channel_attention = self_attention, channel_attention
        self.global_residual, self.spectral_norm = global_residual, spectral_norm
        self.attention_grid = attention_grid
        widths = [width * min(2**level, 8) for level in range(depth)]
        encode, decode = _encode_blocks(widths), _decode_blocks(widths)
        if self_attention:
            encode = after_every_third(encode, widths, attention_grid)
            decode = after_every_third(decode, widths[-2::-1], attention_grid)
        self.encode, self.decode = nn.ModuleList(encode), nn.ModuleList(decode)
        self.bottleneck = ChannelAttention(widths[-1]) if channel_attention else nn.Identity()
        self.reconstruct = nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)
        if spectral_norm:
            normalise_spectrally(self)
        elif global_residual:
            start_at_zero(self.reconstruct)

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        return (self.reconstruct,)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        features, encoded = blurred, []
        for block in self.encode:
            features = block(features)
            encoded.append(features)
        features = self.bottleneck(encoded.pop())
        for block in self.decode:
            features = torch.cat([block(features), encoded.pop()], 1)
        return [image_from_logits(self.reconstruct(features), blurred if self.global_residual else None)]

    def describe(self) -> ModelSpec:
        is_global = self.self_attention or self.channel_attention
        return ModelSpec(
            system="pix2pix",
            preset=self.preset,
            steps=1,
            multiple_of=1 << self.depth,
            receptive_field=0 if is_global else self._receptive_field(),
            pooling="global" if is_global else "none",
            options={
                "width": self.width,
                "depth": self.depth,
                "self_attention": self.self_attention,
                "channel_attention": self.channel_attention,
                "global_residual": self.global_residual,
                "spectral_norm": self.spectral_norm,
                "attention_grid": self.attention_grid,
            },
        )

    def _receptive_field(self) -> int:
        """Radius in pixels.

        A position of the lowest level reads 2^depth - 1 pixels to each side of its own. The way up looks one
        position aside at every level: twice as many again.
        """
        return 3 * ((1 << self.depth) - 1)


def _encode_blocks(widths: list[int]) -> list[nn.Module]:
    lowest = len(widths) - 1
    return [
        _block(nn.Conv2d(inputs, outputs, 4, 2, 1), outputs if 0 < level < lowest else None)
        for level, (inputs, outputs) in enumerate(pairwise([3, *widths]))
    ]


def _decode_blocks(widths: list[int]) -> list[nn.Module]:
    """From the lowest level up; above it each block reads its own features and as many from the encoder."""
    inputs = [widths[-1], *(2 * width for width in widths[-2:0:-1])]
    return [_block(nn.ConvTranspose2d(a, b, 4, 2, 1), b) for a, b in zip(inputs, widths[-2::-1], strict=True)]


def _block(conv: nn.Module, normalised: int | None) -> nn.Module:
    """conv - batch norm of that many channels, if any - ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(normalised) if normalised else nn.Identity(), nn.ReLU())
