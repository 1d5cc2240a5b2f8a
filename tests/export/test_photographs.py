"""Parity on photographs under synthetic camera shake."""

from pathlib import Path

import pytest
from photographs import write_pairs

from unblur.calibration.images import Sample, find_sample
from unblur.calibration.int8_from_fp32 import calibrate
from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.torch_runner import TorchRunner
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.parity import measure
from unblur.train.networks import DeblurringNetwork


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return find_sample(write_pairs(tmp_path_factory.mktemp("pairs"), size_hw=(192, 256)))


@pytest.fixture(scope="module")
def blurred(sample: Sample) -> list[Frame]:
    return [read_image(path) for path in sample.paths]


def test_every_precision_stays_within_its_threshold(
    network: DeblurringNetwork, fp32: OnnxModel, sample: Sample, blurred: list[Frame], tmp_path: Path
) -> None:
    int8 = calibrate(fp32, sample).model
    forms = {"fp32": fp32, "fp16": fp16_from_fp32(fp32), "int8": int8_fp16_from_int8(int8)}
    for name, model in forms.items():
        write_onnx(tmp_path / f"{name}.onnx", model)
    runners = [OnnxRunner(tmp_path / f"{name}.onnx", graph_optimization=False) for name in forms]
    ledger = measure([TorchRunner(network), *runners], blurred)
    assert [hop.passed for hop in ledger.hops] == [True] * 3, ledger.hops
    assert ledger.hops[0].psnr_db >= 90
    assert ledger.hops[1].psnr_db >= 55
    assert 40 <= ledger.hops[2].psnr_db < 80  # close, and really quantised
