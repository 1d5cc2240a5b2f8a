"""What `unblur lint` calls an error, given to a real TensorRT parser, which needs no GPU."""

from collections.abc import Callable

import pytest
from onnx import ModelProto
from quantized_graphs import CLEAN, MISREAD, REFUSED

from unblur.calibration.lint import lint
from unblur.calibration.onnx_model import onnx_bytes, read_proto
from unblur.export.trt_api import load_api
from unblur.runtime.model.open_model import shipped_presets

pytest.importorskip("tensorrt_rtx", reason="NO PARSER IS ASKED: pip install 'unblur[rtx]'")

Refusals = Callable[[ModelProto], list[str]]


@pytest.fixture(scope="module")
def refusals() -> Refusals:
    """The nodes that TensorRT-RTX's parser refuses."""
    api = load_api("rtx")
    builder = api.create_builder()

    def refused(model: ModelProto) -> list[str]:
        network = api.create_network(builder, weakly_typed=False)
        return [problem.name for problem in api.parse(network, onnx_bytes(model))]

    return refused


@pytest.mark.parametrize("fault", REFUSED)
def test_an_error_is_refused(fault: str, refusals: Refusals) -> None:
    make, _, node = REFUSED[fault]
    refused = refusals(make())
    assert refused
    assert set(refused) <= {node, ""}  # "" where it stops at a constant, before any node


@pytest.mark.parametrize("fault", MISREAD)
def test_what_the_parser_lets_pass_is_known(fault: str, refusals: Refusals) -> None:
    """If this fails, a later parser has begun to refuse it: move it to the others."""
    make, _, _ = MISREAD[fault]
    assert refusals(make()) == []


def test_what_has_no_errors_is_taken(refusals: Refusals) -> None:
    shipped = shipped_presets()["lprn-n"]
    for model in (CLEAN(), read_proto(shipped / "fp16.onnx"), read_proto(shipped / "int8.onnx")):
        assert not [finding for finding in lint(model) if finding.severity == "error"]
        assert refusals(model) == []
