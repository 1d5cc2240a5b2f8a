"""Canny's edge detector from operators that TensorRT takes, so that a network's edge channel is part of its graph.

The paper computes edges beside the network. Inside it, a runtime feeds it the three channels that it feeds to any
other. This is skimage.feature.canny with its defaults (sigma 1, thresholds 0.1 and 0.2) except where a fixed graph
has to differ: hysteresis follows weak edges for `_REACH` pixels, not to their end; beyond its border a frame is
mirrored.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LUMINANCE = (0.2125, 0.7154, 0.0721)  # BT.709, as skimage.color.rgb2gray
_SIGMA = 1.0
_GAUSSIAN_RADIUS = 4
_LOW, _HIGH = 0.1, 0.2
_REACH = 32
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # (row, column)


class CannyEdges(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, 1, H, W), 1 on an edge and 0 elsewhere. H and W are at least 6.

    Nothing is learnt and no gradient flows: edges are an input, as the paper has them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gradient_kernel", _gradient_kernel(), persistent=False)
        self.gradient_kernel: Tensor

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        margin = self.gradient_kernel.shape[-1] // 2
        mirrored = F.pad(images, (margin, margin, margin, margin), "reflect")
        # Thresholds need every digit, in training as deployed. Counting GFLOP is on meta, which autocast refuses.
        with torch.autocast("cpu" if images.is_meta else images.device.type, enabled=False):
            gradient = F.conv2d(mirrored.float(), self.gradient_kernel)
        strength = gradient.square().sum(1, keepdim=True).sqrt()
        ridge = strength * _is_peak(strength, gradient)
        return _linked(ridge > _HIGH, ridge > _LOW)


def _gradient_kernel() -> Tensor:
    """(2, 3, 11, 11): luminance, Gaussian and Sobel in one, for the change down the rows and along the columns."""
    position = torch.arange(-_GAUSSIAN_RADIUS, _GAUSSIAN_RADIUS + 1, dtype=torch.float64)
    gaussian = torch.exp(-((position / _SIGMA) ** 2) / 2)
    gaussian = gaussian / gaussian.sum()
    smooth = _full_convolution(gaussian, (1.0, 2.0, 1.0))
    change = _full_convolution(gaussian, (-1.0, 0.0, 1.0))
    sobel = torch.stack([torch.outer(change, smooth), torch.outer(smooth, change)])
    luminance = torch.tensor(_LUMINANCE, dtype=torch.float64)
    return (sobel[:, None] * luminance[:, None, None]).float()


def _full_convolution(signal: Tensor, taps: tuple[float, ...]) -> Tensor:
    """The cross-correlation at every overlap: longer than `signal` by one less than there are taps."""
    return F.conv1d(signal[None, None], signal.new_tensor(taps)[None, None], padding=len(taps) - 1)[0, 0]


def _is_peak(strength: Tensor, gradient: Tensor) -> Tensor:
    """Non-maximum suppression: 1 where no neighbour along the gradient is stronger, at either side, else 0.

    The two neighbours are where the gradient meets the square of the eight pixels around, between two of them:
    bilinear interpolation there has the weights of tents around each.
    """
    direction = gradient / gradient.abs().amax(1, keepdim=True).clamp(min=1e-6)
    down, right = direction[:, :1], direction[:, 1:]
    padded = F.pad(strength, (1, 1, 1, 1))
    ahead = torch.zeros_like(strength)
    behind = torch.zeros_like(strength)
    for row, column in _NEIGHBOURS:
        neighbour = padded[..., 1 + row : _end(row), 1 + column : _end(column)]
        ahead = ahead + neighbour * _tent(down - row) * _tent(right - column)
        behind = behind + neighbour * _tent(down + row) * _tent(right + column)
    return (strength >= torch.maximum(ahead, behind)).to(strength.dtype)


def _end(offset: int) -> int | None:
    return None if offset == 1 else offset - 1


def _tent(distance: Tensor) -> Tensor:
    return F.relu(1 - distance.abs())


def _linked(strong: Tensor, weak: Tensor) -> Tensor:
    """Hysteresis: the weak pixels that a chain of weak pixels, at most `_REACH` long, links to a strong one."""
    edges, allowed = strong.to(torch.float32), weak.to(torch.float32)
    for _ in range(_REACH):
        edges = F.max_pool2d(edges, 3, 1, 1) * allowed
    return edges
