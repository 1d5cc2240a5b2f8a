"""Blocks that several networks share."""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

AttentionPooling = Literal["global", "local"]
State = tuple[Tensor, ...]  # what a recurrent block remembers; () before the first step and without memory

# Local pooling averages cells of 4 x 4 positions, then 5 x 5 cells: a window of 20 x 20 positions.
LOCAL_POOLING_CELL = 4
_WINDOW_CELLS = 5
_REACHED_CELLS = _WINDOW_CELLS // 2 + 2  # +1 cell alignment, +1 interpolation
LOCAL_POOLING_RADIUS = LOCAL_POOLING_CELL * _REACHED_CELLS  # positions
_SPATIAL_KERNEL = 7


class ResidualBlock(nn.Module):
    """conv - ReLU - conv plus the identity, without batch norm (EDSR, Lim et al. 2017).

    residual_scale: of the second convolution's initial weights; below 1 its bias starts at zero.
    """

    def __init__(self, channels: int, kernel: int = 3, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        if residual_scale < 1:
            nn.init.zeros_(cast(Tensor, self.second.bias))
            with torch.no_grad():
                self.second.weight.mul_(residual_scale)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(features)))
        return features + change


class ConvReLU(nn.Sequential):
    """conv - ReLU at the same size (or 1 / `stride` of it), He initialisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        super().__init__(conv, nn.ReLU())


def start_at_zero(last: nn.Module) -> None:
    """Zero what writes the residual of the image, so that the untrained network returns its input."""
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def image_from_logits(logits: Tensor, blurred: Tensor | None = None) -> Tensor:
    """What a generator that ends in tanh gives, for images in [0, 1].

    The papers scale images to [-1, 1] and take tanh as the image, or as what is added to the blurred one. Here the
    residual is tanh of the logits as it stands: it can turn black to white. Without `blurred` the image is the
    sigmoid, which is tanh brought to [0, 1]: (1 + tanh(x)) / 2 = sigmoid(2 x), the 2 being left to the weights.
    """
    return torch.sigmoid(logits) if blurred is None else blurred + torch.tanh(logits)


def open_gate(logits: Tensor) -> Tensor:
    """Weights between 0.5 and 1.5, 1 at zero: the gates of LPRN.

    The published gates are plain sigmoids. Trained from scratch inside a recursion they close permanently within a
    few hundred steps (shutting the residual off is the quickest way to lose the noise of an untrained network),
    so these can halve a signal but not silence it.
    """
    return 0.5 + torch.sigmoid(logits)


class ChannelAttention(nn.Module):
    """Weigh channels by a gate computed from their averages (squeeze-and-excitation, Hu et al. 2018).

    pooling: "global" averages the whole frame, as published. "local" averages a window of 20 x 20
    positions around each position, so a tile of a frame gives what the frame gives (compare Chu et al. 2022, TLC);
    it needs H and W to be multiples of 4 positions. gate: logits -> weights.
    """

    def __init__(
        self,
        channels: int,
        pooling: AttentionPooling = "global",
        *,
        gate: Callable[[Tensor], Tensor] = torch.sigmoid,
        reduction: int = 8,
    ) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.pooling = pooling
        self.gate = gate
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        if self.pooling == "global":
            return features * self._weights(features.mean((2, 3), keepdim=True))
        cells = F.avg_pool2d(features, LOCAL_POOLING_CELL)
        window = F.avg_pool2d(cells, _WINDOW_CELLS, stride=1, padding=_WINDOW_CELLS // 2, count_include_pad=False)
        return features * F.interpolate(
            self._weights(window), scale_factor=float(LOCAL_POOLING_CELL), mode="bilinear"
        )

    def _weights(self, averages: Tensor) -> Tensor:
        return self.gate(self.excite(F.relu(self.squeeze(averages))))


class SpatialAttention(nn.Module):
    """Weigh positions by a gate computed from the mean and the maximum over channels (CBAM, Woo et al. 2018)."""

    radius = _SPATIAL_KERNEL // 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, _SPATIAL_KERNEL, padding=self.radius)

    def forward(self, features: Tensor) -> Tensor:
        mean = features.mean(1, keepdim=True)
        peak = features.amax(1, keepdim=True)
        return features * open_gate(self.conv(torch.cat([mean, peak], 1)))


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM without peepholes (Shi et al. 2015): input -> hidden, (hidden, cell).

    The gates are one convolution of the concatenation [input, hidden]. It is computed as the sum of one of each, so
    that the first step, whose hidden state and cell are zero, needs neither zeros nor the second half.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.from_input = nn.Conv2d(channels, 4 * channels, kernel, padding=kernel // 2)
        self.from_hidden = nn.Conv2d(channels, 4 * channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor, state: State = ()) -> tuple[Tensor, State]:
        return self.step(self.from_input(features), state)

    def step(self, gates: Tensor, state: State = ()) -> tuple[Tensor, State]:
        """As `forward`, from `from_input` of the features: for an input that is the same at every step."""
        if state:
            gates = gates + self.from_hidden(state[0])
        admit, forget, emit, candidate = gates.chunk(4, 1)
        cell = torch.sigmoid(admit) * torch.tanh(candidate)
        if state:
            cell = cell + torch.sigmoid(forget) * state[1]
        hidden = torch.sigmoid(emit) * torch.tanh(cell)
        return hidden, (hidden, cell)


def doubled(maps: Tensor) -> Tensor:
    """Twice the height and width, bilinear; the centre of a position stays the centre of the four it becomes."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear")


def initialise_xavier(network: nn.Module, gain: float = 1.0) -> None:
    """Xavier (Glorot) uniform weights, times `gain`, for every convolution; biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SelfAttention(nn.Module):
    """Non-local block: x + gamma * v(attention), every position looking at the whole frame.

    "Blind Deblurring using GANs", section 4.1.1 (Wang et al. 2017; gamma, zero at first, and 1/8 of the channels
    between the 1 x 1 convolutions: Zhang et al. 2018). Its f, g, h and v are query, key, value and output. There
    every position looks at every other, which at 1280 x 720 would take gigabytes. Here keys and values come from
    the means of `grid` x `grid` cells, so the map is (N, positions, grid^2) at any size.
    """

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        hidden = max(channels // 8, 4)
        self.grid = grid
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        cells = cell_means(features, self.grid)
        scores = self.query(features).flatten(2).transpose(1, 2) @ self.key(cells).flatten(2)
        attended = self.value(cells).flatten(2) @ scores.softmax(2).transpose(1, 2)
        weighed: Tensor = self.gamma * self.output(attended.unflatten(2, features.shape[2:]))
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


def normalise_spectrally(network: nn.Module) -> None:
    """Put spectral normalisation, by one power iteration a step, on every convolution; none may be zero."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)


def fold_parametrizations(network: nn.Module) -> None:
    """Replace every parametrised weight by its value as it stands.

    torch's `remove_parametrizations` is not for copies: it takes the property `weight` off the class, which a deep
    copy shares with its original.
    """
    for module in network.modules():
        if is_parametrized(module, "weight"):
            weight = cast(Tensor, module.weight).detach()
            del module.parametrizations
            module.__class__ = type_before_parametrizations(module)
            module.weight = nn.Parameter(weight)
