"""Every system of the seeds, small, from a checkpoint to restored pictures, by the commands that people type."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from unblur.export import cli
from unblur.runtime import cli_run, cli_verify
from unblur.runtime.bundle import read_bundle
from unblur.runtime.engine_record import find_engines
from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.images import read_image, write_image
from unblur.runtime.spec import OptionValue
from unblur.train.checkpoint import load_network, save_network
from unblur.train.networks import PRESETS, DeblurringNetwork, build_network
from unblur.train.recipe import recipe_of

SMALL: Mapping[str, dict[str, OptionValue]] = {
    "lprn": {"width": 8, "blocks": 1, "steps": 2, "grid": 4},
    "srn": {"width": 8, "blocks": 1, "kernel": 3, "scales": 2},
    "msr-gan": {"width": 8, "blocks": 1, "msrbs": 1, "scales": 2},
    "msrm-dffm": {"width": 8, "blocks": 1},
    "pix2pix": {"width": 8, "depth": 4},
    "rir": {"width": 8, "levels": 2},
    "deblurgan": {"width": 8, "blocks": 1},
}
"""By system; each is deployed as the preset of its own name."""


def test_no_system_is_forgotten() -> None:
    assert {preset.system for preset in PRESETS.values()} == set(SMALL)


@pytest.mark.parametrize("system", SMALL)
def test_checkpoint_to_restored_picture(
    system: str, calibration_folder: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = tmp_path / "network.safetensors", tmp_path / "small.unblur"
    save_network(checkpoint, made_up(system), recipe_of(system, system), ("made up",))

    deployed = unblur("deploy", checkpoint, "--calibration", calibration_folder, "--steps", "", "-o", bundle)
    psnr_db = {hop["name"]: hop["psnr_db"] for hop in deployed["hops"]}
    assert psnr_db["torch -> fp32"] >= 80
    assert list(psnr_db) == ["torch -> fp32", "fp32 -> fp16", "fp16 -> int8"]
    assert read_bundle(bundle).manifest.spec.system == system

    built = unblur("build", bundle, "--target", "rtx-sm86", "--size", "64x96", "--level", "0")
    assert [Path(built["engine"])] == find_engines(bundle)

    verified = unblur("verify", bundle, "--pairs", pairs_folder)
    assert verified["pairs"] == 2
    assert verified["pass"]

    tiny = np.ascontiguousarray(read_image(next(calibration_folder.iterdir()))[:11, :7])
    write_image(tmp_path / "tiny.png", tiny)
    sink = tmp_path / "restored.png"
    unblur("run", bundle, "--precision", "fp32", "--source", tmp_path / "tiny.png", "--sink", sink)
    expected = restore(load_network(checkpoint), tiny).astype(int)
    assert np.abs(read_image(sink) - expected).max() <= 1


def restore(network: DeblurringNetwork, frame: Frame) -> Frame:
    """By torch, padded as the spec says."""
    padding = Padding.to_multiple(frame.shape[:2], network.spec.multiple_of)
    with torch.no_grad():
        output = network(torch.from_numpy(batch_from_frame(frame, padding)))
    return frame_from_batch(output.numpy(), padding)


def made_up(system: str) -> DeblurringNetwork:
    """Random weights. The last convolution is weak, as in a trained network: it corrects, or makes a dull image."""
    torch.manual_seed(0)
    network = build_network(system, **SMALL[system])
    *_, last = (part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d))
    nn.init.normal_(last.weight, std=0.01)
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 64, 64))  # statistics of batch norm
    return network.eval()


def unblur(*arguments: object) -> Any:
    """The JSON document of a command that succeeds; errors pass through."""
    app = typer.Typer()
    for room in (cli, cli_run, cli_verify):
        room.register(app)
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
