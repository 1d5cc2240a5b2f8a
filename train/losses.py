"""The content losses: how far restored images are from the sharp one.

Multi-scale networks give outputs of several sizes, each with a target of its size: see `DeblurringNetwork.targets`.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.train.networks.base import DeblurringNetwork
from unblur.train.recipe import LossTerm, OverOutputs

Loss = Callable[[Tensor, Tensor], Tensor]


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D spectra, real and imaginary parts apart (Cho et al. 2021, MIMO-UNet).

    The transform is not normalised, as in the papers: the 0.1 they weigh it with belongs to that scale.
    """
    difference = torch.fft.rfft2(restored - sharp)
    return torch.view_as_real(difference).abs().mean()


def spectrum_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """`fft_l1` of the orthonormal transform: of the size of the mean absolute difference, whatever the crop."""
    difference = torch.fft.rfft2(restored - sharp, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def over_outputs(loss: Loss, outputs: Sequence[Tensor], targets: Sequence[Tensor], how: OverOutputs) -> Tensor:
    """Sum or mean over the outputs of `loss`, each against its target; "rising" weighs the t-th by t."""
    per_output = torch.stack([loss(output, target) for output, target in zip(outputs, targets, strict=True)])
    if how == "rising":
        weights = torch.arange(1, len(per_output) + 1, device=per_output.device)
        return (weights * per_output).sum() / weights.sum()
    return per_output.sum() if how == "sum" else per_output.mean()


class ContentLoss(nn.Module):
    """The weighted terms of a recipe, over all outputs of a network.

    perceptual: the loss behind the term of that name, see `unblur.train.losses`.
    Raises ValueError if a term needs it and it is None.
    """

    def __init__(self, terms: Sequence[LossTerm], how: OverOutputs, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.how: OverOutputs = how
        known: Mapping[str, Loss | None] = {
            "l1": F.l1_loss,
            "l2": F.mse_loss,
            "fft_l1": fft_l1,
            "spectrum_l1": spectrum_l1,
            "perceptual": perceptual,
        }
        self._terms: list[tuple[LossTerm, Loss]] = []
        for term in terms:
            loss = known[term.kind]
            if loss is None:
                raise ValueError("a perceptual term needs a perceptual loss")
            self._terms.append((term, loss))

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor], iteration: int = 0) -> Tensor:
        """The weighted sum of the terms that are due at this iteration; at 0 all are."""
        parts = [
            term.weight * term.every * over_outputs(loss, outputs, targets, self.how)
            for term, loss in self._terms
            if iteration % term.every == 0
        ]
        return torch.stack(parts).sum()


class SupervisedNetwork(nn.Module):
    """A network and its loss as one module, so that distributed wrappers see one forward per step.

    bf16: let the network compute in bfloat16 (autocast); the loss is taken in float32.
    """

    def __init__(self, network: DeblurringNetwork, content: ContentLoss, *, bf16: bool = False) -> None:
        super().__init__()
        self.network = network
        self.content = content
        self.bf16 = bf16

    def forward(self, blurred: Tensor, sharp: Tensor, iteration: int = 0) -> tuple[Tensor, Tensor]:
        """The loss, and the full-scale restored image for a discriminator."""
        with torch.autocast(blurred.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.network.restorations(blurred)
        outputs = [output.float() for output in outputs]
        return self.content(outputs, self.network.targets(sharp, outputs), iteration), outputs[-1]


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
    """Mean squared difference of the features of two images ("Blind Deblurring using GANs", equation 7)."""

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
