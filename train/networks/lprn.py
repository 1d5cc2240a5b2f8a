"""LPRN, the lightweight progressive residual network.

Seed 002: "Fast Image Deblurring Based On the Lightweight Progressive Residual Network". Only its abstract and two
ablation tables survive, so the layer list is our reading of them:

    E     = conv3(B)                                  embedded input, computed once
    X_t   = relu(E + conv3(L_(t-1)))                  head: conv3 of [B, L_(t-1)], the half of B being shared
    F_t   = residual blocks(X_t)                      the shallow residual network, the same weights at every step
    R_t   = conv3(spatial(channel([E, F_t])))         feature recalibration, then reconstruction
    L_t   = B + R_t                                   every L_t is a valid image; L_0 = B

A 3 x 3 convolution of the concatenation [B, L] is the sum of one of B and one of L; B does not change between
steps, so its half is computed once (the same function, 5/6 of that half saved at 6 steps).

Everything between B and L_T runs on a space-to-depth grid: each position holds `grid` x `grid` pixels. `grid=1`
is the paper's full resolution.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import (
    LOCAL_POOLING_RADIUS,
    AttentionPooling,
    ChannelAttention,
    ResidualBlock,
    SpatialAttention,
)

Attention = Literal["none", "channel", "spatial", "both"]


class LPRN(DeblurringNetwork):
    """The progressive network; `restorations` gives L_1 .. L_T.

    width: feature channels. blocks: residual blocks of the base network. steps: T. grid: pixels per
    position and side. attention: which recalibration gates exist. pooling: see `ChannelAttention`.
    Raises ValueError for an option out of range.
    """

    recursive = True

    def __init__(
        self,
        *,
        preset: str = "lprn",
        width: int = 64,
        blocks: int = 4,
        steps: int = 6,
        grid: int = 1,
        attention: Attention = "both",
        pooling: AttentionPooling = "global",
    ) -> None:
        super().__init__()
        _check_options(width, blocks, steps, grid, attention, pooling)
        self.preset, self.width, self.blocks, self.steps, self.grid = preset, width, blocks, steps, grid
        self.attention: Attention = attention
        self.pooling: AttentionPooling = pooling
        image_channels = 3 * grid**2
        self.embed = nn.Conv2d(image_channels, width, 3, padding=1)
        self.head = nn.Conv2d(image_channels, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.channel = ChannelAttention(2 * width, pooling) if attention in ("channel", "both") else nn.Identity()
        self.spatial = SpatialAttention() if attention in ("spatial", "both") else nn.Identity()
        self.reconstruct = nn.Conv2d(2 * width, image_channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Zero the last convolution, so that the untrained network returns its input."""
        nn.init.kaiming_normal_(self.embed.weight, nonlinearity="relu")
        for parameter in self.reconstruct.parameters():
            nn.init.zeros_(parameter)

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

    def describe(self) -> ModelSpec:
        has_channel_gate = self.attention in ("channel", "both")
        local = has_channel_gate and self.pooling == "local"
        return ModelSpec(
            system="lprn",
            preset=self.preset,
            steps=self.steps,
            multiple_of=self.grid * (4 if local else 1),
            receptive_field=self._receptive_field(has_channel_gate),
            pooling=self.pooling if has_channel_gate else "none",
            options={
                "width": self.width,
                "blocks": self.blocks,
                "grid": self.grid,
                "attention": self.attention,
                "pooling": self.pooling,
            },
        )

    def _receptive_field(self, has_channel_gate: bool) -> int:
        """Radius in pixels that an output pixel can see; 0 (unbounded) with global pooling."""
        if has_channel_gate and self.pooling == "global":
            return 0
        recalibration = (LOCAL_POOLING_RADIUS if has_channel_gate else 0) + (
            SpatialAttention.radius if self.attention in ("spatial", "both") else 0
        )
        per_step = 1 + 2 * self.blocks + recalibration + 1
        return (self.steps * per_step + 1) * self.grid


def _check_options(width: int, blocks: int, steps: int, grid: int, attention: str, pooling: str) -> None:
    if min(width, blocks, steps) < 1:
        raise ValueError(f"width, blocks and steps are at least 1, got {width}, {blocks}, {steps}")
    if grid not in (1, 2, 4):
        raise ValueError(f"grid is 1, 2 or 4, got {grid}")
    if attention not in get_args(Attention):
        raise ValueError(f"attention is one of {', '.join(get_args(Attention))}, got '{attention}'")
    if pooling not in get_args(AttentionPooling):
        raise ValueError(f"pooling is one of {', '.join(get_args(AttentionPooling))}, got '{pooling}'")
