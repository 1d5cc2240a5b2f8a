"""LPRN, the lightweight progressive residual network.

Source: "Fast Image Deblurring Based On the Lightweight Progressive Residual Network". Only its abstract and two
ablation tables were available, so the layer list is our reading of them:

    E     = conv3(B)                                  embedded input, computed once
    X_t   = relu(E + conv3(L_(t-1)))                  head: conv3 of [B, L_(t-1)], the half of B being shared
    F_t   = base(X_t)                                 the base network, the same weights at every step
    R_t   = conv3(spatial(channel([E, F_t])))         feature recalibration, then reconstruction
    L_t   = B + R_t                                   every L_t is a valid image; L_0 = B

A 3 x 3 convolution of the concatenation [B, L] is the sum of one of B and one of L; B does not change between
steps, so its half is computed once (the same function, 5/6 of that half saved at 6 steps).

The base network is an option: `plain` is the paper's shallow chain of residual blocks, `u` a U-shaped one, which
sees far at little cost. Everything between B and L_T runs on a space-to-depth grid: each position holds
`grid` x `grid` pixels. `grid=1` is the paper's full resolution.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import (
    LOCAL_POOLING_CELL,
    LOCAL_POOLING_RADIUS,
    AttentionPooling,
    ChannelAttention,
    ResidualBlock,
    SpatialAttention,
    open_gate,
    start_at_zero,
)

Base = Literal["plain", "u"]
Attention = Literal["none", "channel", "spatial", "both"]

_U_RESIDUAL_SCALE = 0.2  # of a block's second convolution at the start; the deeper the base, the more it matters


class PlainBase(nn.Sequential):
    """`blocks` residual blocks of `width` channels; (N, width, H, W) -> the same shape.

    radius: how many positions an output position sees to each side. multiple_of: of H and W.
    """

    multiple_of = 1

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__(*(ResidualBlock(width) for _ in range(blocks)))
        self.radius = 2 * blocks


class UShapedBase(nn.Module):
    """Residual blocks at full, 1/2, 1/4 ... resolution, with the skips added; (N, widths[0], H, W) -> the same.

    Down by a 2 x 2 convolution of stride 2, up by a transposed one. No normalisation and no depthwise convolution,
    so every operator suits INT8. widths: of the levels. encoder: blocks of every level on the way down.
    decoder: on the way up, top level first, one level fewer. radius, multiple_of: as `PlainBase`.
    """

    def __init__(self, widths: Sequence[int], encoder: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList(map(_residual_blocks, widths, encoder))
        self.down = nn.ModuleList(nn.Conv2d(upper, lower, 2, 2) for upper, lower in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(lower, upper, 2, 2) for upper, lower in pairs)
        self.decoder = nn.ModuleList(map(_residual_blocks, widths, decoder))
        self.multiple_of = 2 ** len(pairs)
        self.radius = _u_radius(encoder, decoder)

    def forward(self, features: Tensor) -> Tensor:
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=False):
            skips.append(encode(features))
            features = down(skips[-1])
        features = self.encoder[-1](features)
        for skip, up, decode in zip(reversed(skips), reversed(self.up), reversed(self.decoder), strict=True):
            features = decode(skip + up(features))
        return features


def _residual_blocks(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, residual_scale=_U_RESIDUAL_SCALE) for _ in range(blocks)))


def _u_radius(encoder: Sequence[int], decoder: Sequence[int]) -> int:
    """Positions of the top level that an output position sees to each side, for the worst alignment.

    A block adds 2. One level down, a radius counts double, and the cell of 2 x 2 that it begins in adds 1.
    """
    radius = 2 * encoder[-1]
    for down, up in zip(reversed(encoder[:-1]), reversed(decoder), strict=True):
        radius = 2 * down + 2 * radius + 1 + 2 * up
    return radius


class LPRN(DeblurringNetwork):
    """The progressive network; `restorations` gives L_1 .. L_T.

    base: "plain" or "u". width: feature channels; of every level of a U, "32,64,96,128".
    blocks: residual blocks of the base network; of a U in the order of computation, levels down and up again,
    "1,2,2,2,2,2,1". steps: T. grid: pixels per position and side. attention: which recalibration gates exist.
    pooling: see `ChannelAttention`. Raises ValueError for an option out of range.
    """

    recursive = True

    def __init__(
        self,
        *,
        preset: str = "lprn",
        base: Base = "plain",
        width: int | str = 64,
        blocks: int | str = 4,
        steps: int = 6,
        grid: int = 1,
        attention: Attention = "both",
        pooling: AttentionPooling = "global",
    ) -> None:
        super().__init__()
        _check_options(base, steps, grid, attention, pooling)
        widths = _base_sizes("width", width)
        self.preset, self.base, self.width, self.blocks = preset, base, width, blocks
        self.steps, self.grid = steps, grid
        self.attention: Attention = attention
        self.pooling: AttentionPooling = pooling
        image_channels = 3 * grid**2
        self.embed = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        self.head = nn.Conv2d(image_channels, widths[0], 3, padding=1, bias=False)
        self.body = _base_network(base, widths, _base_sizes("blocks", blocks))
        self.channel = (
            ChannelAttention(2 * widths[0], pooling, gate=open_gate) if self._has_channel_gate else nn.Identity()
        )
        self.spatial = SpatialAttention() if self._has_spatial_gate else nn.Identity()
        self.reconstruct = nn.Conv2d(2 * widths[0], image_channels, 3, padding=1)
        nn.init.kaiming_normal_(self.embed.weight, nonlinearity="relu")
        start_at_zero(self.reconstruct)

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        return (self.reconstruct,)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        return [F.pixel_shuffle(estimate, self.grid) for estimate in self._estimates(blurred)]

    def forward(self, blurred: Tensor) -> Tensor:
        return F.pixel_shuffle(self._estimates(blurred)[-1], self.grid)

    def _estimates(self, blurred: Tensor) -> list[Tensor]:
        """L_1 .. L_T on the grid, (N, 3 grid^2, H / grid, W / grid)."""
        blurred_grid = F.pixel_unshuffle(blurred, self.grid)
        embedded = self.embed(blurred_grid)
        estimates = [blurred_grid]
        for _ in range(self.steps):
            estimates.append(blurred_grid + self._residual(embedded, estimates[-1]))
        return estimates[1:]

    def _residual(self, embedded: Tensor, estimate: Tensor) -> Tensor:
        features = self.body(F.relu(embedded + self.head(estimate)))
        recalibrated: Tensor = self.spatial(self.channel(torch.cat([embedded, features], 1)))
        residual: Tensor = self.reconstruct(recalibrated)
        return residual

    def step_of(self, module: str, use: int) -> int | None:
        return None if module == "embed" else use

    @property
    def _has_channel_gate(self) -> bool:
        return self.attention in ("channel", "both")

    @property
    def _has_spatial_gate(self) -> bool:
        return self.attention in ("spatial", "both")

    def describe(self) -> ModelSpec:
        pools_cells = self._has_channel_gate and self.pooling == "local"
        return ModelSpec(
            system="lprn",
            preset=self.preset,
            steps=self.steps,
            multiple_of=self.grid * math.lcm(self.body.multiple_of, LOCAL_POOLING_CELL if pools_cells else 1),
            receptive_field=self._receptive_field(),
            pooling=self.pooling if self._has_channel_gate else "none",
            options={
                **({} if self.base == "plain" else {"base": self.base}),  # older checkpoints name no base
                "width": self.width,
                "blocks": self.blocks,
                "grid": self.grid,
                "attention": self.attention,
                "pooling": self.pooling,
            },
        )

    def _receptive_field(self) -> int:
        """Radius in pixels that an output pixel can see; 0 (unbounded) with global pooling."""
        if self._has_channel_gate and self.pooling == "global":
            return 0
        channel = LOCAL_POOLING_RADIUS if self._has_channel_gate else 0
        spatial = SpatialAttention.radius if self._has_spatial_gate else 0
        per_step = 1 + self.body.radius + channel + spatial + 1
        return (self.steps * per_step + 1) * self.grid


def _base_network(base: Base, widths: tuple[int, ...], blocks: tuple[int, ...]) -> PlainBase | UShapedBase:
    expected = 1 if base == "plain" else 2 * len(widths) - 1
    if len(blocks) != expected or (base == "plain" and len(widths) > 1):
        raise ValueError(
            f"base '{base}' has {len(widths)} widths and {len(blocks)} numbers of blocks, expected "
            + ("one of each" if base == "plain" else f"{expected} numbers of blocks for so many widths")
        )
    if base == "plain":
        return PlainBase(widths[0], blocks[0])
    return UShapedBase(widths, blocks[: len(widths)], blocks[: len(widths) - 1 : -1])


def _base_sizes(name: str, value: int | str) -> tuple[int, ...]:
    """ "32,64" -> (32, 64); 8 -> (8,)."""
    try:
        sizes = tuple(int(part) for part in str(value).split(","))
    except ValueError as error:
        raise ValueError(f"{name} is '{value}', expected a number or numbers like 32,64,96") from error
    if min(sizes) < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")
    return sizes


def _check_options(base: str, steps: int, grid: int, attention: str, pooling: str) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    if grid not in (1, 2, 4):
        raise ValueError(f"grid is {grid}, expected 1, 2 or 4")
    for name, value, known in (
        ("base", base, Base),
        ("attention", attention, Attention),
        ("pooling", pooling, AttentionPooling),
    ):
        if value not in get_args(known):
            raise ValueError(f"{name} is '{value}', expected one of {', '.join(get_args(known))}")
