"""ONNX Runtime as a Runner: right numbers, no allocation per frame, clear refusals."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from unblur.runtime.errors import BadInput, DeviceError, SpecMismatch
from unblur.runtime.model import onnx_session
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.runner import TimedRunner


def batch_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def test_it_computes_what_the_graph_says(tiny_onnx: Path) -> None:
    batch = batch_of(2, 3, 32, 48)
    (expected,) = ReferenceEvaluator(onnx.load(tiny_onnx)).run(None, {"blurred": batch})
    with OnnxRunner(tiny_onnx) as runner:
        np.testing.assert_allclose(runner.infer(batch), expected, atol=1e-5)


def test_it_tells_what_it_runs(make_onnx: Callable[..., Path]) -> None:
    with OnnxRunner(make_onnx(precision="fp16", steps=3), threads=1) as runner:
        assert runner.precision == "fp16"
        assert runner.spec.steps == 3
        assert runner.device == f"cpu (onnxruntime {onnxruntime.__version__})"


def test_sizes_may_change_and_come_back(tiny_onnx: Path) -> None:
    small, large = batch_of(1, 3, 16, 32), batch_of(1, 3, 64, 16)
    with OnnxRunner(tiny_onnx) as runner:
        first = runner.infer(small).copy()
        assert runner.infer(large).shape == large.shape
        np.testing.assert_array_equal(runner.infer(small), first)


def test_the_output_buffer_is_kept_for_a_repeated_size(tiny_onnx: Path) -> None:
    with OnnxRunner(tiny_onnx) as runner:
        first = runner.infer(batch_of(1, 3, 32, 32))
        brighter = runner.infer(batch_of(1, 3, 32, 32) + 1)
        assert brighter is first
        assert brighter.mean() > 1


def test_the_input_is_read_again_when_the_caller_refills_it(tiny_onnx: Path) -> None:
    with OnnxRunner(tiny_onnx) as runner:
        batch = batch_of(1, 3, 32, 32)
        first = runner.infer(batch).copy()
        batch += 1
        assert runner.infer(batch).mean() > first.mean() + 0.5


def test_the_parts_of_its_time(tiny_onnx: Path) -> None:
    batch = batch_of(1, 3, 64, 96)
    with OnnxRunner(tiny_onnx) as runner:
        assert isinstance(runner, TimedRunner)
        expected = runner.infer(batch).copy()
        started = time.perf_counter()
        restored, timing = runner.timed_infer(batch)
        whole_ms = (time.perf_counter() - started) * 1e3
    np.testing.assert_array_equal(restored, expected)
    assert (timing.copy_in_ms, timing.copy_out_ms) == (0, 0)
    assert 0 < timing.host_ms < timing.device_ms
    assert timing.host_ms + timing.device_ms <= whole_ms


def test_a_view_that_is_not_contiguous_is_fine(tiny_onnx: Path) -> None:
    wide = batch_of(1, 3, 32, 64)
    with OnnxRunner(tiny_onnx) as runner:
        expected = runner.infer(wide[..., :32].copy()).copy()
        np.testing.assert_array_equal(runner.infer(wide[..., :32]), expected)


def test_int8_without_graph_optimization_is_the_q_dq_graph(make_onnx: Callable[..., Path]) -> None:
    path = make_onnx(precision="int8")
    batch = batch_of(1, 3, 32, 32)
    (expected,) = ReferenceEvaluator(onnx.load(path)).run(None, {"blurred": batch})
    with OnnxRunner(path, graph_optimization=False) as runner:
        error = np.abs(runner.infer(batch) - expected)
    assert error.mean() < 1e-4  # a value on the border of two quanta may fall to either side


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_a_wrong_shape_is_refused(tiny_onnx: Path, shape: tuple[int, ...]) -> None:
    with OnnxRunner(tiny_onnx) as runner, pytest.raises(ValueError, match=r"\(N, 3, H, W\).* multiples of 16, got"):
        runner.infer(batch_of(*shape))


def test_a_wrong_type_is_refused(tiny_onnx: Path) -> None:
    with OnnxRunner(tiny_onnx) as runner, pytest.raises(TypeError, match="float32, got float64"):
        runner.infer(np.zeros((1, 3, 32, 32)))  # type: ignore[arg-type]


def test_after_close_it_says_so(tiny_onnx: Path) -> None:
    runner = OnnxRunner(tiny_onnx)
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.infer(batch_of(1, 3, 32, 32))


def test_no_threads_is_no_choice(tiny_onnx: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        OnnxRunner(tiny_onnx, threads=0)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.onnx does not exist"):
        OnnxRunner(tmp_path / "none.onnx")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_damaged_file(tiny_onnx: Path, keep: float) -> None:
    whole = tiny_onnx.read_bytes()
    tiny_onnx.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(BadInput, match="is damaged or not an ONNX file"):
        OnnxRunner(tiny_onnx)


def _edit(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def test_an_onnx_without_our_spec_is_inspected(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See test_inspect_onnx.py."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_onnx.parent))
    _edit(tiny_onnx, lambda model: model.ClearField("metadata_props"))
    with OnnxRunner(tiny_onnx) as runner:
        assert (runner.spec.system, runner.spec.multiple_of, runner.precision) == ("foreign", 4, "fp32")


def test_an_onnx_without_its_precision(tiny_onnx: Path) -> None:
    _edit(tiny_onnx, lambda model: model.metadata_props.pop())
    with pytest.raises(SpecMismatch, match=r"unblur\.precision is None, expected one of fp32, fp16, int8"):
        OnnxRunner(tiny_onnx)


def test_an_onnx_with_half_precision_inputs(tiny_onnx: Path) -> None:
    def halve(model: onnx.ModelProto) -> None:
        for tensor in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            if isinstance(tensor, onnx.TensorProto):
                halved = onnx.numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(halved, tensor.name))
            else:
                tensor.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    batch = np.random.default_rng(0).uniform(0, 1, (1, 3, 32, 48)).astype(np.float32)
    with OnnxRunner(tiny_onnx) as runner:
        expected = runner.infer(batch).copy()
    _edit(tiny_onnx, halve)
    with OnnxRunner(tiny_onnx) as runner:
        np.testing.assert_allclose(runner.infer(batch), expected, atol=5e-3)


def test_a_gpu_that_is_not_there(tiny_onnx: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceError, match="has no CUDAExecutionProvider; install onnxruntime-gpu"):
        OnnxRunner(tiny_onnx, device="cuda")


def test_two_packages_that_overwrite_each_other_are_named(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "version", lambda package: "1.0")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="and onnxruntime-gpu overwrite each other: uninstall both, then install"):
        OnnxRunner(tiny_onnx, device="cuda")


def test_onnx_runtimes_own_tensorrt_keeps_what_it_builds(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def session(path: Path, options: object, providers: list[object]) -> onnxruntime.InferenceSession:
        asked.extend(providers)
        return original(path, options, providers=["CPUExecutionProvider"])

    original = onnxruntime.InferenceSession
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["TensorrtExecutionProvider"])
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider could not be started"):
        OnnxRunner(tiny_onnx, device="ort-tensorrt", cache=tmp_path)
    (name, options), fallback = asked
    assert (name, fallback) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_engine_cache_enable"]
