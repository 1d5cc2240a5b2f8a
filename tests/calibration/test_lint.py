import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from quantized_graphs import CLEAN, MISREAD, REFUSED, QuantizedConv, graph_of
from typer.testing import CliRunner, Result

from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Settings, calibrate
from unblur.calibration.lint import RULES, Finding, lint
from unblur.calibration.lint_targets import verdicts
from unblur.calibration.onnx_model import OnnxModel, onnx_bytes, read_onnx, read_proto
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput
from unblur.runtime.model.open_model import shipped_presets

_FAULTS = {**REFUSED, **MISREAD}


def _rules(model: ModelProto) -> set[str]:
    return {finding.rule for finding in lint(model) if finding.severity != "note"}


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, [output], f"{kind}_{output}", **attributes)


def test_what_tensorrt_takes_has_no_findings(fp32: OnnxModel) -> None:
    assert lint(CLEAN()) == []
    assert lint(fp32.proto) == []


@pytest.mark.parametrize("preset", shipped_presets())
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nothing_that_ships_is_refused(preset: str, precision: str) -> None:
    findings = lint(read_proto(shipped_presets()[preset] / f"{precision}.onnx"))
    assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("fault", _FAULTS)
def test_an_error_is_named_with_its_node(fault: str) -> None:
    make, rule, node = _FAULTS[fault]
    findings = [finding for finding in lint(make()) if finding.rule == rule]
    assert node in {finding.node for finding in findings}
    assert {finding.severity for finding in findings} == {"error"}
    assert all(finding.what and finding.fix for finding in findings)


def test_every_error_has_a_graph_that_shows_it() -> None:
    assert {rule.name for rule in RULES if rule.severity == "error"} == {rule for _, rule, _ in _FAULTS.values()}


def test_a_quantised_output_is_named() -> None:
    """But not one that is the input of the next convolution, or the residual that another is added to."""
    pair = [_node("QuantizeLinear", ["y", "s", "z"], "yq"), _node("DequantizeLinear", ["yq", "s", "z"], "yd")]
    next_conv = _node("Conv", ["yd", "wd"], "z1", pads=[1] * 4)
    assert _rules(QuantizedConv(after=[*pair, _node("Relu", ["yd"], "z1")]).model()) == {"quantized-output"}
    assert _rules(QuantizedConv(after=pair).model()) == {"quantized-output"}
    assert _rules(QuantizedConv(after=[*pair, next_conv]).model()) == set()
    second = _node("Conv", ["xd", "wd"], "v", pads=[1] * 4)
    assert _rules(QuantizedConv(after=[*pair, second, _node("Add", ["v", "yd"], "z1")]).model()) == set()


def test_our_own_int8_model_has_no_warning_and_names_what_remains_in_float(
    trained: Path, photographs: Path
) -> None:
    sample = find_sample(photographs, synthetic_blur=True)
    made = calibrate(read_onnx(trained), sample, Settings(budget_db=1.0, implicit=False))
    findings = lint(made.model.proto)
    assert {finding.severity for finding in findings} == {"note"}
    notes = {(finding.rule, finding.what) for finding in findings}
    assert ("float-image", "it adds the image, which 7 bits would show") in notes
    assert made.int8_macs > 0.95


def test_the_gates_of_a_network_remain_in_float(stepped: Path, photographs: Path) -> None:
    made = calibrate(read_onnx(stepped), find_sample(photographs, synthetic_blur=True), Settings(implicit=False))
    notes = {(finding.rule, finding.what) for finding in lint(made.model.proto)}
    assert ("float-layer", "Conv: attention gate") in notes
    assert ("float-operator", "Sigmoid: an error of a gate scales everything after it") in notes


_RESIDUAL = [_node("Relu", ["x"], "r"), _node("Add", ["y", "r"], "t"), _node("Relu", ["t"], "z1")]


