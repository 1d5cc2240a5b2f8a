"""The layers of a TensorRT engine: the inspector's JSON report joined with the times of its profiler.

    layers = profile_engine_layers(Path("lprn-s.unblur/engines/KEY.engine"), (1, 3, 720, 1280))

Read are the reports of TensorRT 8.6 and 10.x, where a tensor has one field "Format/Datatype", and of 11.x, where
it has "Format" and "Datatype" and a layer lists its "Constants". An engine says as much only if it was built with
`unblur build --layers`; otherwise the report is a list of names.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch
from unblur.runtime.profile.layers import Layer, stage_and_step
from unblur.runtime.tensorrt.cuda import Cuda
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.trt import TensorRT

EPILOGUE = "ConvEpilogue"
"""Operator of what comes after a convolution, bias, activation or quantizing, where it was not fused into it."""

_WARM_UP_RUNS = 3

_TYPES: Mapping[str, tuple[str, str, int]] = {
    "float": ("float32", "fp32", 4),
    "fp32": ("float32", "fp32", 4),
    "half": ("float16", "fp16", 2),
    "fp16": ("float16", "fp16", 2),
    "bfloat16": ("bfloat16", "bf16", 2),
    "bf16": ("bfloat16", "bf16", 2),
    "int8": ("int8", "int8", 1),
    "uint8": ("uint8", "uint8", 1),
    "fp8": ("float8", "fp8", 1),
    "int32": ("int32", "int32", 4),
    "int64": ("int64", "int64", 8),
    "bool": ("bool", "bool", 1),
}
"""A word of TensorRT -> type of a tensor, precision of arithmetic on it, bytes of an element."""

_TYPE_WORD = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)
_METADATA_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
_BETWEEN_NODES = re.compile(r" \+ | \|\| |\.\.\.|PWN\(|[(),]|\{ForeignNode\[|\]\}")
_PROFILE = re.compile(r" \[profile (\d+)\]$")
_OPERATOR = re.compile(r"([A-Z][A-Za-z]*)(?:_\d+)?$")

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def profile_engine_layers(
    engine: Path,
    batch_shape: tuple[int, ...],
    *,
    runs: int = 20,
    cuda: Cuda | None = None,
    trt: TensorRT | None = None,
) -> list[Layer]:
    """The layers of an engine file with the median of their times over `runs` inferences of noise.

    batch_shape: (N, 3, H, W). cuda, trt: default those of this machine. The engine is opened anew, and its layers
    run one after the other without a CUDA graph: together they take longer than an inference does.

    Raises EngineMismatch if the engine cannot run here, does not take that shape or keeps no details of its layers,
    DeviceError if there is no GPU or its TensorRT reports no layer times.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}, expected at least 1")
    batch = np.random.default_rng(0).random(batch_shape, np.float32)
    with EngineRunner(engine, cuda=cuda, trt=trt, graph=False) as runner:
        for _ in range(_WARM_UP_RUNS):
            runner.infer(batch)
        report, times = runner.profile_layers(batch, runs)
        profile = runner.record.profile_for(batch_shape)
        if not times:
            raise DeviceError(f"{runner.device} reported no layer times; profile without --layers")
    return engine_layers(report, {name: _typical(ms, runs) for name, ms in times.items()}, profile=profile)


def _typical(times_ms: Sequence[float], runs: int) -> float:
    """The median; of several layers with one name the mean of them all, so that their sum is right."""
    return statistics.median(times_ms) if len(times_ms) == runs else statistics.fmean(times_ms)


def engine_layers(
    inspector_json: str, layer_times: Mapping[str, float] | None = None, *, profile: int = 0
) -> list[Layer]:
    """The layers in the inspector's report.

    layer_times: ms by the name of a layer, for each if several have that name. Layers without a time did nothing of
    their own and are left out; a time without a layer keeps its name and nothing else. profile: the optimisation
    profile, of which each has layers of its own.

    `flops` is 0 for a convolution whose weights the report does not show: TensorRT 10 hides those that it compiled
    into one kernel with other layers.

    Raises EngineMismatch if the engine keeps only the names of its layers, BadInput if the report is not one.
    """
    raw_layers = [raw for raw in _read(inspector_json) if _profile_of(raw["Name"]) == profile]
    if layer_times is None:
        return [_layer(raw, None) for raw in raw_layers if not _is_idle(raw)]
    return _with_times(raw_layers, layer_times)


def _with_times(raw_layers: list[dict[str, Any]], times: Mapping[str, float]) -> list[Layer]:
    ran = [raw for raw in raw_layers if raw["Name"] in times and not _is_idle(raw)]
    layers = [_layer(raw, times[raw["Name"]]) for raw in ran]
    unexplained = sorted(times.keys() - {raw["Name"] for raw in raw_layers})
    return layers + [Layer(name, "", "", None, times[name], 0, 0, "", (), ()) for name in unexplained]


def _is_idle(raw: dict[str, Any]) -> bool:
    """A layer that only renames its input."""
    return bool(raw["LayerType"] == "NoOp")


