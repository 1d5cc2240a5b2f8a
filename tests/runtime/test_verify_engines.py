"""`unblur verify` and the engines of a bundle: whole, made from it, and right where they run."""

import json
from pathlib import Path

import pytest
import typer
from engine_workshop import Workshop
from typer.testing import CliRunner

from unblur.runtime.cli import verify as cli_verify
from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.quality import verify as engine_checks
from unblur.runtime.quality.verify import check_engines, verify


def call(bundle: Path, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(cli_verify.verify)
    result = CliRunner().invoke(app, [str(bundle), *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_an_engine_that_runs_here_is_run(workshop: Workshop) -> None:
    engine = workshop.build_variant()
    code, text = call(workshop.folder.parent, "--json")
    (found,) = json.loads(text)["engines"]
    assert (code, found["name"], found["verdict"], found["threshold_db"]) == (0, engine.name, "passed", 50)
    assert 90 < found["psnr_db"] < 110
    assert workshop.module.executions == 2
    assert f"Engine {engine.name}: " in call(workshop.folder.parent)[1]


def test_an_engine_that_computes_something_else_fails(workshop: Workshop) -> None:
    workshop.build_variant(bias=0.05)
    (found,) = check_engines(read_bundle(workshop.folder.parent))
    assert found.verdict == "failed"
    assert found.reason == "against fp16.onnx: 26.0 dB from its reference, expected at least 50 dB; build it again"
    code, text = call(workshop.folder.parent)
    assert code == 1
    assert "FAILED: against fp16.onnx: 26.0 dB" in text


def test_an_engine_that_the_gpu_refuses_fails(workshop: Workshop) -> None:
    workshop.build_variant()
    workshop.module.fails = "Error Code 1: Cask"
    (found,) = check_engines(read_bundle(workshop.folder.parent))
    assert (found.verdict, found.reason) == ("failed", "TensorRT 10.3.0 refused to execute: Error Code 1: Cask")


def test_an_engine_of_another_device_is_told_and_no_fault(workshop: Workshop) -> None:
    workshop.build_variant()
    workshop.trt.version = "10.7.0"
    code, text = call(workshop.folder.parent)
    assert code == 0
    assert "not run here: the TensorRT version differs: the engine is for 10.3.0" in text


def test_without_a_driver_an_engine_is_read_but_not_run(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise DeviceError("there is no CUDA driver")

    workshop.build_variant()
    monkeypatch.setattr(engine_checks, "open_cuda", no_driver)
    result = verify(workshop.folder.parent)
    assert result.passed
    assert [(each.verdict, each.reason) for each in result.engines] == [("not run", "there is no CUDA driver")]


def test_a_truncated_engine_fails(workshop: Workshop) -> None:
    engine = workshop.build_variant()
    engine.write_bytes(engine.read_bytes()[:-1])
    (found,) = check_engines(read_bundle(workshop.folder.parent))
    assert found.verdict == "failed"
    assert "bytes, expected" in found.reason


def test_an_engine_under_another_name_fails(workshop: Workshop) -> None:
    engine = workshop.build_variant()
    engine.with_suffix(".json").rename(engine.with_name("renamed.json"))
    (found,) = check_engines(read_bundle(engine.rename(engine.with_name("renamed.engine")).parent.parent))
    assert f"describes the engine {engine.stem}, not renamed" in found.reason


def test_an_engine_of_other_weights_fails(workshop: Workshop) -> None:
    workshop.build_variant(onnx_sha256="0" * 64)
    (found,) = check_engines(read_bundle(workshop.folder.parent))
    assert found.reason == "it was built from another fp16.onnx; remove it and build it again"
    assert workshop.module.executions == 0


def test_implicit_int8_is_made_from_fp32(workshop: Workshop) -> None:
    fp32 = read_bundle(workshop.folder.parent).manifest.files["fp32.onnx"].sha256
    workshop.build_variant("int8", onnx_sha256=fp32, calibration_sha256="1" * 64)
    (found,) = check_engines(read_bundle(workshop.folder.parent))
    assert found.verdict == "passed"


def test_a_single_engine_points_to_its_bundle(workshop: Workshop, tmp_path: Path) -> None:
    engine = workshop.build_variant()
    with pytest.raises(BadInput, match=f"is a single engine; verify {workshop.folder.parent}$"):
        verify(engine)
    with pytest.raises(BadInput, match="is a single engine; verify the bundle it was built for"):
        verify(tmp_path / "lonely.engine")
