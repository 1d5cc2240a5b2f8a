"""Every system of the seeds, small, from a checkpoint to restored pictures, by the commands that people type."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import GraphProto
from torch import nn
from typer.testing import CliRunner

from unblur.calibration.onnx_model import read_onnx
from unblur.calibration.placement import layer_macs
from unblur.runtime.cli.main import app
from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.images import read_image, write_image
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.profile.layers import by_stage
from unblur.runtime.profile.layers_onnx import onnx_layers
from unblur.runtime.spec import OptionValue
from unblur.runtime.tensorrt.engine_file import find_engines
from unblur.train.checkpoint import load_checkpoint, save_checkpoint
from unblur.train.networks import PRESETS, DeblurringNetwork, build_network
from unblur.train.recipe import recipe_of

SMALL: Mapping[str, dict[str, OptionValue]] = {
    "lprn": {"width": 8, "blocks": 1, "steps": 2, "grid": 4},
    "lprn-s": {"width": "8,16", "blocks": "1,1,1"},
    "srn": {"width": 8, "blocks": 1, "kernel": 3, "scales": 2},
    "msr-gan": {"width": 8, "blocks": 1, "msrbs": 1, "scales": 2},
    "msrm-dffm": {"width": 8, "blocks": 1},
    "pix2pix": {"width": 8, "depth": 4},
    "rir": {"width": 8, "levels": 2},
    "deblurgan": {"width": 8, "blocks": 1},
}
"""By preset: every system, and LPRN with both of its base networks."""

NAMED: Mapping[str, tuple[str, ...]] = {
    "lprn": ("embed/Conv", "step1/head/Conv", "step2/head/Conv"),
    "lprn-s": ("embed/Conv", "step1/body.down.0/Conv", "step1/body.up.0/ConvTranspose", "step1/reconstruct/Conv"),
    "srn": ("step1/networks.0.output.1/Conv", "step1/networks.0.output.1/Resize", "step2/networks.0.output.1/Conv",
            "step2/networks.0.bottleneck.from_hidden/Conv", "step2/networks.0.bottleneck.from_hidden/Split"),
    "msr-gan": ("step1/networks.0.msrbs.0.fuse/Conv", "step2/networks.1.bottleneck/Conv",
                "step1/networks.0.head/AveragePool"),
    "msrm-dffm": ("head.0/Conv", "encode.0.0.depthwise/Split", "reconstruct.0/Conv"),
    "pix2pix": ("encode.1.0/Conv", "encode.1.0/Relu", "reconstruct/Sigmoid"),
    "rir": ("head.0/Conv", "encode.0.shortcut/Conv"),
    "deblurgan": ("encoder.0/Pad", "encoder.1/Conv", "encoder.2/InstanceNormalization", "reconstruct/Tanh"),
}  # fmt: skip
"""By preset: some of the nodes, by module and by recursion step or scale."""


def test_no_system_is_forgotten() -> None:
    assert {preset.system for preset in PRESETS.values()} == {PRESETS[name].system for name in SMALL}


@pytest.mark.parametrize("preset", SMALL)
def test_checkpoint_to_restored_picture(
    preset: str, calibration_folder: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = tmp_path / "network.safetensors", tmp_path / "small.unblur"
    save_checkpoint(checkpoint, made_up(preset), recipe_of(preset), ("made up",))

    deployed = unblur("deploy", checkpoint, "--calibration", calibration_folder, "--steps", "", "-o", bundle)
    psnr_db = {hop["name"]: hop["psnr_db"] for hop in deployed["hops"]}
    assert psnr_db["torch -> fp32"] >= 80
    assert list(psnr_db) == ["torch -> fp32", "fp32 -> fp16", "fp16 -> int8"]
    assert read_bundle(bundle).manifest.spec.preset == preset
    check_names(read_onnx(bundle / "fp32.onnx").graph, NAMED[preset])
    check_layers(bundle / "fp32.onnx")

    built = unblur("build", bundle, "--target", "rtx-sm86", "--size", "64x96", "--level", "0")
    assert [Path(built["engine"])] == find_engines(bundle)

    verified = unblur("verify", bundle, "--pairs", pairs_folder)
    assert verified["pairs"] == 2
    assert verified["integrity"]

    tiny = np.ascontiguousarray(read_image(next(calibration_folder.iterdir()))[:11, :7])
    write_image(tmp_path / "tiny.png", tiny)
    sink = tmp_path / "restored.png"
    unblur("run", bundle, "--precision", "fp32", "--source", tmp_path / "tiny.png", "--sink", sink)
    expected = restore(load_checkpoint(checkpoint), tiny).astype(int)
    assert np.abs(read_image(sink) - expected).max() <= 1


def check_names(graph: GraphProto, expected: Sequence[str]) -> None:
    """Every node has its own, every tensor that of its node."""
    names = [node.name for node in graph.node]
    assert set(expected) <= set(names)
    assert len(set(names)) == len(names)
    tensors = [tensor for node in graph.node for tensor in node.output]
    assert len(set(tensors)) == len(tensors)
    for node in graph.node:
        assert node.output[0] in (node.name, "restored")
        assert list(node.output[1:]) == [f"{node.name}:{part}" for part in range(1, len(node.output))]


def check_layers(path: Path) -> None:
    """ONNX Runtime runs every convolution of a module once a step, with the work that its weights ask for."""
    layers = onnx_layers(path, (1, 3, 64, 96), threads=1, runs=1)
    convolutions = [layer for layer in layers if layer.operator.endswith(("Conv", "ConvTranspose"))]
    assert len({(layer.stage, layer.step) for layer in convolutions}) == len(convolutions)
    flops = {f"{stage}.weight": total.flops for stage, total in by_stage(convolutions).items()}
    assert flops == {weight: 2 * macs for weight, macs in layer_macs(read_onnx(path), (64, 96)).items()}


def restore(network: DeblurringNetwork, frame: Frame) -> Frame:
    """By torch, padded as the spec says."""
    padding = Padding.to_multiple(frame.shape[:2], network.spec.multiple_of)
    with torch.no_grad():
        output = network(torch.from_numpy(batch_from_frame(frame, padding)))
    return frame_from_batch(output.numpy(), padding)


def made_up(preset: str) -> DeblurringNetwork:
    """Random weights. The last convolution is weak, as in a trained network: it corrects, or makes a dull image."""
    torch.manual_seed(0)
    network = build_network(preset, **SMALL[preset])
    *_, last = (part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d))
    for part in network.modules():
        if part is last or (isinstance(part, nn.Conv2d) and not part.weight.any()):
            nn.init.normal_(part.weight, std=0.005 if preset == "deblurgan" else 0.01)
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 64, 64))  # statistics of batch norm
    return network.eval()


def unblur(*arguments: object) -> Any:
    """The JSON document of a command that succeeds; errors pass through."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == (1 if arguments[0] == "verify" else 0), result.output
    return json.loads(result.stdout)