def test_a_float_residual_is_named() -> None:
    """But not that of the image itself, which stays float."""
    assert _rules(QuantizedConv(after=_RESIDUAL).model()) == {"float-residual"}
    assert _rules(QuantizedConv(after=[_node("Add", ["xd", "y"], "t"), _RESIDUAL[-1]]).model()) == set()
    assert (
        _rules(QuantizedConv(after=[_node("Add", ["y", "s"], "t"), _RESIDUAL[-1]]).model()) == set()
    )  # a constant
    of_image = lint(QuantizedConv(after=[_node("Add", ["y", "x"], "z1")]).model())
    assert {(finding.rule, finding.severity) for finding in of_image} == {("float-image", "note")}


def test_half_of_a_convolution_is_named() -> None:
    weights = [_node("DequantizeLinear", ["w", "ws"], "wd"), _node("Conv", ["x", "wd"], "y", pads=[1] * 4)]
    only_weights = graph_of(weights, {"w": np.ones((16, 16, 3, 3), np.int8), "ws": np.float32(1)})
    (finding,) = (finding for finding in lint(only_weights) if finding.severity != "note")
    assert finding.what == "only its weights are quantised"
    second = _node("Conv", ["xd", "v"], "z1", pads=[1] * 4)
    model = QuantizedConv(after=[_node("Identity", ["xd"], "v"), second]).model()
    assert _rules(model) == {"half-quantized"}


def test_one_scale_for_all_weights_is_named() -> None:
    model = QuantizedConv(weight_scale=np.float32(0.001), weight_zero_point=np.int8(0)).model()
    assert _rules(model) == {"per-tensor-weights"}


def test_channels_are_counted_through_a_pair_on_float_weights() -> None:
    nodes = [
        _node("QuantizeLinear", ["x", "s", "z"], "xq"), _node("DequantizeLinear", ["xq", "s", "z"], "xd"),
        _node("QuantizeLinear", ["w", "ws", "wz"], "wq", axis=1),
        _node("DequantizeLinear", ["wq", "ws", "wz"], "wd", axis=1),
        _node("ConvTranspose", ["xd", "wd"], "y", group=2),
    ]  # fmt: skip
    constants = {
        "s": np.float32(1), "z": np.int8(0), "ws": np.ones(12, np.float32), "wz": np.zeros(12, np.int8),
        "w": np.ones((16, 12, 2, 2), np.float32),
    }  # fmt: skip
    (finding,) = lint(graph_of(nodes, constants))
    assert (finding.rule, finding.what) == ("channels", "16 channels in, 24 out")


def test_constants_functions_and_subgraphs_are_looked_into() -> None:
    faulty = QuantizedConv(zero_point=np.int8(3)).model()
    zero_point = next(tensor for tensor in faulty.graph.initializer if tensor.name == "z")
    constant = helper.make_node("Constant", [], ["z"], value=zero_point)
    faulty.graph.initializer.remove(zero_point)
    faulty.graph.node.insert(0, constant)
    branch = helper.make_graph(faulty.graph.node, "branch", [], faulty.graph.output, faulty.graph.initializer)
    outer = graph_of(
        [helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)], {"c": True}, "o"
    )
    assert "quantize" in {finding.node for finding in lint(outer) if finding.rule == "zero-point"}

    function = helper.make_function("local", "Shrink", ["x"], ["y"], [
        helper.make_node("Constant", [], ["f"], value_floats=[1.0, 1.0, 0.5, 0.5]),
        helper.make_node("Resize", ["x", "", "f"], ["y"], mode="linear", antialias=1),
    ], [helper.make_opsetid("", 20)])  # fmt: skip
    model = graph_of([helper.make_node("Shrink", ["x"], ["y"], domain="local")], {})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert _rules(model) == {"resize-antialias"}


