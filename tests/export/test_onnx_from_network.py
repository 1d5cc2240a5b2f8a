import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from unblur.calibration.onnx_model import OnnxModel
from unblur.export.onnx_from_network import onnx_from_checkpoint, onnx_from_network
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.metrics import psnr_float_db
from unblur.train.networks import DeblurringNetwork

_SCRIPT = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from conftest import small_network
from unblur.export.onnx_from_network import onnx_from_network
print(hashlib.sha256(onnx_from_network(small_network()).data).hexdigest())
"""


def _weights(model: OnnxModel) -> dict[str, int]:
    return {t.name: len(t.raw_data) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}


def test_the_graph_is_valid_and_says_what_it_is(fp32: OnnxModel, network: DeblurringNetwork) -> None:
    onnx.checker.check_model(fp32.proto, full_check=True)
    assert [opset.version for opset in fp32.proto.opset_import if not opset.domain] == [20]
    assert fp32.spec == network.spec
    assert fp32.precision == "fp32"
    for value, name in ((fp32.graph.input[0], "blurred"), (fp32.graph.output[0], "restored")):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert (value.name, axes) == (name, ["batch", 3, "height", "width"])


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 3, 48, 16), (3, 3, 32, 80)])
def test_any_batch_height_and_width_gives_what_torch_gives(
    fp32: OnnxModel, network: DeblurringNetwork, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).random(shape, np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    session = fp32.session()
    restored = session.run(None, {"blurred": images})[0]
    assert psnr_float_db(restored, expected) >= 90
    assert psnr_float_db(expected, images) < 60  # the network did something


def test_photographs_come_out_as_from_torch(
    fp32: OnnxModel, network: DeblurringNetwork, photographs: list[NDArray[np.float32]]
) -> None:
    session = fp32.session()
    for photograph in photographs:
        with torch.inference_mode():
            expected = network(torch.from_numpy(photograph)).numpy()
        assert psnr_float_db(session.run(None, {"blurred": photograph})[0], expected) >= 90


def test_weights_are_stored_once_however_many_steps(
    exports: dict[int, OnnxModel], network: DeblurringNetwork
) -> None:
    assert _weights(exports[1]) == _weights(exports[2])
    assert len(exports[2].graph.node) > 1.4 * len(exports[1].graph.node)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert sum(_weights(exports[2]).values()) <= 4 * parameters + 64  # and a few constants
    assert [exports[steps].spec.steps for steps in (1, 2)] == [1, 2]


def test_the_bytes_depend_on_the_weights_alone(fp32: OnnxModel) -> None:
    script = _SCRIPT.format(folder=str(Path(__file__).parent))
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == hashlib.sha256(fp32.data).hexdigest() + "\n"
    assert finished.stderr == ""


def test_no_trace_of_the_machine_is_left(fp32: OnnxModel) -> None:
    contents = fp32.data
    for trace in (b"stack_trace", b".py", b"pkg.torch", str(Path.cwd()).encode()):
        assert trace not in contents


def test_the_exporter_is_silent_and_logging_is_put_back(
    network: DeblurringNetwork, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("torch.onnx")
    logger.setLevel(logging.INFO)
    try:
        onnx_from_network(network.at_steps(1))
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)
    assert capfd.readouterr() == ("", "")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.safetensors does not exist"):
        onnx_from_checkpoint(tmp_path / "none.safetensors")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    with pytest.raises(BadInput, match=r"half\.safetensors is not a whole safetensors file"):
        onnx_from_checkpoint(tmp_path / "half.safetensors")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SpecMismatch, match="no model spec in its header"):
        onnx_from_checkpoint(tmp_path / "other.safetensors")
