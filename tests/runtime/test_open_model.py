"""Where a model runs: the fastest engine that fits and is right, then ONNX Runtime, and why."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from engine_workshop import FITS_GOLDEN, Workshop
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch, SpecMismatch
from unblur.runtime.loops.ladder import open_ladder
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.open_model import CHECKED_SUFFIX, open_runner
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.tensorrt import engine_runner
from unblur.runtime.tensorrt.engine_file import Profile

FIXED = Profile((1, 3, 64, 96), (1, 3, 64, 96), (1, 3, 64, 96))
CPU = f"cpu (onnxruntime {onnxruntime.__version__})"
GPU = "cuda:0 NVIDIA RTX 4090 (TensorRT 10.3.0)"
ON_CPU = "fp32 on cpu 10 ms, int8 on cpu 20 ms"  # see tests/conftest.py


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "unblur")
    return caplog


def test_the_fastest_engine_that_is_there(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp32")
    workshop.build_variant("fp16")
    with open_runner(workshop.folder.parent) as runner:
        assert (runner.precision, runner.device) == ("fp16", GPU)
    assert log.messages == [f"tiny fp16 runs on {GPU}: fp16 on tensorrt 2 ms, fp32 on tensorrt 3 ms, {ON_CPU}"]


def test_the_precision_that_is_asked_for(workshop: Workshop) -> None:
    for precision in ("fp32", "fp16", "int8"):
        workshop.build_variant(precision)
    for precision in ("fp32", "fp16", "int8"):
        with open_runner(workshop.folder.parent, RunnerOptions(precision=precision)) as runner:
            assert (runner.precision, runner.device) == (precision, GPU)


def test_without_an_engine_it_is_the_cpu(tiny_bundle: Path, log: pytest.LogCaptureFixture) -> None:
    with open_runner(tiny_bundle) as runner:
        assert runner.device == CPU
    assert log.messages == [f"tiny fp32 runs on {CPU}: {ON_CPU}"]


@pytest.mark.parametrize("profile", [FITS_GOLDEN, FIXED], ids=["golden vectors", "onnx file"])
@pytest.mark.parametrize("bias", [0.05, float("nan")])
def test_an_engine_that_computes_something_else_gives_way_to_the_next(
    workshop: Workshop, log: pytest.LogCaptureFixture, profile: Profile, bias: float
) -> None:
    wrong = workshop.build_variant("int8", profile, bias=bias)
    workshop.build_variant("fp16", profile)
    with open_runner(workshop.folder.parent) as runner:
        assert runner.precision == "fp16"
    found = (
        "26.0 dB from its reference, expected at least 35 dB"
        if bias == 0.05
        else "the output holds NaN or infinity"
    )
    reason = f"{wrong.name} against int8.onnx: {found}; build it again with `unblur build`"
    assert log.messages[0] == f"not used: {reason}"
    assert log.messages[1].startswith(f"tiny fp16 runs on {GPU}: int8 on tensorrt 1 ms, fp16 on tensorrt 2 ms, ")
    assert f"int8 engine: {reason}" in log.messages[1]


def test_an_engine_that_fails_on_the_golden_vectors(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp16")
    workshop.module.fails = "Error Code 1: Cask"
    with open_runner(workshop.folder.parent) as runner:
        assert (runner.precision, runner.device) == ("fp32", CPU)
    assert log.messages[0] == "not used: TensorRT 10.3.0 refused to execute: Error Code 1: Cask"


def test_the_first_output_is_checked_once(workshop: Workshop) -> None:
    engine = workshop.build_variant("fp16")
    for _ in range(3):
        open_runner(workshop.folder.parent).close()
    assert workshop.module.executions == 2
    engine.with_suffix(CHECKED_SUFFIX).write_text("another engine, another device\n")
    open_runner(workshop.folder.parent).close()
    assert workshop.module.executions == 4


def test_a_folder_that_cannot_be_written_is_checked_every_time(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.build_variant("fp16")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    for _ in range(2):
        open_runner(workshop.folder.parent).close()
    assert workshop.module.executions == 4


def test_an_engine_of_an_older_onnx_file(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build(FITS_GOLDEN, precision="fp16", onnx_sha256="f" * 64)
    with open_runner(workshop.folder.parent) as runner:
        assert runner.device == CPU
    assert "does not run on TensorRT: fp16 engine: it was built from another fp16.onnx" in log.messages[0]


def test_an_engine_of_another_gpu(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp16")
    workshop.cuda.device = replace(workshop.device, sm=86)
    with open_runner(workshop.folder.parent) as runner:
        assert runner.device == CPU
    assert "fp16 engine: the GPU architecture differs: the engine is for SM89, this device has SM86" in log.text


def test_an_engine_without_its_record(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp16").with_suffix(".json").unlink()
    with open_runner(workshop.folder.parent) as runner:
        assert runner.device == CPU
    assert "beside it; build it again" in log.text


def test_engines_without_a_driver(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise DeviceError("there is no CUDA driver (libcuda.so.1)")

    workshop.build_variant("fp16")
    monkeypatch.setattr(engine_runner, "open_cuda", no_driver)
    with open_runner(workshop.folder.parent) as runner:
        assert runner.device == CPU
    with pytest.raises(EngineMismatch, match=r"does not run on TensorRT: fp16 engine: there is no CUDA driver"):
        open_runner(workshop.folder.parent, RunnerOptions(device="tensorrt"))


def test_the_cpu_if_it_is_asked_for(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp16")
    with open_runner(workshop.folder.parent, RunnerOptions(device="cpu")) as runner:
        assert (runner.precision, runner.device) == ("fp32", CPU)
    assert log.messages == [f"tiny fp32 runs on {CPU}: fp16 on tensorrt 2 ms, {ON_CPU}"]


def test_a_reference_is_never_an_engine(workshop: Workshop) -> None:
    workshop.build_variant("fp32")
    with open_runner(workshop.folder.parent, RunnerOptions(graph_optimization=False)) as runner:
        assert runner.device == CPU


def test_an_engine_file_by_its_path(workshop: Workshop) -> None:
    engine = workshop.build_variant("fp16")
    with open_runner(engine) as runner:
        assert (runner.precision, runner.device) == ("fp16", GPU)
    with pytest.raises(SpecMismatch, match="is fp16, asked for int8"):
        open_runner(engine, RunnerOptions(precision="int8"))
    with pytest.raises(BadInput, match=r"is a TensorRT engine, which does not run on cpu; give its bundle"):
        open_runner(engine, RunnerOptions(device="cpu"))


def test_an_onnx_file_is_no_engine(tiny_onnx: Path) -> None:
    with pytest.raises(BadInput, match=r"is not an engine; make one with `unblur build`"):
        open_runner(tiny_onnx, RunnerOptions(device="tensorrt"))


def test_a_gpu_that_onnx_runtime_cannot_start(
    tiny_onnx: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What onnxruntime-gpu does on a machine without a driver: it lists CUDA, and then falls back to the CPU."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: both)
    monkeypatch.setattr("onnxruntime.InferenceSession", _on_the_cpu(onnxruntime.InferenceSession))
    with open_runner(tiny_onnx) as runner:
        assert runner.device == CPU
    assert log.messages[0].startswith("ONNX Runtime does not run on the GPU: CUDAExecutionProvider could not be")
    with pytest.raises(DeviceError, match="could not be started; check the driver"):
        open_runner(tiny_onnx, RunnerOptions(device="cuda"))


def _on_the_cpu(session: type[onnxruntime.InferenceSession]) -> Callable[..., onnxruntime.InferenceSession]:
    return lambda path, options, providers, **other: session(
        path, options, providers=["CPUExecutionProvider"], **other
    )


def test_deblurrer_hands_whole_frames_to_the_engine_and_tiles_the_rest(
    workshop: Workshop, frame: NDArray[np.uint8]
) -> None:
    workshop.build_variant("fp32", noise=0)
    with Deblurrer(workshop.folder.parent, RunnerOptions(device="cpu")) as deblur:
        expected = deblur(frame)
    workshop.cuda.done.clear()
    with Deblurrer(workshop.folder.parent, RunnerOptions(device="tensorrt")) as deblur:
        np.testing.assert_array_equal(deblur(frame), expected)
    assert "frame from batch" in workshop.cuda.done
    workshop.cuda.done.clear()
    with Deblurrer(workshop.folder.parent, RunnerOptions(device="tensorrt"), tile=64 * 80) as deblur:
        assert np.abs(deblur(frame).astype(int) - expected).max() <= 1
    assert "frame from batch" not in workshop.cuda.done


def test_a_ladder_of_engines(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    for steps in (1, 2):
        workshop.build_variant("fp16", steps=steps)
    workshop.build_variant("fp32", steps=1)
    with open_ladder(workshop.folder.parent, (64, 96)) as ladder:
        assert len(ladder.rung_names) == 2
        assert {(rung.runner.precision, rung.runner.device) for rung in ladder.rungs} == {("fp16", GPU)}
        assert len({rung.runner._buffers.execution.memory for rung in ladder.rungs}) == 1  # type: ignore[attr-defined]
    assert log.messages == [f"tiny fp16 runs on {GPU}: fp16 on tensorrt 2 ms, fp32 on tensorrt 3 ms, {ON_CPU}"]


def test_a_single_engine_is_a_ladder_of_one_rung(workshop: Workshop, log: pytest.LogCaptureFixture) -> None:
    workshop.build_variant("fp16")
    with open_ladder(workshop.folder.parent, (64, 96)) as ladder:
        assert len(ladder.rung_names) == 1
    assert log.messages == [
        f"tiny fp16 runs on {GPU}: fp16 on tensorrt 2 ms, {ON_CPU}",
        f"tiny fp16 at fewer steps (1) is left out: it would not run on {GPU}; build its engines with "
        "`unblur build --steps all`",
    ]


def test_an_engine_at_fewer_steps_is_checked_against_its_own_file(workshop: Workshop) -> None:
    small = Profile((1, 3, 16, 16), (1, 3, 48, 64), (1, 3, 64, 96))
    wrong = workshop.build_variant("fp16", small, steps=1, onnx=str(workshop.folder.parent / "fp16.onnx"))
    with pytest.raises(EngineMismatch, match=f"{wrong.name} against fp16-1.onnx: .* dB from its reference"):
        open_runner(workshop.folder.parent, RunnerOptions(precision="fp16", steps=1, device="tensorrt"))