def _read(inspector_json: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(inspector_json)
        layers: list[dict[str, Any]] = document["Layers"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            "the report of the engine's layers is not JSON with a list 'Layers', as TensorRT's inspector writes it"
        ) from error
    if not all(isinstance(layer, dict) for layer in layers) or not layers:
        raise EngineMismatch(
            "the engine keeps only the names of its layers; build it again with `unblur build --layers FILE`"
        )
    return layers


def _profile_of(name: str) -> int:
    """The optimisation profile of a layer; the names of the first bear no number."""
    match = _PROFILE.search(name)
    return int(match[1]) if match else 0


def _layer(raw: dict[str, Any], ms: float | None) -> Layer:
    nodes = _nodes(raw)
    operator = _operator(raw, nodes)
    stage, step = stage_and_step(_main_node(nodes, operator))
    inputs, outputs = raw.get("Inputs", []), raw.get("Outputs", [])
    constants = raw.get("Constants", [])
    return Layer(
        name=raw["Name"],
        operator=operator,
        stage=stage,
        step=step,
        ms=ms,
        flops=_flops(raw, operator),
        bytes=sum(_bytes(tensor) for tensor in (*inputs, *constants, *outputs)) + _weight_bytes(raw),
        precision=_type((inputs or outputs)[0])[1] if inputs or outputs else "",
        inputs=tuple(_description(tensor) for tensor in inputs),
        outputs=tuple(_description(tensor) for tensor in outputs),
    )


def _nodes(raw: dict[str, Any]) -> list[str]:
    """Names of the ONNX nodes that the layer computes, or for a reformat those that it is there for."""
    found = _METADATA_NODE.findall(raw.get("Metadata", ""))
    if found:
        return list(found)
    name = _PROFILE.sub("", raw["Name"]).rpartition(" to ")[2]
    return [part for part in _BETWEEN_NODES.split(name) if part]


def _node_operator(node: str) -> str:
    """ "step2/body.0.first/Conv_1" -> "Conv"; "" if the name has no operator at its end."""
    match = _OPERATOR.search(node.rpartition("/")[2])
    return match[1] if match else ""


def _operator(raw: dict[str, Any], nodes: list[str]) -> str:
    """In the words of ONNX where there are such: a reformat between INT8 and float is one of the quantizers."""
    kind = raw["LayerType"] + raw.get("ParameterType", "")
    if "Reformat" in kind:
        return _quantizer(raw) if raw.get("Origin") == "QDQ" else "Reformat"
    if "Deconv" in kind:
        return "ConvTranspose"
    if "Conv" in kind:
        return "Conv"
    operators = list(dict.fromkeys(filter(None, map(_node_operator, nodes))))
    for convolution in _CONVOLUTIONS:
        if convolution in operators:
            return convolution if _convolves(raw) else EPILOGUE
    computing = [operator for operator in operators if operator not in _QUANTIZERS]
    return "+".join(computing or operators) or raw["LayerType"]


def _convolves(raw: dict[str, Any]) -> bool:
    """Generated kernels are named after what they do: __myl_CorrCastRelu convolves, __myl_MulCastRelu does not."""
    return raw["LayerType"] != "kgen" or re.search("Conv|Corr", raw["Name"]) is not None


def _quantizer(raw: dict[str, Any]) -> str:
    return "QuantizeLinear" if _type(raw["Outputs"][0])[0] == "int8" else "DequantizeLinear"


def _main_node(nodes: list[str], operator: str) -> str:
    """The node that a layer is counted for: the convolution, or the first that is not a quantizer."""
    ranked = sorted(nodes, key=lambda node: _rank(_node_operator(node), operator))
    return ranked[0] if ranked else ""


def _rank(operator: str, wanted: str) -> int:
    return 0 if operator == wanted else 2 if operator in _QUANTIZERS or not operator else 1


def _flops(raw: dict[str, Any], operator: str) -> int:
    if not raw.get("Outputs"):
        return 0
    if operator not in _CONVOLUTIONS:
        return _elements(raw["Outputs"][0])
    # Every weight is used once at every place: of the output, or of the input of a transposed convolution.
    places: list[int] = raw["Outputs" if operator == "Conv" else "Inputs"][0]["Dimensions"]
    return 2 * _weights(raw) * math.prod(places) // places[1]


def _weights(raw: dict[str, Any]) -> int:
    """How many weights a convolution has, biases not counted; 0 if the report does not show them."""
    if "Weights" in raw:
        return int(raw["Weights"]["Count"])
    tensors = [*raw.get("Constants", []), *raw["Inputs"][1:]]
    kernels = [tensor for tensor in tensors if _is_kernel(tensor["Dimensions"], raw["Outputs"][0]["Dimensions"])]
    return _elements(kernels[0]) if kernels else 0


def _is_kernel(dimensions: list[int], output: list[int]) -> bool:
    """(O, I, h, w), smaller than a frame; a transposed convolution has (I, O, h, w)."""
    return (
        len(dimensions) == 4 and output[1] in dimensions[:2] and math.prod(dimensions[2:]) < math.prod(output[2:])
    )


def _weight_bytes(raw: dict[str, Any]) -> int:
    """Of what is listed by count alone."""
    return sum(raw[key]["Count"] * _type_named(raw[key]["Type"])[2] for key in ("Weights", "Bias") if key in raw)


def _bytes(tensor: dict[str, Any]) -> int:
    return _elements(tensor) * _type(tensor)[2]


def _elements(tensor: dict[str, Any]) -> int:
    return math.prod(tensor["Dimensions"])


def _description(tensor: dict[str, Any]) -> str:
    return f"{_type(tensor)[0]}[{','.join(map(str, tensor['Dimensions']))}]"


def _type(tensor: dict[str, Any]) -> tuple[str, str, int]:
    """See _TYPES."""
    words = next((tensor[key] for key in ("Datatype", "DataType", "Format/Datatype") if key in tensor), "nothing")
    return _type_named(words)


def _type_named(words: str) -> tuple[str, str, int]:
    match = _TYPE_WORD.search(words)
    if match is None:
        raise BadInput(f"TensorRT reports the tensor type '{words}', expected one such as Float, Half or Int8")
    return _TYPES[match[1].lower()]
