"""What one layer of a network costs, whoever measured it: ONNX Runtime's profiler or TensorRT's.

Layers are named when a network is exported, so that a profile can be read without the graph:

    step2/body.0.first/Conv      the convolution of the module body.0.first, in the second recursion step
    embed/Conv                   outside the recursion
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "QLinearConv"})
"""What `Layer.operator` is for a convolution, as ONNX Runtime calls it; TensorRT's go by ONNX's names."""

_NAME = re.compile(r"(?:step(?P<step>[1-9]\d*)/)?(?P<stage>[^/]+?)(?:/|\.weight|\.bias).*")


@dataclass(frozen=True)
class Layer:
    """One layer as it ran.

    name: as the profiler has it. operator: "Conv", or what took its place. stage: path of the module in the
    network, "body.0.first"; "" if unknown. step: recursion step or scale, from 1; None outside of them. ms: per
    inference, None if it was not measured. flops: 2 x multiply-accumulates; one an element where nothing is
    multiplied and summed. bytes: activations and weights, each read or written once. precision: of its arithmetic,
    "fp32", "fp16", "int8", or what else it computes with. inputs, outputs: type and shape, "float32[1,32,180,320]".
    """

    name: str
    operator: str
    stage: str
    step: int | None
    ms: float | None
    flops: int
    bytes: int
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Sum:
    """What some layers cost together. layers: how many. ms: None if one of them was not measured."""

    layers: int
    ms: float | None
    flops: int
    bytes: int


def by_stage(layers: Iterable[Layer], *, depth: int | None = None) -> dict[str, Sum]:
    """The cost of every stage over all steps, in the order of their first layers.

    depth: how many parts of a stage's path count; 1 puts body.0.first and body.1.first together as "body".
    """
    return _sums(layers, lambda layer: ".".join(layer.stage.split(".")[:depth]))


def by_step(layers: Iterable[Layer]) -> dict[int | None, Sum]:
    """The cost of what is outside the recursion, None, and of every step or scale of it, in order."""
    sums = _sums(layers, lambda layer: layer.step)
    return dict(sorted(sums.items(), key=lambda item: item[0] or 0))


def stage_and_step(name: str) -> tuple[str, int | None]:
    """Stage and step in the name of a node, tensor or weight of an exported network; ("", None) if it has none.

    >>> stage_and_step("step2/body.0.first/Conv")
    ('body.0.first', 2)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return "", None
    return match["stage"], int(match["step"]) if match["step"] else None


def _sums(layers: Iterable[Layer], key: Callable[[Layer], Key]) -> dict[Key, Sum]:
    groups: dict[Key, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(key(layer), []).append(layer)
    return {name: _sum(members) for name, members in groups.items()}


def _sum(layers: list[Layer]) -> Sum:
    times = [layer.ms for layer in layers if layer.ms is not None]
    return Sum(
        layers=len(layers),
        ms=sum(times) if len(times) == len(layers) else None,
        flops=sum(layer.flops for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
    )
