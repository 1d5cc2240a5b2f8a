"""Factories of three published networks, each from a folder with its authors' code, which is not part of unblur.

    unblur export benchmarks.own_network_nets:dmphn --set folder=DMPHN-cvpr19-master -o dmphn.onnx

NAFNet: github.com/megvii-research/NAFNet. MIMO-UNet: github.com/chosj95/MIMO-UNet. DMPHN, with trained weights:
github.com/HongguangZhang/DMPHN-cvpr19-master. So much a user writes whose network is not one class of one file.
"""

import logging
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn


def nafnet(folder: str, width: int = 32) -> nn.Module:
    """NAFNet for GoPro with random weights; its blocks, which are born switched off, are switched on."""
    for name, inside in (("", ""), (".models", "models"), (".models.archs", "models/archs")):
        package = ModuleType(f"basicsr{name}")  # without its __init__, which wants OpenCV and lmdb
        package.__path__ = [str(Path(folder) / "basicsr" / inside)]
        sys.modules[package.__name__] = package
    sys.modules["basicsr.utils"] = utils = ModuleType("basicsr.utils")
    utils.get_root_logger = logging.getLogger  # type: ignore[attr-defined]
    architecture = import_module("basicsr.models.archs.NAFNet_arch")
    network: nn.Module = architecture.NAFNet(3, width, 1, [1, 1, 1, 28], [1, 1, 1, 1])
    for name, parameter in network.named_parameters():
        if name.endswith((".beta", ".gamma")):
            nn.init.normal_(parameter, std=0.1)
    return network


def mimo(folder: str) -> nn.Module:
    """MIMO-UNet with random weights; it has outputs at a quarter, at half and at full size."""
    return _from(folder, "models.MIMOUNet").MIMOUNet()  # type: ignore[no-any-return]


def dmphn(folder: str, weights: str = "checkpoints/DMPHN_1_2_4") -> nn.Module:
    """DMPHN(1-2-4) with its authors' weights."""
    return DMPHN(_from(folder, "models"), Path(folder) / weights)


def _from(folder: str, name: str) -> ModuleType:
    sys.path.insert(0, folder)
    sys.modules.pop("models", None)  # both repositories have one of that name
    return import_module(name)


class DMPHN(nn.Module):
    """The whole image, its halves and its quarters through an encoder and a decoder each: DMPHN_1_2_4_test.py.

    Takes and gives values from -0.5 to 0.5.
    """

    def __init__(self, models: ModuleType, weights: Path) -> None:
        super().__init__()
        for part in ("encoder", "decoder"):
            levels = [getattr(models, part.title())() for _ in range(3)]
            for level, network in enumerate(levels, 1):
                network.load_state_dict(torch.load(weights / f"{part}_lv{level}.pkl", "cpu", weights_only=True))
            setattr(self, part, nn.ModuleList(levels))

    def forward(self, blurred: Tensor) -> Tensor:
        """(N, 3, H, W), the sides multiples of 8."""
        encode, decode = list(self.encoder), list(self.decoder)  # type: ignore[arg-type]
        height, width = blurred.shape[2] // 2, blurred.shape[3] // 2
        halves = blurred[:, :, :height], blurred[:, :, height:]
        rows = [torch.cat([encode[2](half[..., :width]), encode[2](half[..., width:])], 3) for half in halves]
        upper = [encode[1](half + decode[2](row)) for half, row in zip(halves, rows, strict=True)]
        features = torch.cat(upper, 2) + torch.cat(rows, 2)
        restored: Tensor = decode[0](encode[0](blurred + decode[1](features)) + features)
        return restored
