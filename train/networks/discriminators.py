"""Discriminators: images -> logits, no sigmoid; the adversarial loss applies what it needs."""

from torch import Tensor, nn

from unblur.train.networks.blocks import normalise_spectrally

_LEAK = 0.2


class PatchDiscriminator(nn.Module):
    """The Markovian discriminator (PatchGAN) of Pix2Pix, Isola et al. 2017: one logit for every patch.

    Images (N, 3, H, W) in [0, 1], H and W at least 32, give logits (N, 1, H / 8 - 2, W / 8 - 2), each for a patch
    of 70 x 70 pixels. The paper averages them; so do the losses, as a mean over the map.

    Instance norm instead of the paper's batch norm: the penalty of WGAN-GP is per image, and batch norm mixes them.
    width: channels of the first layer, up to 8 times as many in the last. spectral_norm: on every layer.
    """

    def __init__(self, width: int = 64, *, spectral_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            *_layer(width, 2 * width, stride=2),
            *_layer(2 * width, 4 * width, stride=2),
            *_layer(4 * width, 8 * width, stride=1),
            nn.Conv2d(8 * width, 1, 4, 1, 1),
        )
        if spectral_norm:
            normalise_spectrally(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def _layer(inputs: int, outputs: int, *, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False)  # the norm removes any bias
    return conv, nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(_LEAK)
