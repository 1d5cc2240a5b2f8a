"""A profile looks inside whatever runs: an ONNX file on the CPU, an engine on a GPU in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine_workshop import Workshop
from rich.console import Console

from unblur.runtime.errors import BadInput
from unblur.runtime.profile import profile_model as profile_layers
from unblur.runtime.profile import roofline as gpu_peaks
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.layers_tensorrt import engine_layers
from unblur.runtime.profile.measure import Control, Plan, profile_runner
from unblur.runtime.profile.profile_model import ModelChoice, ProfileRequest, add_layers, profile_model
from unblur.runtime.profile.text import layer_tables
from unblur.runtime.runner import Runner, RunnerOptions

PLAN = Plan((64, 96), seconds=0.1, warm_up_s=0.1, telemetry=False)
REPORT = Path(__file__).parent / "inspector/tensorrt-10.json"


def screen(profile: Profile) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        for table in layer_tables(profile):
            console.print(table)
    return captured.get()


def test_layers_on_the_roofline_of_this_cpu_and_why_int8_is_not_faster(tiny_bundle: Path) -> None:
    choice = ModelChoice(str(tiny_bundle), RunnerOptions(precision="int8", threads=1))
    profile = profile_model(ProfileRequest(choice, PLAN, layers=True), Control())
    assert profile.layers is not None
    assert profile.roofline is not None
    assert [each.name for each in profile.roofline.layers] == [layer.name for layer in profile.layers]
    assert all(0 <= each.attained <= 1 for each in profile.roofline.layers)
    assert profile.roofline.peaks.gflops["fp32"] > 1
    convolutions = [layer for layer in profile.layers if "Conv" in layer.operator]
    assert len(convolutions) == 4
    assert profile.int8_advice
    text = screen(profile)
    assert "Why INT8 is not faster" in text
    assert "GFLOP/s" in text


def test_a_model_without_int8_gets_no_advice(make_onnx: Callable[..., Path]) -> None:
    choice = ModelChoice(str(make_onnx(steps=1)), RunnerOptions(threads=1))
    profile = profile_model(ProfileRequest(choice, PLAN, layers=True), Control())
    assert profile.layers
    assert profile.int8_advice is None
    assert "INT8" not in screen(profile)


def test_layers_of_an_engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_layers, "open_cuda", lambda: workshop.cuda)
    monkeypatch.setattr(gpu_peaks, "multiprocessors_and_mhz", lambda device: (128, 2520.0))
    monkeypatch.setattr(gpu_peaks, "_COPIED_BYTES", 1 << 20)  # buffers that take no time to make
    names = [layer.name for layer in engine_layers(REPORT.read_text())]
    workshop.build_variant("int8", inspection=REPORT.read_text(), layer_ms=dict.fromkeys(names, 0.25))
    request = ProfileRequest(ModelChoice(str(workshop.folder.parent)), replace(PLAN, tensor=True), layers=True)
    profile = profile_model(request, Control())
    assert profile.device.startswith("cuda:0")
    assert profile.timing is not None
    assert profile.layers is not None
    assert [layer.name for layer in profile.layers] == names
    assert profile.roofline is not None
    assert "128 multiprocessors at 2520 MHz" in profile.roofline.peaks.source
    assert profile.int8_advice
    assert "step" in screen(profile)


def test_a_runner_that_nothing_can_look_into(fake_runner: Callable[..., Runner]) -> None:
    runner = fake_runner(lambda batch: batch)
    profile = profile_runner(runner, PLAN)
    with pytest.raises(BadInput, match=r"^the layers of a model on fake cannot be timed; take --device cpu or"):
        add_layers(profile, runner, None)
