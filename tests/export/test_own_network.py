"""Networks that unblur did not write, from a factory to ONNX: small ones with the traits of well-known ones."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from unblur.calibration.onnx_model import read_onnx
from unblur.export import export_onnx
from unblur.export.module_spec import shape_of_module
from unblur.export.source_model import find_source
from unblur.export.torch_module import load_weights, module_from_factory, settings_from_text
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.spec import ModelSpec

NETS = '''
import torch
from torch import nn

class LayerNorm2d(nn.Module):
    """Over the channels of each pixel, as restoration networks use it."""
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
    def forward(self, x):
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return y * self.weight[:, None, None] + self.bias[:, None, None]

class Gated(nn.Module):
    """Halves the image, gates with global pooling, and adds to its input."""
    def __init__(self, width=8):
        super().__init__()
        self.head, self.norm = nn.Conv2d(3, width, 3, 2, 1), LayerNorm2d(width)
        self.pool, self.up = nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(width // 2, 3, 4, 2, 1)
    def forward(self, x):
        a, b = self.norm(self.head(x)).chunk(2, 1)
        return x + self.up(a * b * self.pool(a))

class Three(nn.Module):
    """Outputs at a quarter, half and the whole size."""
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(3))
    def forward(self, x):
        half = nn.functional.interpolate(x, scale_factor=0.5)
        quarter = nn.functional.interpolate(half, scale_factor=0.5)
        return [conv(image) for conv, image in zip(self.convs, (quarter, half, x))]

class Same(nn.Module):
    def forward(self, x):
        return {"a": x + 1, "b": x}

class Classifier(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def broken(width):
    raise RuntimeError("no width\\nfits")

def number():
    return 3

VALUE = 3
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of somebody else, in the working directory."""
    (tmp_path / "their_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_nets", raising=False)
    return "their_nets"


