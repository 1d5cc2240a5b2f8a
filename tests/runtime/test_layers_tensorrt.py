"""The layers of an engine, from reports in the formats of three versions and from an engine on a GPU in memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_workshop import SMALL, Workshop

from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch
from unblur.runtime.profile.layers import Layer, by_step
from unblur.runtime.profile.layers_tensorrt import EPILOGUE, engine_layers, profile_engine_layers

REPORTS = Path(__file__).parent / "inspector"


def report(version: str) -> str:
    return (REPORTS / f"tensorrt-{version}.json").read_text()


def told(layers: list[Layer]) -> list[tuple[str, str, int | None, str]]:
    return [(layer.operator, layer.stage, layer.step, layer.precision) for layer in layers]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    assert workshop.leaks == 0


def test_tensorrt_8() -> None:
    assert told(engine_layers(report("8.6"))) == [
        ("QuantizeLinear", "", None, "fp32"),
        ("Conv", "embed", None, "int8"),
        ("Reformat", "body.0.first", 1, "fp16"),
        ("Conv", "body.0.first", 1, "fp16"),
        ("QuantizeLinear", "body.0.first", 1, "fp16"),
        ("Conv", "body.0.second", 1, "int8"),
        ("Sigmoid+Mul", "spatial", 1, "fp16"),
        ("ConvTranspose", "up", 1, "fp16"),
    ]


def test_tensorrt_10() -> None:
    assert told(engine_layers(report("10"))) == [
        ("Conv", "body.0.first", 1, "int8"),
        ("Reformat", "channel", 1, "int8"),
        ("Conv", "channel.squeeze", 1, "fp16"),
        ("Sigmoid+Mul", "channel", 1, "fp16"),
        ("QuantizeLinear", "channel", 1, "fp16"),
    ]


def test_tensorrt_11() -> None:
    assert told(engine_layers(report("11"))) == [
        ("SpaceToDepth", "pixel_unshuffle", None, "fp32"),
        ("Conv", "body.0.first", 1, "int8"),
        (EPILOGUE, "body.0.first", 1, "fp32"),
        ("Conv", "body.0.second", 1, "int8"),
        ("Conv", "body.0.first", 2, "fp16"),
    ]


def test_work_and_traffic_of_a_convolution() -> None:
    """int8 weights and activations, bias and output of 4 and 2 bytes; the second with a residual input."""
    layers = engine_layers(report("8.6"))
    pixels = 180 * 320
    assert layers[1].flops == 2 * 48 * 32 * 9 * pixels
    assert layers[1].bytes == 48 * pixels + 32 * pixels * 2 + 48 * 32 * 9 + 32 * 4
    assert layers[1].inputs == ("int8[1,48,180,320]",)
    assert layers[1].outputs == ("float16[1,32,180,320]",)
    assert layers[5].bytes == 32 * pixels * (1 + 2 + 2) + 32 * 32 * 9 + 32 * 4


def test_a_transposed_convolution_uses_its_weights_at_each_place_of_its_input() -> None:
    assert engine_layers(report("8.6"))[-1].flops == 2 * 32 * 3 * 2 * 2 * 180 * 320


def test_weights_may_be_listed_as_constants_or_not_at_all() -> None:
    assert engine_layers(report("11"))[1].flops == 2 * 48 * 8 * 9 * 16 * 24
    assert engine_layers(report("11"))[4].flops == 2 * 48 * 8 * 9 * 16 * 24
    assert engine_layers(report("10"))[2].flops == 0


def test_layers_of_another_profile_are_another_list() -> None:
    (layer,) = engine_layers(report("8.6"), profile=1)
    assert (layer.stage, layer.inputs) == ("embed", ("int8[1,48,360,640]",))


def test_times_are_joined_by_name() -> None:
    names = [layer.name for layer in engine_layers(report("10"))]
    layers = engine_layers(report("10"), {name: 0.5 + index for index, name in enumerate(names)})
    assert [layer.ms for layer in layers] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert by_step(layers)[1].ms == 12.5


def test_layers_without_a_time_did_not_run_and_no_time_is_lost() -> None:
    first = engine_layers(report("10"))[0].name
    layers = engine_layers(report("10"), {first: 1.0, "a layer of no report": 2.0})
    assert [(layer.name, layer.ms) for layer in layers] == [(first, 1.0), ("a layer of no report", 2.0)]


def test_layers_of_one_name_took_its_time_each() -> None:
    document = json.loads(report("10"))
    document["Layers"] = [document["Layers"][0]] * 2
    name = document["Layers"][0]["Name"]
    assert [layer.ms for layer in engine_layers(json.dumps(document), {name: 3.0})] == [3.0, 3.0]


def test_names_alone_are_refused() -> None:
    with pytest.raises(
        EngineMismatch, match="only the names of its layers; build it again with `unblur build --layers FILE`"
    ):
        engine_layers((REPORTS / "names-only.json").read_text())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Bindings": []}'])
def test_another_document_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not JSON with a list 'Layers', as TensorRT's inspector writes it"):
        engine_layers(text)


def test_sizes_that_are_not_known_yet_are_refused() -> None:
    with pytest.raises(BadInput, match="'N/A due to dynamic shapes', expected one such as Float"):
        engine_layers(report("10").replace('"Half"', '"N/A due to dynamic shapes"'))


def test_an_engine_is_profiled_layer_by_layer(workshop: Workshop) -> None:
    names = [layer.name for layer in engine_layers(report("10"))]
    engine = workshop.build(inspection=report("10"), layer_ms=dict.fromkeys(names, 0.25))
    layers = profile_engine_layers(engine, SMALL, runs=6, cuda=workshop.cuda, trt=workshop.trt)
    assert [layer.name for layer in layers] == names
    assert {layer.ms for layer in layers} == {0.5}  # the median of 1, 2 and 3 times 0.25
    assert "graph" not in workshop.cuda.done
    assert workshop.module.executions == 3 + 6


def test_no_runs_are_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="runs is 0, expected at least 1"):
        profile_engine_layers(workshop.build(), SMALL, runs=0, cuda=workshop.cuda, trt=workshop.trt)


def test_an_engine_that_tells_no_times(workshop: Workshop) -> None:
    with pytest.raises(DeviceError, match=r"\(TensorRT 10\.3\.0\) reported no layer times"):
        profile_engine_layers(workshop.build(inspection=report("10")), SMALL, cuda=workshop.cuda, trt=workshop.trt)


def test_an_engine_without_details(workshop: Workshop) -> None:
    engine = workshop.build(layer_ms={"convolution": 1.0})
    with pytest.raises(EngineMismatch, match="keeps only the names"):
        profile_engine_layers(engine, SMALL, cuda=workshop.cuda, trt=workshop.trt)