class _Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter(
            {"blurred": rng.random((1, 3, 16, 24), np.float32)} for _ in range(2)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


@pytest.fixture(params=["defaults", "UINT8", "QOperator"])
def of_onnxruntime(request: pytest.FixtureRequest, fp32_file: Path, tmp_path: Path) -> tuple[str, Path]:
    """What ONNX Runtime's quantiser makes of the network when nobody tells it about TensorRT."""
    options = {
        "defaults": {},
        "UINT8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
        "QOperator": {"quant_format": QuantFormat.QOperator},
    }
    quantize_static(fp32_file, tmp_path / "ort.onnx", _Pictures(), **options[request.param])
    return request.param, tmp_path / "ort.onnx"


def test_what_onnxruntime_makes_by_default_is_told(of_onnxruntime: tuple[str, Path]) -> None:
    how, path = of_onnxruntime
    errors = {finding.rule for finding in lint(read_proto(path)) if finding.severity == "error"}
    expected = {
        "defaults": {"zero-point", "int32-bias"},
        "UINT8": {"zero-point", "int32-bias", "quantized-type", "weight-type"},
        "QOperator": {"zero-point", "integer-operator"},
    }
    assert errors == expected[how]


def _lint(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["lint", *map(str, arguments)])


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[ModelProto], Path]:
    def write(model: ModelProto) -> Path:
        (tmp_path / "model.onnx").write_bytes(onnx_bytes(model))
        return tmp_path / "model.onnx"

    return write


def test_the_command_exits_with_1_for_errors_alone(file_of: Callable[[ModelProto], Path]) -> None:
    done = _lint(file_of(QuantizedConv(int32_bias=True).model()))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "error int32-bias: leave biases in float (QuantizeBias=False)",
        "  bias: it reads an INT32 bias",
    ]
    assert done.stdout.splitlines()[-3:-1] == [
        "TensorRT 10: does not build, 'bias': it reads an INT32 bias",
        "TensorRT-RTX: does not build, 'bias': it reads an INT32 bias",
    ]
    assert done.stdout.splitlines()[-1].endswith("model.onnx: 1 errors, 0 warnings, 0 notes")
    warned = _lint(file_of(QuantizedConv(after=_RESIDUAL).model()), "--json")
    assert warned.exit_code == 0
    document = json.loads(warned.stdout)
    assert (document["errors"], document["warnings"]) == (0, 1)
    assert Finding(**document["findings"][0]).rule == "float-residual"
    assert [target["builds"] for target in document["targets"]] == [True, True]


def test_the_precision_that_runs_is_named(fp32: OnnxModel) -> None:
    (trt, rtx) = verdicts(CLEAN(), lint(CLEAN()))
    assert str(trt) == "TensorRT 10: builds, INT8 in 1 of 1 layers with weights, fp32 in the rest"
    assert rtx.what.endswith("its INT8 convolutions write float32, so expect no gain over fp16")
    assert {verdict.what for verdict in verdicts(fp32.proto, lint(fp32.proto))} == {"in fp32"}
    half = read_proto(shipped_presets()["lprn-n"] / "fp16.onnx")
    assert {verdict.what for verdict in verdicts(half, lint(half))} == {"in fp16"}


def test_an_operator_of_another_domain_is_named() -> None:
    model = graph_of([helper.make_node("Gelu", ["x"], ["y"], "gelu", domain="com.microsoft")], {})
    (finding,) = lint(model)
    assert (finding.rule, finding.what) == ("unknown-operator", "the operator Gelu of the domain com.microsoft")


def test_a_fault_in_many_nodes_is_told_once(file_of: Callable[[ModelProto], Path]) -> None:
    model = graph_of([_node("ConvInteger", ["x", "w"], f"y{index}") for index in range(9)], {"w": np.int8(1)}, "y0")
    shown = _lint(file_of(model)).stdout
    assert shown.count("error integer-operator") == 1
    assert "  and 5 more nodes" in shown


@pytest.mark.parametrize("fault", ["missing", "damaged", "empty", "weights gone"])
def test_what_is_no_onnx_file_is_refused_in_one_line(fault: str, fp32: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if fault == "damaged":
        path.write_bytes(fp32.data[:200])
    elif fault == "empty":
        path.touch()
    elif fault == "weights gone":
        moved = fp32.copied()  # onnx.save empties the weights of what it is given
        onnx.save(moved, path, save_as_external_data=True, location="weights", size_threshold=0)
        (tmp_path / "weights").unlink()
    with pytest.raises(
        BadInput, match=r"model\.onnx (does not exist|is damaged or not|is empty or not|keeps its weights in)"
    ) as caught:
        read_proto(path)
    assert "\n" not in str(caught.value)
