"""Why INT8 is not faster: each cause in a layer that has it, in engines' reports, and on this CPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from unblur.runtime.machine.facts import Cpu
from unblur.runtime.model.open_model import shipped_presets
from unblur.runtime.profile.int8_advice import WHOLE, Advice, advise
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.layers_onnx import onnx_layers
from unblur.runtime.profile.layers_tensorrt import engine_layers
from unblur.runtime.profile.roofline import Peaks

INSPECTOR = Path(__file__).parent / "inspector"
PEAKS = Peaks({"fp32": 1e3, "fp16": 1e4, "int8": 1e5}, 100.0, "made up")
EPYC = Cpu("AMD EPYC", 2, ("avx", "avx2"), None)

FUSED = Layer(
    name="step1/body.0.first/Conv + step1/body.0.first/Relu",
    operator="Conv",
    stage="body.0.first",
    step=1,
    ms=1.0,
    flops=1_000_000_000,
    bytes=4_000_000,
    precision="int8",
    inputs=("int8[1,32,180,320]",),
    outputs=("int8[1,32,180,320]",),
)
QUANTIZER = replace(
    FUSED,
    name="step1/body.0.first/Relu_QuantizeLinear",
    operator="QuantizeLinear",
    precision="fp16",
    inputs=("float16[1,32,180,320]",),
)


def findings(*layers: Layer, peaks: Peaks | None = None) -> list[str]:
    return [advice.finding for advice in advise(layers, peaks)]


def test_an_int8_convolution_between_int8_layers_is_as_it_should_be() -> None:
    assert advise([FUSED], Peaks({"fp32": 1.0, "int8": 2e3}, 100.0, "made up")) == []


def test_a_convolution_that_stayed_float() -> None:
    advices = advise([FUSED, replace(FUSED, stage="reconstruct", precision="fp16", ms=2.0)])
    assert advices == [
        Advice(
            layer="reconstruct",
            finding="a convolution in fp16",
            change="`unblur calibrate --budget-db 0.1` tries the first and the last one too; attention gates stay "
            "float",
            layers=1,
            ms=2.0,
        )
    ]


def test_steps_are_one_row() -> None:
    (advice,) = advise([replace(QUANTIZER, step=step) for step in (1, 2, 3)])
    assert (advice.layer, advice.finding) == ("body.0.first", "QuantizeLinear is a layer of its own")
    assert (advice.layers, advice.ms) == (3, 3.0)
    assert "`unblur calibrate --budget-db 0.1`" in advice.change


def test_copies() -> None:
    copy = replace(FUSED, operator="Reformat", outputs=("float16[1,32,180,320]",))
    border, layout = advise([copy, replace(copy, inputs=copy.outputs, ms=0.5)])
    assert border.finding == "a copy from int8 to float16"
    assert "or none, `--exclude 'body.0.first.*'`" in border.change
    assert layout.finding == "a copy into another layout"


def test_a_layer_without_a_stage_goes_by_its_name() -> None:
    (advice,) = advise([replace(QUANTIZER, stage="", operator="Reformat")])
    assert advice.layer == QUANTIZER.name
    assert "`--exclude 'NAME.*'`" in advice.change


@pytest.mark.parametrize(
    ("source", "target", "padding"),
    [
        (48, 32, "48 to 32 channels, which kernels take by 16 or 32: 0% or 25% of its products are padding"),
        (32, 3, "32 to 3 channels, which kernels take by 16 or 32: 81% or 91% of its products are padding"),
    ],
)
def test_channels_that_do_not_fill_a_tensor_core(source: int, target: int, padding: str) -> None:
    layer = replace(FUSED, inputs=(f"int8[1,{source},9,9]",), outputs=(f"int8[1,{target},9,9]",))
    assert findings(layer) == [padding]
    assert findings(FUSED, replace(layer, operator="Resize")) == []


def test_a_little_padding_is_not_worth_a_word() -> None:
    assert findings(replace(FUSED, inputs=("int8[1,1024,9,9]",), outputs=("int8[1,1000,9,9]",))) == []


def test_float32_beside_int8() -> None:
    layer = replace(FUSED, outputs=("float32[1,32,180,320]",))
    assert findings(layer) == ["an INT8 convolution that reads or writes float32"]


def test_what_was_not_fused_into_its_convolution() -> None:
    layers = engine_layers((INSPECTOR / "tensorrt-11.json").read_text())
    advice = next(advice for advice in advise(layers) if advice.finding.endswith("is a kernel of its own"))
    assert advice.layer == "body.0.first"
    assert advice.finding.startswith("bias, activation or quantizing of a convolution")
    assert "`unblur profile INT8 --baseline FP16`" in advice.change


def test_what_waits_for_memory() -> None:
    layer = replace(FUSED, flops=1_000_000, bytes=50_000_000, ms=0.6)
    assert findings(layer, peaks=PEAKS) == ["it waits for memory, not for its products"]


def test_what_waits_for_its_launch() -> None:
    layer = replace(FUSED, flops=1_000_000, bytes=10_000, ms=0.01)
    assert findings(layer, peaks=PEAKS) == ["it is too small: less than a tenth of what the device can do"]


@pytest.mark.parametrize("unknown", [{"ms": None}, {"flops": 0}])
def test_what_is_not_known_is_not_judged(unknown: dict[str, None]) -> None:
    assert findings(replace(FUSED, **unknown), peaks=PEAKS) == []  # type: ignore[arg-type]


def test_the_most_time_comes_first_and_what_has_none_last() -> None:
    times = (0.1, None, 0.7)
    layers = [replace(QUANTIZER, stage=str(ms), ms=ms) for ms in times]
    assert [advice.ms for advice in advise(layers)] == [0.7, 0.1, None]


def test_no_convolution_in_int8_at_all() -> None:
    layers = [replace(FUSED, precision=precision, step=step) for step, precision in enumerate(("fp16", "fp32"))]
    whole = advise(layers)[0]
    assert (whole.layer, whole.ms) == (WHOLE, 2.0)
    assert whole.finding == "none of its 2 convolutions runs in INT8, but in fp16 and fp32"
    assert whole.change.startswith("build the engine from the INT8 form of a bundle: ")
    assert whole.change.endswith("`unblur build BUNDLE --target tensorrt --precision int8`")


def test_a_stage_that_int8_made_slower() -> None:
    plain = [replace(FUSED, precision="fp16", ms=1.1), replace(FUSED, precision="fp16", stage="embed", ms=1.0)]
    layers = [FUSED, replace(QUANTIZER, ms=0.5), replace(FUSED, stage="embed", ms=1.02)]
    slower = [advice for advice in advise(layers, plain=plain) if "without INT8" in advice.finding]
    assert [(advice.layer, advice.finding) for advice in slower] == [
        ("body.0.first", "1.500 ms, 1.100 ms without INT8")
    ]
    assert slower[0].ms == pytest.approx(0.4)
    assert slower[0].change == "leave it float: `unblur calibrate --exclude 'body.0.first.*'`"


def test_a_cpu_with_and_without_instructions_for_int8() -> None:
    (advice,) = advise([FUSED], cpu=EPYC)
    assert advice.finding == "AMD EPYC has no instructions for INT8 (VNNI or AMX, on Arm dot products)"
    assert advice.change.startswith("run fp32 on this CPU; INT8 is for GPUs")
    assert advice.ms == 1.0
    for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"):
        assert advise([FUSED], cpu=replace(EPYC, flags=(flag,))) == []


def test_a_network_that_int8_made_slower_on_a_cpu() -> None:
    plain = [replace(FUSED, precision="fp32", ms=0.8)]
    (slower, *_) = advise([FUSED, replace(QUANTIZER, ms=2.0)], plain=plain, cpu=EPYC)
    assert (slower.layer, slower.finding, slower.layers) == (WHOLE, "3.000 ms, 0.800 ms without INT8", 2)
    assert slower.ms == pytest.approx(2.2)


def test_what_an_engine_reports() -> None:
    layers = engine_layers((INSPECTOR / "tensorrt-8.6.json").read_text())
    measured = {layer.name: 0.1 * index for index, layer in enumerate(layers, start=1)}
    layers = engine_layers((INSPECTOR / "tensorrt-8.6.json").read_text(), measured)
    assert [(advice.layer, advice.finding.partition(",")[0]) for advice in advise(layers)] == [
        ("up", "a convolution in fp16"),
        ("body.0.first", "QuantizeLinear is a layer of its own"),
        ("body.0.first", "a convolution in fp16"),
        ("body.0.first", "a copy into another layout"),
        ("embed", "48 to 32 channels"),
        ("pixel_unshuffle_QuantizeLinear", "QuantizeLinear is a layer of its own"),
    ]


def test_the_shipped_int8_model_on_this_cpu() -> None:
    """Measured: ONNX Runtime finds no INT8 kernel for it, so what is left of INT8 is the converting."""
    layers = onnx_layers(shipped_presets()["lprn-n"] / "int8.onnx", (1, 3, 64, 96), threads=1, runs=2)
    whole = [advice for advice in advise(layers, cpu=EPYC) if advice.layer == WHOLE]
    (none,) = (advice for advice in whole if advice.finding.endswith("runs in INT8, but in fp32"))
    (converting,) = (advice for advice in whole if "layers only convert" in advice.finding)
    assert none.layers >= 8
    assert converting.layers >= 10
    assert converting.ms is not None
    assert 0 < converting.ms < sum(layer.ms or 0.0 for layer in layers)
