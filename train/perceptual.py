"""The perceptual loss: images are compared by the features of VGG19 at conv3_3 (seed 004, 4.1.7; DeblurGAN).

VGG19 was trained on ImageNet, and its weights are nobody's to put into this package. They are what torchvision
saves: a state dict whose tensors are called "features.0.weight" and so on, as .pth or as .safetensors.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.errors import BadInput, SpecMismatch

WEIGHTS_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1]
_DEVIATION = (0.229, 0.224, 0.225)


class Conv33Features(nn.Module):
    """VGG19 from the image to conv3_3, before its ReLU (Simonyan and Zisserman 2015, table 1, column E).

    Takes RGB (N, 3, H, W) in [0, 1] with H, W >= 4; gives (N, 256, H // 4, W // 4). Frozen.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(  # torchvision's numbering
            *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
            nn.MaxPool2d(2),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()),
            nn.MaxPool2d(2),
            *(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            nn.Conv2d(256, 256, 3, padding=1),
        )
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features((images - self.mean) / self.deviation)
        return features


class PerceptualLoss(nn.Module):
    """Mean squared difference of the features of two images (seed 004, equation 7)."""

    def __init__(self, features: Conv33Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return F.mse_loss(self.features(restored), self.features(sharp))


def perceptual_loss(path: Path | None) -> PerceptualLoss:
    """The loss with the weights in `path`.

    Raises BadInput if there is no such file or it cannot be read, SpecMismatch if it holds another network.
    """
    if path is None:
        raise BadInput(
            "this recipe has a perceptual loss, which needs the weights of VGG19, and none were given: get "
            f"{WEIGHTS_URL} and pass --vgg FILE, or train with --content l1"
        )
    features = Conv33Features()
    wanted = features.state_dict()
    found = _read(path)
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            raise SpecMismatch(
                f"{path} has no tensor '{name}' of the shape {tuple(tensor.shape)}; expected the state dict of "
                f"torchvision's vgg19, {WEIGHTS_URL}"
            )
    features.load_state_dict({name: found[name] for name in wanted})
    return PerceptualLoss(features.eval())


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected the weights of VGG19, {WEIGHTS_URL}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read as weights ({reason}); get {WEIGHTS_URL} again") from error
    if not isinstance(loaded, dict):
        raise SpecMismatch(
            f"{path} holds a {type(loaded).__name__}, expected the state dict of torchvision's vgg19"
        )
    return loaded
