"""The perceptual loss against plain numpy, and what it says about weights it cannot use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.train.losses import Conv33Features, perceptual_loss

_CHANNELS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}


@pytest.fixture(scope="module")
def state_dict() -> dict[str, Tensor]:
    """As torchvision saves VGG19, with random weights; one later layer to be ignored."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for index, (inputs, outputs) in {**_CHANNELS, 16: (256, 256)}.items():
        weight = torch.randn((outputs, inputs, 3, 3), generator=generator)
        tensors[f"features.{index}.weight"] = weight * (2 / (9 * inputs)) ** 0.5
        tensors[f"features.{index}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return tensors


@pytest.fixture
def weights(state_dict: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(state_dict, tmp_path / "vgg19.pth")
    return tmp_path / "vgg19.pth"


def numpy_features(image: NDArray[np.float64], tensors: dict[str, Tensor]) -> NDArray[np.float64]:
    """(3, H, W) in [0, 1] -> conv3_3."""
    x = (image - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    for index in _CHANNELS:
        if index in (5, 10):  # behind a pooling layer
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
        windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
        weight = tensors[f"features.{index}.weight"].double().numpy()
        x = np.einsum("ihwyx,oiyx->ohw", windows, weight, optimize=True)
        x += tensors[f"features.{index}.bias"].double().numpy()[:, None, None]
        if index != 14:
            x = np.maximum(x, 0)
    return x


def test_it_is_the_mean_square_of_conv3_3_features(weights: Path, state_dict: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    restored, sharp = (torch.rand((1, 3, 8, 12), generator=generator) for _ in range(2))
    first, second = (numpy_features(image[0].double().numpy(), state_dict) for image in (restored, sharp))
    loss = perceptual_loss(weights)(restored, sharp)
    np.testing.assert_allclose(loss.item(), ((first - second) ** 2).mean(), rtol=1e-4)


def test_it_trains_the_image_and_not_the_features(weights: Path) -> None:
    loss = perceptual_loss(weights)
    restored = torch.rand((1, 3, 8, 8), requires_grad=True)
    loss(restored, torch.rand((1, 3, 8, 8))).backward()
    assert restored.grad is not None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_safetensors_do_as_well(weights: Path, state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state_dict, tmp_path / "vgg19.safetensors")
    image = torch.rand((1, 3, 8, 8))
    expected = perceptual_loss(weights).features(image)
    torch.testing.assert_close(perceptual_loss(tmp_path / "vgg19.safetensors").features(image), expected)


def test_no_weights_is_told_with_where_to_get_them() -> None:
    with pytest.raises(
        BadInput, match=r"needs the weights of VGG19, and none were given: get https://.*--vgg FILE"
    ):
        perceptual_loss(None)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"vgg\.pth does not exist; expected the weights of VGG19, https://"):
        perceptual_loss(tmp_path / "vgg.pth")


def test_another_network_is_named_by_its_first_difference(tmp_path: Path) -> None:
    foreign = {**Conv33Features().state_dict(), "features.5.weight": torch.zeros(1)}
    torch.save(foreign, tmp_path / "vgg16.pth")
    with pytest.raises(SpecMismatch, match=r"has no tensor 'features\.5\.weight' of the shape \(128, 64, 3, 3\)"):
        perceptual_loss(tmp_path / "vgg16.pth")


@pytest.mark.parametrize("name", ["vgg19.pth", "vgg19.safetensors"])
def test_a_damaged_file_is_one_line(weights: Path, name: str) -> None:
    damaged = weights.with_name(name)
    damaged.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"cannot be read as weights .* again") as caught:
        perceptual_loss(damaged)
    assert "\n" not in str(caught.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Path("an object")}, tmp_path / "vgg19.pth")
    with pytest.raises(BadInput, match="cannot be read as weights"):
        perceptual_loss(tmp_path / "vgg19.pth")


def test_a_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "vgg19.pth")
    with pytest.raises(SpecMismatch, match="holds a Tensor, expected the state dict"):
        perceptual_loss(tmp_path / "vgg19.pth")
