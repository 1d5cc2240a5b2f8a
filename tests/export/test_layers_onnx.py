"""Layers as ONNX Runtime runs them, of networks that were really exported."""

from collections import Counter

import pytest

from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.calibration.placement import layer_macs, place
from unblur.calibration.quantize import quantize
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.onnx_from_network import simplify
from unblur.runtime.model.calibration_table import TensorRange
from unblur.runtime.profile.layers import Layer, by_stage, by_step
from unblur.runtime.profile.layers_onnx import BETWEEN, onnx_layers

SIZE_HW = (64, 96)
SHAPE = (1, 3, *SIZE_HW)


@pytest.fixture(scope="module")
def forms(fp32: OnnxModel) -> dict[str, OnnxModel]:
    """A recursive network of two steps, as it is deployed."""
    simple = simplify(fp32).model
    placement = place(simple)
    int8 = quantize(simple, placement, {name: TensorRange(-1.0, 1.0, 1.0) for name in placement.activations})
    return {"fp32": simple, "fp16": fp16_from_fp32(simple), "int8": int8_fp16_from_int8(int8)}


@pytest.fixture(scope="module")
def layers(forms: dict[str, OnnxModel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Layer]]:
    folder = tmp_path_factory.mktemp("layers")
    for form, model in forms.items():
        write_onnx(folder / f"{form}.onnx", model)
    return {form: onnx_layers(folder / f"{form}.onnx", SHAPE, threads=1, runs=3) for form in forms}


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
def test_every_convolution_is_there_in_every_step_with_the_work_that_was_asked_for(
    form: str, layers: dict[str, list[Layer]], forms: dict[str, OnnxModel]
) -> None:
    """However it was fused, and whatever its channels were padded to."""
    macs = {weight.removesuffix(".weight"): count for weight, count in layer_macs(forms["fp32"], SIZE_HW).items()}
    found = [layer for layer in layers[form] if layer.operator.endswith("Conv")]
    places = Counter((layer.stage, layer.step) for layer in found)
    assert places == Counter((name, step) for name in macs for step in ([None] if name == "embed" else [1, 2]))
    assert {stage: total.flops for stage, total in by_stage(found).items()} == {
        name: 2 * count for name, count in macs.items()
    }


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
def test_every_layer_has_a_stage_and_the_steps_are_those_of_the_network(
    form: str, layers: dict[str, list[Layer]]
) -> None:
    *nodes, between = layers[form]
    assert between.name == BETWEEN
    assert all(layer.stage for layer in nodes)
    assert set(by_step(nodes)) == {None, 1, 2}
    assert all(layer.ms is not None and layer.ms >= 0 for layer in layers[form])
    assert set(by_stage(nodes, depth=1)) == {"embed", "head", "body", "channel", "spatial", "reconstruct"}


def test_what_is_read_and_written_is_told_by_type_and_shape(layers: dict[str, list[Layer]]) -> None:
    (concat,) = (layer for layer in layers["fp32"] if layer.name == "step1/spatial/Concat")
    grid_hw = [side // 4 for side in SIZE_HW]
    assert concat.inputs == (f"float32[1,1,{grid_hw[0]},{grid_hw[1]}]",) * 2
    assert concat.outputs == (f"float32[1,2,{grid_hw[0]},{grid_hw[1]}]",)
    assert (concat.flops, concat.bytes) == (0, 4 * 4 * grid_hw[0] * grid_hw[1])


def test_precision_is_what_really_ran(layers: dict[str, list[Layer]]) -> None:
    """Most CPUs compute fp16 in fp32, and convolutions whose sums stay float are not INT8 on any."""
    for form in ("fp16", "int8"):
        for layer in layers[form]:
            if layer.operator.endswith("Conv"):
                assert layer.precision == {"float32": "fp32", "float16": "fp16"}[layer.inputs[0].partition("[")[0]]
    quantizers = [layer for layer in layers["int8"] if layer.operator == "QuantizeLinear"]
    assert [layer.step for layer in quantizers].count(1) == [layer.step for layer in quantizers].count(2) > 0
    assert all(layer.outputs[0].startswith(("int8[", "uint8[")) for layer in quantizers)
