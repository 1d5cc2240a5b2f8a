"""Fake quantisation in torch against the exported INT8 model in ONNX Runtime.

They agree to float rounding as long as no value falls to another INT8 level for it. In a deep untrained network one
that does starts an avalanche: ONNX Runtime is 33 dB from itself on a small SRN whose input is changed by 3e-6.
"""

import copy

import numpy as np
import pytest
import torch
from made_up_tables import made_up_table
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel, SessionOptions

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import place_as
from unblur.calibration.quantize import quantize, quantize_with
from unblur.calibration.table import bound_to, check_fits
from unblur.export.onnx_from_network import onnx_from_network
from unblur.runtime.metrics import psnr_float_db
from unblur.train.networks import DeblurringNetwork
from unblur.train.qat import FakeQuantized


def _restore(model: OnnxModel, blurred: NDArray[np.float32]) -> NDArray[np.float32]:
    """Q/DQ evaluated in float, as an engine computes."""
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = model.session(optimized=False)
    restored: NDArray[np.float32] = session.run(None, {"blurred": blurred})[0]
    return restored


def _forward(network: DeblurringNetwork, blurred: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(blurred)))


@pytest.fixture(scope="module")
def blurred() -> NDArray[np.float32]:
    """Not 8-bit values: those may lie between two INT8 levels exactly, where torch, which multiplies by 1 / scale,
    and ONNX, which divides, round differently; 70 dB is what remains then.
    """
    return np.random.default_rng(0).random((1, 3, 64, 96), np.float32)


@pytest.mark.parametrize("cautious", [True, False], ids=["cautious", "image too"])
def test_fake_quantisation_is_what_the_int8_model_computes(
    cautious: bool, network: DeblurringNetwork, fp32: OnnxModel, blurred: NDArray[np.float32]
) -> None:
    table = made_up_table(fp32, cautious=cautious)
    int8 = quantize(fp32, place_as(fp32, table.kept, table.excluded), table.ranges)
    fake = FakeQuantized(copy.deepcopy(network), table, where="t.json").eval()
    expected = _restore(int8, blurred)
    assert psnr_float_db(_restore(fp32, blurred), expected) < 65
    assert psnr_float_db(_forward(fake, blurred), expected) > 110


def test_tuned_weights_export_to_the_same_graph(
    network: DeblurringNetwork, fp32: OnnxModel, blurred: NDArray[np.float32]
) -> None:
    table = made_up_table(fp32)
    fake = FakeQuantized(copy.deepcopy(network), table, where="t.json").train()
    optimizer = torch.optim.SGD(fake.parameters(), 0.1)
    fake(torch.from_numpy(blurred)).square().mean().backward()
    optimizer.step()
    tuned = copy.deepcopy(network)
    tuned.load_state_dict(fake.state_dict())

    model = onnx_from_network(tuned)
    bound = bound_to(table, model)
    check_fits(bound, model)
    int8, before = quantize_with(model, bound), quantize_with(fp32, table)
    assert [node.SerializeToString() for node in int8.graph.node] == [
        node.SerializeToString() for node in before.graph.node
    ]
    assert psnr_float_db(_forward(fake.eval(), blurred), _restore(int8, blurred)) > 110
