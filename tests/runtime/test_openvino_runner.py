"""OpenVINO computes what ONNX Runtime does, from the memory of the caller, for batches and for whole frames."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.metrics import psnr_db, psnr_float_db
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.openvino_runner import OpenVinoRunner
from unblur.runtime.runner import FrameRunner, TimedRunner

TWO_RUNNERS_THEN_A_SIGNAL = """
import gc, os, signal, sys
from pathlib import Path
import numpy as np
from unblur.runtime.model.openvino_runner import OpenVinoRunner

signal.signal(signal.SIGUSR1, lambda number, frame: print("heard"))
runners = [OpenVinoRunner(Path(sys.argv[1])) for _ in range(2)]
for runner in runners:
    runner.infer(np.zeros((1, 3, 32, 48), np.float32))
while runners:
    runners.pop(0).close()
    del runner
    runner = None
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_heard_after_runners_were_closed_in_their_order(make_onnx: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", TWO_RUNNERS_THEN_A_SIGNAL, str(make_onnx())]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "heard\n"), finished.stderr


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 32, 48), np.float32)


@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 100), ("fp16", 60), ("int8", 40)])
def test_batches_are_those_of_onnx_runtime(
    make_onnx: Callable[..., Path], batch: np.ndarray, precision: str, least_db: float
) -> None:
    path = make_onnx(precision=precision)
    with OnnxRunner(path, graph_optimization=False) as reference, OpenVinoRunner(path, exact=True) as runner:
        assert psnr_float_db(runner.infer(batch), reference.infer(batch)) > least_db
        assert (runner.spec, runner.precision) == (reference.spec, reference.precision)
        assert runner.device.startswith("cpu (openvino 20")
        assert runner.device.endswith(", fp32)")
        assert isinstance(runner, FrameRunner)
        assert isinstance(runner, TimedRunner)
        first = runner.infer(batch)
        restored, timing = runner.timed_infer(batch)
        assert restored is first  # its buffer is kept
        assert timing.device_ms > 0


@pytest.mark.parametrize("size_hw", [(64, 96), (50, 70), (1, 1), (17, 160)])
def test_whole_frames_of_any_size(tiny_onnx: Path, size_hw: tuple[int, int]) -> None:
    """Padded, cropped and rounded as the runtime does itself; a level apart where a value lies between two."""
    height, width = size_hw
    frame = np.ascontiguousarray(np.tile(golden_frame(), (1, 1, 1))[:height, :width])
    with OnnxRunner(tiny_onnx) as reference, OpenVinoRunner(tiny_onnx, exact=True) as runner:
        expected = Deblurrer(reference)(frame)
        restored = np.zeros_like(frame)
        runner.infer_frame(frame, restored)
        assert int(np.abs(restored.astype(int) - expected).max()) <= 1
        assert psnr_db(restored, expected) > 70 or height * width < 100
        in_place = frame.copy()
        runner.infer_frame(in_place, in_place)
        np.testing.assert_array_equal(in_place, restored)


def test_a_view_is_read_and_written_as_it_lies(tiny_onnx: Path, frame: Frame) -> None:
    with OpenVinoRunner(tiny_onnx) as runner:
        expected, mirrored = np.empty_like(frame), np.empty_like(frame)
        runner.infer_frame(np.ascontiguousarray(frame[:, ::-1]), expected)
        runner.infer_frame(frame[:, ::-1], mirrored[:, ::-1])
        np.testing.assert_array_equal(mirrored[:, ::-1], expected)


def test_bf16_where_the_cpu_has_it(tiny_onnx: Path, batch: np.ndarray) -> None:
    with OpenVinoRunner(tiny_onnx, exact=True) as exact, OpenVinoRunner(tiny_onnx) as runner:
        if not runner.is_bf16:
            pytest.skip("this CPU has no bfloat16")
        assert runner.device.endswith(", bf16)")
        assert 40 < psnr_float_db(runner.infer(batch), exact.infer(batch)) < 90


def test_compiled_networks_are_kept_in_the_cache(tiny_onnx: Path, tmp_path: Path, batch: np.ndarray) -> None:
    for _ in range(2):
        with OpenVinoRunner(tiny_onnx, threads=1, cache=tmp_path / "cache") as runner:
            runner.infer(batch)
    assert len(list((tmp_path / "cache").glob("*.blob"))) == 1


def test_what_cannot_be_opened_or_run(tiny_onnx: Path, make_onnx: Callable[..., Path], batch: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"none\.onnx does not exist"):
        OpenVinoRunner(tiny_onnx.with_name("none.onnx"))
    runner = OpenVinoRunner(tiny_onnx)
    with pytest.raises(ValueError, match="multiples of 16"):
        runner.infer(batch[:, :, 1:])
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.infer(batch)
