"""Self-attention over a frame whose memory is linear in its pixels."""

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Non-local block: x + gamma * attention, every position looking at the whole frame.

    Seed 004, section 4.1.1 (Wang et al. 2017; gamma, zero at first, and 1/8 of the channels for queries and keys:
    Zhang et al. 2018). There every position looks at every other, which at 1280 x 720 would take gigabytes. Here
    keys and values come from the means of `grid` x `grid` cells, so the map is (N, positions, grid^2) at any size.
    """

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        hidden = max(channels // 8, 4)
        self.grid = grid
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        cells = cell_means(features, self.grid)
        scores = self.query(features).flatten(2).transpose(1, 2) @ self.key(cells).flatten(2)
        attended = self.value(cells).flatten(2) @ scores.softmax(2).transpose(1, 2)
        weighed: Tensor = self.gamma * attended.view_as(features)
        return features + weighed


def cell_means(features: Tensor, grid: int) -> Tensor:
    """(N, C, H, W) -> (N, C, grid, grid): means over equal cells that may begin within a position, at any H and W.

    Adaptive average pooling, which equals it where `grid` divides H and W, cannot be exported with dynamic sizes.
    """
    rows, columns = (_cell_weights(length, grid, features) for length in features.shape[2:])
    return rows @ features @ columns.transpose(0, 1)


def _cell_weights(length: int, grid: int, like: Tensor) -> Tensor:
    """(grid, length): the share of every position in the mean of every cell.

    In units of 1 / grid of a position all bounds are whole numbers: cell g is [g length, (g + 1) length) and
    position p is [p grid, (p + 1) grid). What they have in common, over the length of the cell, is the share.
    """
    cells = torch.arange(grid, device=like.device)[:, None] * length
    positions = torch.arange(length, device=like.device) * grid
    common = torch.minimum(cells + length, positions + grid) - torch.maximum(cells, positions)
    return common.clamp(min=0).to(like.dtype) / length


def after_every_third(blocks: list[nn.Module], widths: list[int], grid: int) -> list[nn.Module]:
    """`blocks` with self-attention behind the third, the sixth and so on ("after every three", section 5.1).

    widths: the channels that each block gives. grid: see `SelfAttention`.
    """
    return [
        nn.Sequential(block, SelfAttention(width, grid)) if count % 3 == 0 else block
        for count, (block, width) in enumerate(zip(blocks, widths, strict=True), start=1)
    ]
