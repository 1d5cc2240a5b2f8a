"""MSR-GAN: a multi-scale residual network, and the discriminator it is trained against.

"Motion Blur Image Restoration by Multi-Scale Residual Neural Network", which modifies DeepDeblur (Nah
et al. 2017): the last two of the 19 residual blocks of each scale become multi-scale residual blocks. A Gaussian
pyramid is restored from coarse to fine, each scale by weights of its own:

    L_2 = Net_2(B_2),  L_k = Net_k([B_k, up(L_(k+1))])      k = 1, 0: half and full size
    Net = conv - `blocks` residual blocks - `msrbs` MSRBs - 1 x 1 bottleneck over the outputs of all MSRBs - conv

The paper leaves width and kernel open. 64 channels are DeepDeblur's; its 5 x 5 convolutions are not the default,
because with the MSRBs they would take 1.26 times the work of DeepDeblur, where the paper measures 0.77 times its
seconds. 3 x 3 in the residual blocks take 0.69 times the work. Images are doubled bilinearly.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.spec import ModelSpec
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.networks.blocks import ConvReLU, ResidualBlock, doubled

_MSRB_RADIUS = 4  # two convolutions of 5 x 5, one after the other
_SLOPE = 0.2  # of the leaky ReLUs of the discriminator


class MSRGAN(DeblurringNetwork):
    """The generator; `restorations` gives one image per scale, the smallest first.

    width: channels. blocks, msrbs: per scale. kernel: side of the convolutions outside the MSRBs, odd. scales:
    images of the pyramid. Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        *,
        preset: str = "msr-gan",
        width: int = 64,
        blocks: int = 17,
        msrbs: int = 2,
        kernel: int = 3,
        scales: int = 3,
    ) -> None:
        super().__init__()
        if min(width, scales, msrbs) < 1 or blocks < 0:
            raise ValueError(
                "width, scales and msrbs are at least 1, blocks at least 0, "
                f"got {width}, {scales}, {msrbs}, {blocks}"
            )
        if kernel < 3 or kernel % 2 == 0:
            raise ValueError(f"kernel is odd and at least 3, got {kernel}")
        self.preset, self.width, self.blocks, self.msrbs = preset, width, blocks, msrbs
        self.kernel, self.scales = kernel, scales
        self.networks = nn.ModuleList(
            ScaleNetwork(3 if scale == 0 else 6, width, blocks, msrbs, kernel) for scale in range(scales)
        )

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        restored: list[Tensor] = []
        for network, image in zip(self.networks, self._pyramid(blurred), strict=True):
            restored.append(network(torch.cat([image, doubled(restored[-1])], 1) if restored else image))
        return restored

    def targets(self, sharp: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The sharp image's own Gaussian pyramid: S_k of the paper's loss."""
        return self._pyramid(sharp)

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        """The smallest first."""
        pyramid = [images]
        while len(pyramid) < self.scales:
            pyramid.insert(0, gaussian_half(pyramid[0]))
        return pyramid

    def step_of(self, module: str, use: int) -> int | None:
        """Scale 1 is the smallest."""
        _, scale, *_ = module.split(".")
        return int(scale) + 1

    def describe(self) -> ModelSpec:
        return ModelSpec(
            system="msr-gan",
            preset=self.preset,
            steps=1,
            multiple_of=2 ** (self.scales - 1),
            receptive_field=self._receptive_field(),
            pooling="none",
            options={
                "width": self.width,
                "blocks": self.blocks,
                "msrbs": self.msrbs,
                "kernel": self.kernel,
                "scales": self.scales,
            },
        )

    def _receptive_field(self) -> int:
        """Radius in pixels that an output pixel can see: through every scale, one after the other.

        Scale k adds the radius of a network, in its own pixels of 2^k, the step up to it adds one of the next
        coarser, and each step of the pyramid two of the finer.
        """
        pixel_sizes: list[int] = [2**scale for scale in range(self.scales)]
        network = (2 + 2 * self.blocks) * (self.kernel // 2) + self.msrbs * _MSRB_RADIUS
        return sum(pixel_sizes) * network + sum(pixel_sizes[1:]) + 2 * sum(pixel_sizes[:-1])


class ScaleNetwork(nn.Module):
    """The network of one scale; see the top of this file. images: channels of what it restores from."""

    def __init__(self, images: int, width: int, blocks: int, msrbs: int, kernel: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(images, width, kernel, padding=kernel // 2)
        self.blocks = nn.Sequential(*(ResidualBlock(width, kernel) for _ in range(blocks)))
        self.msrbs = nn.ModuleList(MultiScaleResidualBlock(width) for _ in range(msrbs))
        self.bottleneck = nn.Conv2d(msrbs * width, width, 1)
        self.reconstruct = nn.Conv2d(width, 3, kernel, padding=kernel // 2)

    def forward(self, images: Tensor) -> Tensor:
        features, outputs = self.blocks(self.head(images)), []
        for msrb in self.msrbs:
            features = msrb(features)
            outputs.append(features)
        restored: Tensor = self.reconstruct(self.bottleneck(torch.cat(outputs, 1)))
        return restored


class MultiScaleResidualBlock(nn.Module):
    """3 x 3 and 5 x 5 convolutions side by side, twice; the second pair sees both results (MSRN, Li et al. 2018).

    The first pair keeps the channels, the second, on the concatenation, keeps its double number, and a 1 x 1
    convolution brings those of both back to one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.small_first = ConvReLU(channels, channels, 3)
        self.large_first = ConvReLU(channels, channels, 5)
        self.small_second = ConvReLU(2 * channels, 2 * channels, 3)
        self.large_second = ConvReLU(2 * channels, 2 * channels, 5)
        self.fuse = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        first = torch.cat([self.small_first(features), self.large_first(features)], 1)
        second = torch.cat([self.small_second(first), self.large_second(first)], 1)
        fused: Tensor = self.fuse(second)
        return features + fused


def gaussian_half(images: Tensor) -> Tensor:
    """The next level of a Gaussian pyramid: half the height and width, edges repeated.

    The filter is the binomial [1, 3, 3, 1] / 8, a standard deviation of 0.87 pixels. It is even, so a pixel lies
    in the middle of the four it stands for, where `doubled` expects it. As three averages of neighbours it is
    legal for every engine, and calibration sees that the image goes through unchanged.
    """
    smooth = F.avg_pool2d(F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 2, stride=1), 2, stride=1)
    return F.avg_pool2d(smooth, 2)


