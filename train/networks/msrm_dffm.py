"""MSRM-DFFM U-Net: multi-scale residual blocks and dynamic fusion of the skips.

"Research on Image Deblurring Based on Multi-Scale Optimization and Dynamic Feature Fusion" (Wan et al. 2023),
figures 1 to 3. A U-Net of three levels that takes the blurred image at three sizes and gives a restoration at each.
From MIMO-UNet (Cho et al. 2021) come the parts that the paper only names, SCM and FAM, and a ReLU after every
convolution between features.

    B_2, B_3 = B averaged to 1/2, 1/4
    E_1 = blocks(conv3(B));  E_k = blocks(FAM(conv3 stride 2(E_(k-1)), SCM(B_k)))
    D_3 = blocks(E_3);       D_k = blocks(conv1([up(D_(k+1)), skip_k]))
    S_k = B_k + conv3(D_k)

`msrm` makes the blocks MSRMs, else residual blocks. `dffm` makes skip_k the fusion of E_1 to E_3, else it is E_k.
The paper writes "depthwise separable convolution" before the split of an MSRM and gives it as one 3 x 3
convolution: a depthwise one here, since the convolutions behind the split mix channels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import ChannelAttention, ConvReLU, ResidualBlock, start_at_zero

_LEVELS = 3
_LOWEST = 1 << (_LEVELS - 1)  # pixels per position and side of the lowest level
_SPLITS = 4


class MultiScaleResidualModule(nn.Module):
    """MSRM: a chain of 3 x 3 convolutions over a quarter of the channels each, then channel attention.

    Quarter i passes i convolutions, so the concatenation holds four receptive fields (equations 1 to 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // _SPLITS
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.chain = nn.ModuleList(ConvReLU(part, part) for _ in range(_SPLITS))
        self.merge = nn.Conv2d(channels, channels, 1)
        self.attention = ChannelAttention(channels)

    def forward(self, features: Tensor) -> Tensor:
        first, *others = self.depthwise(features).chunk(_SPLITS, 1)
        scales = [self.chain[0](first)]
        for conv, part in zip(self.chain[1:], others, strict=True):
            scales.append(conv(part + scales[-1]))
        change: Tensor = self.attention(self.merge(torch.cat(scales, 1)))
        return features + change


class DynamicFeatureFusion(nn.Module):
    """DFFM: the encoder outputs of all levels, at one level's shape, weighed against each other per channel.

    The paper resizes and then convolves. A 1 x 1 convolution commutes with averaging and with interpolation, so it
    comes first where the map is enlarged and last where it is reduced: always on the smaller map.
    """

    def __init__(self, widths: list[int], level: int, reduction: int = 8) -> None:
        super().__init__()
        self.level = level
        channels = widths[level]
        self.adapt = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.squeeze = nn.Conv2d(channels, max(channels // reduction, 4), 1)
        self.excite = nn.Conv2d(max(channels // reduction, 4), len(widths) * channels, 1)
        self.merge = nn.Conv2d(len(widths) * channels, channels, 1)

    def forward(self, encoded: list[Tensor]) -> Tensor:
        branches = [self._resized(features, source) for source, features in enumerate(encoded)]
        averages = torch.stack([branch.mean((2, 3), keepdim=True) for branch in branches]).sum(0)
        logits: Tensor = self.excite(F.relu(self.squeeze(averages)))
        weights = torch.stack(logits.chunk(len(branches), 1)).softmax(0).unbind(0)
        fused: Tensor = self.merge(torch.cat([x * weight for x, weight in zip(branches, weights, strict=True)], 1))
        return fused

    def _resized(self, features: Tensor, source: int) -> Tensor:
        if source < self.level:
            features = F.avg_pool2d(features, 2 ** (self.level - source))
        adapted: Tensor = self.adapt[source](features)
        if source > self.level:
            adapted = F.interpolate(adapted, scale_factor=float(2 ** (source - self.level)), mode="bilinear")
        return adapted


class ShallowConvolution(nn.Module):
    """SCM: four convolutions of a reduced image, concatenated with it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.body = nn.Sequential(
            ConvReLU(3, quarter), ConvReLU(quarter, half, 1), ConvReLU(half, half), ConvReLU(half, channels - 3, 1)
        )
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        merged: Tensor = self.merge(torch.cat([image, self.body(image)], 1))
        return merged


class FeatureAttention(nn.Module):
    """FAM: encoder features plus a convolution of their product with those of the reduced image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, shallow: Tensor) -> Tensor:
        attended: Tensor = self.conv(features * shallow)
        return features + attended


class MSRMDFFM(DeblurringNetwork):
    """The U-Net; `restorations` gives S_3, S_2, S_1 at 1/4, 1/2 and full size.

    width: channels of the first level, doubled at each next. blocks: per encoder and per decoder level.
    msrm, dffm: which of the paper's two modules are on; neither is its baseline.
    Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        *,
        preset: str = "msrm-dffm",
        width: int = 32,
        blocks: int = 8,
        msrm: bool = True,
        dffm: bool = True,
    ) -> None:
        super().__init__()
        if width < 8 or width % 4:
            raise ValueError(f"width is a multiple of 4 and at least 8, got {width}")
        if blocks < 1:
            raise ValueError(f"blocks is at least 1, got {blocks}")
        self.preset, self.width, self.blocks, self.msrm, self.dffm = preset, width, blocks, msrm, dffm
        widths = [width * 2**level for level in range(_LEVELS)]
        above = widths[1:]
        self.head = ConvReLU(3, width)
        self.down = nn.ModuleList(ConvReLU(channels // 2, channels, stride=2) for channels in above)
        self.shallow = nn.ModuleList(ShallowConvolution(channels) for channels in above)
        self.attend = nn.ModuleList(FeatureAttention(channels) for channels in above)
        self.encode = nn.ModuleList(self._stack(channels) for channels in widths)
        self.fuse = nn.ModuleList(DynamicFeatureFusion(widths, level) for level in range(_LEVELS - 1) if dffm)
        self.up = nn.ModuleList(nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1) for channels in above)
        self.merge = nn.ModuleList(ConvReLU(2 * channels, channels, 1) for channels in widths[:-1])
        self.decode = nn.ModuleList(self._stack(channels) for channels in widths)
        self.reconstruct = nn.ModuleList(nn.Conv2d(channels, 3, 3, padding=1) for channels in widths)
        start_at_zero(self.reconstruct)

    def _stack(self, channels: int) -> nn.Sequential:
        block = MultiScaleResidualModule if self.msrm else ResidualBlock
        return nn.Sequential(*(block(channels) for _ in range(self.blocks)))

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        return list(self.reconstruct)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        return [self._restored(blurred, level, features) for level, features in self._decoded(blurred)]

    def forward(self, blurred: Tensor) -> Tensor:
        *_, (level, features) = self._decoded(blurred)
        return self._restored(blurred, level, features)

    def _restored(self, blurred: Tensor, level: int, features: Tensor) -> Tensor:
        residual: Tensor = self.reconstruct[level](features)
        return _reduced(blurred, level) + residual

    def _decoded(self, blurred: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(level, features), from the smallest level to the full size."""
        encoded = self._encoded(blurred)
        features: Tensor = self.decode[-1](encoded[-1])
        yield _LEVELS - 1, features
        for level in reversed(range(_LEVELS - 1)):
            skip = self.fuse[level](encoded) if self.dffm else encoded[level]
            features = self.decode[level](self.merge[level](torch.cat([self.up[level](features), skip], 1)))
            yield level, features

    def _encoded(self, blurred: Tensor) -> list[Tensor]:
        """E_1, E_2, E_3."""
        encoded = [self.encode[0](self.head(blurred))]
        for level in range(1, _LEVELS):
            shallow = self.shallow[level - 1](_reduced(blurred, level))
            features = self.attend[level - 1](self.down[level - 1](encoded[-1]), shallow)
            encoded.append(self.encode[level](features))
        return encoded

    def describe(self) -> ModelSpec:
        is_global = self.msrm or self.dffm
        return ModelSpec(
            system="msrm-dffm",
            preset=self.preset,
            steps=1,
            multiple_of=_LOWEST,
            receptive_field=0 if is_global else self._receptive_field(),
            pooling="global" if is_global else "none",
            options={"width": self.width, "blocks": self.blocks, "msrm": self.msrm, "dffm": self.dffm},
        )

    def _receptive_field(self) -> int:
        """Radius in pixels of the baseline, along its deepest path.

        Each level: the blocks twice, the convolution before them (head or FAM) and the one behind them
        (transposed or last), in positions of 1, 2 and 4 pixels. Between levels: a convolution of stride 2. A pixel
        may lie anywhere in its position of the lowest level.
        """
        per_level = 4 * self.blocks + 2
        return per_level * (2 * _LOWEST - 1) + (_LOWEST - 1) + (_LOWEST - 1)


def _reduced(image: Tensor, level: int) -> Tensor:
    """`image` at 1 / 2^level of its size, by averaging."""
    return F.avg_pool2d(image, 2**level) if level else image
