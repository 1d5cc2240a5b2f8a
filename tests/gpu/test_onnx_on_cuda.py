"""ONNX Runtime on a GPU against ONNX Runtime on the CPU, which is what bundles are judged by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from unblur.runtime.frames import Padding, batch_from_frame
from unblur.runtime.metrics import psnr_float_db
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.tolerances import TOLERANCES
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt.cuda_driver import Device


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_gpu_computes_what_the_cpu_does(
    device: Device, make_onnx: Callable[[Precision], Path], frame: NDArray[np.uint8], precision: Precision
) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("not run, since this is onnxruntime without CUDA; it needs onnxruntime-gpu")
    path = make_onnx(precision)
    batch = batch_from_frame(frame, Padding((96, 160), (96, 160)))
    with OnnxRunner(path, graph_optimization=False) as cpu, OnnxRunner(path, device="cuda") as gpu:
        expected = cpu.infer(batch)
        for _ in range(3):
            # fp32 too: ONNX Runtime multiplies in TF32, which has the mantissa of fp16.
            assert psnr_float_db(gpu.infer(batch), expected) >= min(TOLERANCES["engine"][precision].floor_db, 50)