class MSRGANDiscriminator(nn.Module):
    """Nine convolutions and a fully connected layer: images as in `DeblurringNetwork` -> logits (N, 1, h, w).

    There is no sigmoid, the loss applies it. One logit belongs to 256 x 256 pixels, the crop of the paper; where
    the image ends before that, features are zero. The activations, which the paper does not name, are DeepDeblur's.
    width: channels of the first convolution.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        outputs = [factor * width for factor in (1, 2, 2, 4, 4, 8, 8, 16)]
        strides = (2, 1, 2, 1, 4, 1, 4, 1)
        layers: list[nn.Module] = []
        for channels_in, channels, stride in zip([3, *outputs[:-1]], outputs, strides, strict=True):
            layers += [nn.Conv2d(channels_in, channels, 5, stride, padding=2), nn.LeakyReLU(_SLOPE)]
        self.features = nn.Sequential(*layers)
        self.summary = nn.Sequential(nn.Conv2d(outputs[-1], outputs[-1], 4, stride=4), nn.LeakyReLU(_SLOPE))
        self.logit = nn.Conv2d(outputs[-1], 1, 1)
        for layer in (*self.features, *self.summary):
            if isinstance(layer, nn.Conv2d):  # He: torch's own initialisation fades to nothing over nine layers
                nn.init.kaiming_normal_(layer.weight, _SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        missing_h, missing_w = (-side % 4 for side in features.shape[-2:])
        logits: Tensor = self.logit(self.summary(F.pad(features, (0, missing_w, 0, missing_h))))
        return logits