def unblur(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_factory_with_weights_becomes_onnx(nets: str, tmp_path: Path) -> None:
    trained = module_from_factory(f"{nets}:Gated", {"width": 4})
    nn.init.normal_(next(trained.parameters()))
    torch.save(
        {"params_ema": {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}}, "best.pth"
    )
    output = tmp_path / "net.onnx"
    result = unblur(
        "export",
        f"{nets}:Gated",
        "--weights",
        "best.pth",
        "--set",
        "width=4",
        *("--value-range=0,1", "-o"),
        output,
        "--json",
    )
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["parity_db"] > 90
    model = read_onnx(output)
    assert (model.spec.system, model.spec.preset, model.spec.multiple_of) == ("foreign", "Gated", 2)
    assert (model.input, model.output, model.precision) == ("blurred", "restored", "fp32")
    images = np.random.default_rng(0).random((1, 3, 34, 46), np.float32)
    with OnnxRunner(output) as runner, torch.inference_mode():
        np.testing.assert_allclose(runner.infer(images), trained(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_the_output_of_the_size_of_the_image_is_exported(nets: str, tmp_path: Path) -> None:
    module = module_from_factory(f"{nets}:Three")
    exported = export_onnx(module, output=tmp_path / "three.onnx")
    assert exported.spec.multiple_of == 1
    assert exported.parity.name == "torch -> fp32"
    graph = read_onnx(exported.path).graph
    assert [value.name for value in graph.output] == ["restored"]
    assert sum(node.op_type == "Conv" for node in graph.node) == 1  # what only the others need is dropped


def test_a_spec_of_the_caller_is_kept(nets: str, tmp_path: Path) -> None:
    spec = ModelSpec("mine", "gated", 1, 8, 0, "global", licence="MIT")
    exported = export_onnx(module_from_factory(f"{nets}:Gated"), spec, output=tmp_path / "net.onnx")
    assert read_onnx(exported.path).spec == spec


def test_several_outputs_of_the_size_of_the_image_are_listed(nets: str) -> None:
    with pytest.raises(SpecMismatch, match=r"several outputs of the size of the image \(0: 1 x 3 x 49"):
        shape_of_module(module_from_factory(f"{nets}:Same"), "same")
    assert shape_of_module(module_from_factory(f"{nets}:Same"), "same", output=1).output == 1


def test_a_classifier_is_refused(nets: str) -> None:
    with pytest.raises(SpecMismatch, match=r"Classifier does not restore an image .* it made 0: 1 x 4"):
        find_source(f"{nets}:Classifier")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_package:net", "cannot import no_such_package:net: .*; install it, or run in its folder"),
        ("their_nets:Nothing", "cannot import their_nets:Nothing: .* has no attribute 'Nothing'"),
        ("their_nets:VALUE", "their_nets:VALUE is a int, expected a class or a function"),
        ("their_nets:number", "their_nets:number returned a int, expected a torch.nn.Module"),
        ("their_nets:broken", "their_nets:broken failed: TypeError: .*; check it and --set"),
    ],
)
def test_factories_that_make_no_network(nets: str, factory: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        module_from_factory(factory)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_nets.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match="faulty_nets failed when it was imported: ZeroDivisionError"):
        module_from_factory("faulty_nets:net")


def test_settings() -> None:
    assert settings_from_text(["width=32", "act=gelu", "blocks=[1, 2]"]) == {
        "width": 32,
        "act": "gelu",
        "blocks": [1, 2],
    }
    with pytest.raises(BadInput, match="--set is 'width', expected NAME=VALUE such as width=32"):
        settings_from_text(["width"])


@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("params",), ("model", "state_dict")])
def test_state_dicts_are_found_in_their_nestings(nesting: tuple[str, ...], tmp_path: Path) -> None:
    saved: object = {name: tensor + 1 for name, tensor in nn.Conv2d(3, 3, 1).state_dict().items()}
    for key in reversed(nesting):
        saved = {key: saved, "epoch": 3}
    torch.save(saved, tmp_path / "w.pth")
    module = nn.Conv2d(3, 3, 1)
    load_weights(module, tmp_path / "w.pth")
    assert module.bias is not None
    assert float(module.bias.detach().min()) > 0.4


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 3, 1, 1), "gamma": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(SpecMismatch, match="does not match the network: bias missing; gamma unexpected; check"):
        load_weights(nn.Conv2d(3, 3, 1), tmp_path / "w.pth")
    with pytest.raises(SpecMismatch, match="weight of another shape"):
        load_weights(nn.Conv2d(3, 3, 3), tmp_path / "w.pth")


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    module, path = nn.Conv2d(3, 3, 1), tmp_path / "w.pth"
    with pytest.raises(BadInput, match=r"w\.pth does not exist; expected weights"):
        load_weights(module, path)
    torch.save(module, path)
    with pytest.raises(BadInput, match=r"a whole pickled module, .*, save the weights alone"):
        load_weights(module, path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(BadInput, match="holds a dict with the keys epoch, expected a state dict"):
        load_weights(module, path)
    path.write_bytes(b"PK damaged")
    with pytest.raises(BadInput, match=r"w\.pth (is damaged|holds more)"):
        load_weights(module, path)
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    with pytest.raises(BadInput, match="is not a whole safetensors file"):
        load_weights(module, tmp_path / "w.safetensors")


def test_weights_belong_to_a_factory(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--weights and --set belong to a factory such as my_package\.nets"):
        find_source("lprn-n", weights=tmp_path / "w.pth")


def test_a_factory_has_no_steps(nets: str) -> None:
    with pytest.raises(BadInput, match="has no recursion steps to choose, --steps asks for 3; leave it out"):
        find_source(f"{nets}:Gated", steps=3)


def test_a_network_that_torch_cannot_export(tmp_path: Path) -> None:
    class Stubborn(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(BadInput, match="torch cannot export Stubborn: ") as caught:
        export_onnx(Stubborn(), output=tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
