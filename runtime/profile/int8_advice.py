"""Why INT8 is not faster: what holds back the layers of an INT8 network, and what changes it.

    for advice in advise(profile_engine_layers(engine, shape), peaks):
        print(advice.ms, advice.layer, advice.finding, advice.change)

The causes are those that people meet again and again (TensorRT#993, #2067, #4554, Model-Optimizer#80): convolutions
that stayed float, quantizers that became layers, copies between layouts, channels that do not fill a tensor core,
layers that wait for memory or for their launch; on a CPU, that it has no instructions for INT8.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unblur.runtime.machine.facts import Cpu
from unblur.runtime.profile.layers import CONVOLUTIONS, Layer, by_stage
from unblur.runtime.profile.layers_tensorrt import EPILOGUE
from unblur.runtime.profile.roofline import Bound, Peaks, place

WHOLE = "the whole network"

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CONVERSIONS = _QUANTIZERS | {"Cast"}
_DOT_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
_GROUPS = (16, 32)  # of channels, as INT8 kernels of TensorRT take them: NHWC16, NC/32HW32
_FULL = 0.95  # of the products in these groups that are not padding; more is not worth reporting
_NOISE = 1.05  # times as long as without INT8; less counts as equal

_Find = Callable[[Layer], str]
"""What is wrong with a layer; "" if nothing is."""


@dataclass(frozen=True)
class Advice:
    """One row of the table.

    layer: stage of the network, all its steps together, or the name of a layer that has none. change: what to do.
    layers: how many it is about. ms: time of these in one inference, or what a stage lost against float; None if
    that was not measured.
    """

    layer: str
    finding: str
    change: str
    layers: int
    ms: float | None


def advise(
    layers: Sequence[Layer], peaks: Peaks | None = None, *, plain: Sequence[Layer] = (), cpu: Cpu | None = None
) -> list[Advice]:
    """What holds back an INT8 network, the most time first.

    layers: as they ran. peaks: of the device, to find what waits for memory. plain: the same network in fp16 or
    fp32 on that device, to find the stages that INT8 made slower. cpu: what they ran on, if not a GPU.
    """
    rules = _ON_GPU if cpu is None else {}
    rows: dict[tuple[str, str, str], list[Layer]] = {}
    for layer in layers:
        for finding, change in _findings(layer, rules, peaks):
            change = change.format(pattern=f"{layer.stage or 'NAME'}.*")
            rows.setdefault((layer.stage or layer.name, finding, change), []).append(layer)
    advices = [Advice(*row, len(members), _ms(members)) for row, members in rows.items()]
    advices += _on_gpu(layers, plain) if cpu is None else _on_cpu(layers, plain, cpu)
    return sorted(advices, key=lambda advice: -(advice.ms or 0.0))


def _findings(layer: Layer, rules: Mapping[_Find, str], peaks: Peaks | None) -> Iterator[tuple[str, str]]:
    """Finding and change, for each rule that the layer breaks."""
    for find, change in rules.items():
        finding = find(layer)
        if finding:
            yield finding, change
    if peaks is not None and layer.ms is not None and layer.flops and _is_int8(layer):
        held_back = _HELD_BACK.get(place(layer, peaks).bound)
        if held_back:
            yield held_back


def _none_in_int8(layers: Sequence[Layer], change: str) -> Iterator[Advice]:
    convolutions = [layer for layer in layers if layer.operator in CONVOLUTIONS]
    if convolutions and not any(map(_is_int8, convolutions)):
        precisions = " and ".join(sorted({layer.precision for layer in convolutions}))
        finding = f"none of its {len(convolutions)} convolutions runs in INT8, but in {precisions}"
        yield Advice(WHOLE, finding, change, len(convolutions), _ms(convolutions))


def _on_gpu(layers: Sequence[Layer], plain: Sequence[Layer]) -> Iterator[Advice]:
    """What takes more than one layer to see."""
    yield from _none_in_int8(layers, _TO_ENGINE)
    floats = by_stage(plain)
    for stage, quantized in by_stage(layers).items():
        if stage and stage in floats:
            change = f"leave it float: `unblur calibrate --exclude '{stage}.*'`"
            yield from _slower(stage, change, quantized.layers, quantized.ms, floats[stage].ms)


def _on_cpu(layers: Sequence[Layer], plain: Sequence[Layer], cpu: Cpu) -> Iterator[Advice]:
    """There it is not this layer or that: INT8 as TensorRT wants it only costs time."""
    yield from _none_in_int8(layers, _TO_FP32)
    if plain:
        yield from _slower(WHOLE, _TO_FP32, len(layers), _ms(layers), _ms(plain))
    conversions = [layer for layer in layers if layer.operator in _CONVERSIONS]
    if conversions:
        finding = f"{len(conversions)} layers only convert between INT8, fp16 and fp32"
        yield Advice(WHOLE, finding, _TO_FP32, len(conversions), _ms(conversions))
    if not _DOT_PRODUCTS & set(cpu.flags):
        products = [layer for layer in layers if _is_int8(layer)]
        finding = f"{cpu.model} has no instructions for INT8 (VNNI or AMX, on Arm dot products)"
        yield Advice(WHOLE, finding, _TO_FP32, len(products), _ms(products))


def _slower(
    stage: str, change: str, layers: int, quantized_ms: float | None, plain_ms: float | None
) -> Iterator[Advice]:
    if quantized_ms is not None and plain_ms is not None and quantized_ms > _NOISE * plain_ms:
        finding = f"{quantized_ms:.3f} ms, {plain_ms:.3f} ms without INT8"
        yield Advice(stage, finding, change, layers, quantized_ms - plain_ms)


def _float_convolution(layer: Layer) -> str:
    is_float = layer.operator in CONVOLUTIONS and not _is_int8(layer)
    return f"a convolution in {layer.precision}" if is_float else ""


def _lone_quantizer(layer: Layer) -> str:
    return f"{layer.operator} is a layer of its own" if layer.operator in _QUANTIZERS else ""


def _border_copy(layer: Layer) -> str:
    source, target = _types(layer)
    return f"a copy from {source} to {target}" if layer.operator == "Reformat" and source != target else ""


def _layout_copy(layer: Layer) -> str:
    source, target = _types(layer)
    return "a copy into another layout" if layer.operator == "Reformat" and source == target else ""


def _lone_epilogue(layer: Layer) -> str:
    return (
        "bias, activation or quantizing of a convolution is a kernel of its own"
        if layer.operator == EPILOGUE
        else ""
    )


def _float32_beside_int8(layer: Layer) -> str:
    tensors = (*layer.inputs, *layer.outputs)
    is_wide = _is_int8(layer) and any(tensor.startswith("float32") for tensor in tensors)
    return "an INT8 convolution that reads or writes float32" if is_wide else ""


def _padding(layer: Layer) -> str:
    if not _is_int8(layer):
        return ""
    channels = _channels(layer.inputs[0]), _channels(layer.outputs[0])
    filled = [
        math.prod(channels) / math.prod(math.ceil(count / group) * group for count in channels) for group in _GROUPS
    ]
    if filled[-1] >= _FULL:
        return ""
    return (
        f"{channels[0]} to {channels[1]} channels, which kernels take by {_GROUPS[0]} or {_GROUPS[1]}: "
        f"{1 - filled[0]:.0%} or {1 - filled[-1]:.0%} of its products are padding"
    )


def _is_int8(layer: Layer) -> bool:
    return layer.operator in CONVOLUTIONS and layer.precision == "int8"


def _types(layer: Layer) -> tuple[str, str]:
    """Of the first input and the first output: "float32[1,3,64,96]" is float32; "" if there is none."""
    return _type(layer.inputs), _type(layer.outputs)


def _type(tensors: Sequence[str]) -> str:
    return tensors[0].partition("[")[0] if tensors else ""


def _channels(tensor: str) -> int:
    return int(tensor.partition("[")[2].split(",")[1])


def _ms(layers: Iterable[Layer]) -> float | None:
    times = [layer.ms for layer in layers]
    measured = [ms for ms in times if ms is not None]
    return math.fsum(measured) if len(measured) == len(times) else None


_TO_FP32 = "run fp32 on this CPU; INT8 is for GPUs: `unblur build --target tensorrt --precision int8`"
_TO_ENGINE = (
    "build the engine from the INT8 form of a bundle: `unblur build BUNDLE --target tensorrt --precision int8`"
)

_HELD_BACK: Mapping[Bound, tuple[str, str]] = {
    "memory": (
        "it waits for memory, not for its products",
        "only fewer bytes help: smaller frames, fewer steps (`--steps`)",
    ),
    "overhead": (
        "it is too small: less than a tenth of what the device can do",
        "INT8 saves nothing here: larger frames, a batch, or fewer and wider layers use the device better",
    ),
}
_ON_GPU: Mapping[_Find, str] = {
    _float_convolution: (
        "`unblur calibrate --budget-db 0.1` tries the first and the last one too; attention gates stay float"
    ),
    _lone_quantizer: (
        "it is fused only between INT8 layers: let more of them be INT8, `unblur calibrate --budget-db 0.1`, or "
        "leave the convolution behind it float, `--exclude`"
    ),
    _border_copy: (
        "make both sides of it INT8, `unblur calibrate --budget-db 0.1`, or none, `--exclude '{pattern}'`"
    ),
    _layout_copy: "`unblur build --level 5` tries more kernels; layers of 32, 64, ... channels share a layout",
    # Both are what TensorRT-RTX 1.7 makes of every INT8 convolution, and of no fp16 one.
    _lone_epilogue: "in fp16 it stays inside the convolution, so compare: `unblur profile INT8 --baseline FP16`",
    _float32_beside_int8: (
        "take the INT8 form of a bundle, which is float16 between; if it is one, compare it with fp16, `--baseline`"
    ),
    _padding: (
        "train with 32, 64, ... channels, `unblur train --set width=32`; where frames come in or go out, leave "
        "it float, `unblur calibrate --exclude '{pattern}'`"
    ),
}
