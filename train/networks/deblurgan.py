"""DeblurGAN: a residual generator with instance norm, and its two extensions.

"Blind Deblurring using GANs", sections 4.1.5, 4.1.6 and 5.3; the generator is that of Kupyn et al. 2018:

    encoder   conv 7x7, two convolutions of stride 2, residual blocks (reflected borders, instance norm, ReLU)
    decoder   two transposed convolutions, conv 7x7, tanh;  L = B + tanh(...)

`edges` puts Canny's edges of the blurred image beside it as a fourth channel. The feedback module is a ConvLSTM
between encoder and decoder that sees the same image again and again: h_t = LSTM(encoder(B), h_(t-1)),
L_t = decoder(h_t). Instance norm averages over the whole frame: every output pixel depends on every input pixel.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import ConvLSTM, State, image_from_logits, start_at_zero
from unblur.train.networks.edges import CannyEdges


class InstanceNormBlock(nn.Module):
    """Two 3 x 3 convolutions with reflected borders and instance norm, ReLU between them, plus the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), *_normed(nn.Conv2d(channels, channels, 3)), nn.ReLU(),
            nn.ReflectionPad2d(1), *_normed(nn.Conv2d(channels, channels, 3)),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.body(features)
        return features + change


class DeblurGAN(DeblurringNetwork):
    """The generator.

    width: channels at full size, 4 times as many at a quarter. blocks: residual blocks. edges: the edge channel.
    Raises ValueError for an option out of range.
    """

    def __init__(self, *, preset: str = "deblurgan", width: int = 64, blocks: int = 9, edges: bool = False) -> None:
        super().__init__()
        if min(width, blocks) < 1:
            raise ValueError(f"width and blocks are at least 1, got {width} and {blocks}")
        self.preset, self.width, self.blocks = preset, width, blocks
        self.edges = CannyEdges() if edges else None
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3), *_normed(nn.Conv2d(4 if edges else 3, width, 7)), nn.ReLU(),
            *_normed(nn.Conv2d(width, 2 * width, 3, 2, 1)), nn.ReLU(),
            *_normed(nn.Conv2d(2 * width, 4 * width, 3, 2, 1)), nn.ReLU(),
            *(InstanceNormBlock(4 * width) for _ in range(blocks)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            *_normed(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1)), nn.ReLU(),
            *_normed(nn.ConvTranspose2d(2 * width, width, 4, 2, 1)), nn.ReLU(),
            nn.ReflectionPad2d(3),
        )  # fmt: skip
        self.reconstruct = nn.Conv2d(width, 3, 7)
        start_at_zero(self.reconstruct)

    @property
    def image_layers(self) -> Sequence[nn.Module]:
        return (self.reconstruct,)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        return [self._decoded(self._encoded(blurred), blurred)]

    def _encoded(self, blurred: Tensor) -> Tensor:
        seen = blurred if self.edges is None else torch.cat([blurred, self.edges(blurred)], 1)
        features: Tensor = self.encoder(seen)
        return features

    def _decoded(self, features: Tensor, blurred: Tensor) -> Tensor:
        return image_from_logits(self.reconstruct(self.decoder(features)), blurred)

    def describe(self) -> ModelSpec:
        return ModelSpec(
            system="deblurgan",
            preset=self.preset,
            steps=self.steps,
            multiple_of=8,  # 4 for the strides; at 4 pixels the quarter would be one position, without a variance
            receptive_field=0,
            pooling="global",
            options={"width": self.width, "blocks": self.blocks, "edges": self.edges is not None},
        )


class FeedbackDeblurGAN(DeblurGAN):
    """The generator with the feedback module; `restorations` gives L_1 .. L_T.

    steps: T, how often the image is iterated. The others: see `DeblurGAN`.
    """

    recursive = True

    def __init__(
        self,
        *,
        preset: str = "deblurgan-feedback",
        width: int = 64,
        blocks: int = 9,
        edges: bool = False,
        steps: int = 4,
    ) -> None:
        super().__init__(preset=preset, width=width, blocks=blocks, edges=edges)
        if steps < 1:
            raise ValueError(f"steps is at least 1, got {steps}")
        self.steps = steps
        self.feedback = ConvLSTM(4 * width)

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        return [self._decoded(hidden, blurred) for hidden in self._iterated(blurred)]

    def forward(self, blurred: Tensor) -> Tensor:
        *_, hidden = self._iterated(blurred)
        return self._decoded(hidden, blurred)

    def step_of(self, module: str, use: int) -> int | None:
        """The first step has no hidden state; encoder and decoder run once."""
        if module == "feedback.from_hidden":
            return use + 1
        return use if module == "feedback.from_input" else None

    def _iterated(self, blurred: Tensor) -> Iterator[Tensor]:
        """h_1 .. h_T; the image is the same at every step, so the encoder runs once."""
        gates, state = self.feedback.from_input(self._encoded(blurred)), State()
        for _ in range(self.steps):
            hidden, state = self.feedback.step(gates, state)
            yield hidden


def _normed(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module]:
    """The convolution, and an instance norm behind it."""
    return conv, nn.InstanceNorm2d(conv.out_channels)
