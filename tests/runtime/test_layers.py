import json

import pytest

from unblur.runtime.profile.layers import Layer, Sum, by_stage, by_step, stage_and_step
from unblur.runtime.strict_json import from_json, to_json


def _layer(stage: str, step: int | None, ms: float | None = 1.0) -> Layer:
    return Layer(
        name="anything",
        operator="Conv",
        stage=stage,
        step=step,
        ms=ms,
        flops=100,
        bytes=10,
        precision="fp32",
        inputs=("float32[1,3,8,8]",),
        outputs=("float32[1,8,8,8]",),
    )


@pytest.mark.parametrize(
    ("name", "stage", "step"),
    [
        ("step2/body.0.first/Conv", "body.0.first", 2),
        ("step12/networks.0.encoder.1.0.0/Conv_nchwc", "networks.0.encoder.1.0.0", 12),
        ("embed/Conv", "embed", None),
        ("embed/Reshape_2", "embed", None),
        ("step1/bottleneck/Split:3", "bottleneck", 1),
        ("step1/head/Relu_QuantizeLinear_Output", "head", 1),
        ("step1/head/Relu_DequantizeLinear/duplicated", "head", 1),
        ("body.0.first.weight_DequantizeLinear", "body.0.first", None),
        ("graph_input_cast0", "", None),
        ("blurred", "", None),
    ],
)
def test_a_name_tells_stage_and_step(name: str, stage: str, step: int | None) -> None:
    assert stage_and_step(name) == (stage, step)


def test_stages_are_summed_over_steps_and_to_any_depth() -> None:
    places = [("body.0.first", 2), ("embed", None), ("body.0.first", 1), ("body.0.second", 1)]
    layers = [_layer(stage, step) for stage, step in places]
    assert by_stage(layers) == {
        "embed": Sum(1, 1.0, 100, 10),
        "body.0.first": Sum(2, 2.0, 200, 20),
        "body.0.second": Sum(1, 1.0, 100, 10),
    }
    assert list(by_stage(layers, depth=1)) == ["body", "embed"]
    assert list(by_step(layers).items()) == [
        (None, Sum(1, 1.0, 100, 10)),
        (1, Sum(2, 2.0, 200, 20)),
        (2, Sum(1, 1.0, 100, 10)),
    ]


def test_a_sum_with_a_layer_that_was_not_measured_has_no_time() -> None:
    assert by_step([_layer("a", 1), _layer("b", 1, ms=None)])[1] == Sum(2, None, 200, 20)


def test_a_layer_goes_through_json() -> None:
    layer = _layer("body.0.first", None)
    assert from_json(Layer, json.loads(json.dumps(to_json(layer))), "x.json") == layer
