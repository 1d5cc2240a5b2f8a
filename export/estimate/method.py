"""How near to its peaks a runtime comes: the factors of the estimate at both ends, and how they are known."""

from collections.abc import Mapping
from dataclasses import dataclass

from unblur.export.estimate.graph import Kind
from unblur.runtime.runner import Precision


@dataclass(frozen=True)
class Reach:
    """What a runtime makes of a device's peaks, at one end of the estimate.

    arithmetic: share of the peak operations per second, by kind; the other kinds only move bytes. units: how much
    of that is left in a precision whose units are faster than what feeds them. bandwidth: share of the peak bytes
    per second; above 1 where a cache holds what is moved. tile: input and output channels are computed in multiples
    of these. call_us: microseconds that a kernel costs beside its work. int8_bytes: of an activation that an INT8
    convolution reads or writes; 2 if it is converted elsewhere. fuses, in_place: see `kernels_of`.
    """

    arithmetic: Mapping[Kind, float]
    units: Mapping[Precision, float]
    bandwidth: Mapping[Kind, float]
    tile: Mapping[Precision, tuple[int, int]]
    call_us: float
    int8_bytes: int
    fuses: bool
    in_place: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Method:
    """A runtime at both ends. basis: how its factors are known, for people."""

    runtime: str
    slow: Reach
    fast: Reach
    basis: str


ONNX_RUNTIME = Method(
    runtime="ONNX Runtime on a CPU",
    slow=Reach(
        arithmetic={"convolution": 0.8, "grouped": 0.3, "transposed": 0.6, "product": 0.5},
        units={"fp32": 1},
        bandwidth={
            "convolution": 0.7,
            "grouped": 0.7,
            "transposed": 0.7,
            "product": 0.7,
            "elementwise": 0.7,
            "normalisation": 0.6,
            "reduction": 0.05,
            "pooling": 0.15,
            "resize": 0.1,
            "movement": 0.6,
        },
        tile={"fp32": (1, 8)},
        call_us=11,
        int8_bytes=1,
        fuses=False,
    ),
    fast=Reach(
        arithmetic={"convolution": 1.05, "grouped": 0.6, "transposed": 0.85, "product": 0.9},
        units={"fp32": 1},
        bandwidth={
            "convolution": 2,
            "grouped": 2,
            "transposed": 2,
            "product": 2,
            "elementwise": 2,
            "normalisation": 1.1,
            "reduction": 0.07,
            "pooling": 1.5,
            "resize": 0.45,
            "movement": 2,
        },
        tile={"fp32": (1, 8)},
        call_us=3,
        int8_bytes=1,
        fuses=True,
    ),
    basis=(
        "fitted on half of the presets, profiled layer by layer on one core of an AMD EPYC (Milan) at 64x64 to "
        "256x256 with ONNX Runtime 1.31: near the tenth and the ninetieth percentile of the shares of its peaks"
    ),
)
"""`python -m benchmarks.estimate_fit` profiles, `python -m benchmarks.estimate` judges. Where arithmetic bounds a
kind, its share of the bandwidth hardly matters and was not fitted."""

TENSORRT = Method(
    runtime="TensorRT on an NVIDIA GPU",
    slow=Reach(
        arithmetic={"convolution": 0.6, "grouped": 0.05, "transposed": 0.35, "product": 0.4},
        units={"fp32": 1, "fp16": 0.65, "int8": 0.55},
        bandwidth={
            "convolution": 0.65,
            "grouped": 0.4,
            "transposed": 0.5,
            "product": 0.6,
            "elementwise": 0.75,
            "normalisation": 0.3,
            "reduction": 0.3,
            "pooling": 0.4,
            "resize": 0.3,
            "movement": 0.6,
        },
        tile={"fp32": (1, 32), "fp16": (16, 32), "int8": (32, 32)},
        call_us=8,
        int8_bytes=2,
        fuses=False,
    ),
    fast=Reach(
        arithmetic={"convolution": 0.85, "grouped": 0.2, "transposed": 0.8, "product": 0.8},
        units={"fp32": 1, "fp16": 0.75, "int8": 0.65},
        bandwidth={
            "convolution": 0.85,
            "grouped": 0.8,
            "transposed": 0.85,
            "product": 0.85,
            "elementwise": 0.85,
            "normalisation": 0.7,
            "reduction": 0.8,
            "pooling": 0.8,
            "resize": 0.8,
            "movement": 0.85,
        },
        tile={"fp32": (1, 16), "fp16": (8, 16), "int8": (16, 32)},
        call_us=5,
        int8_bytes=1,
        fuses=True,
        in_place=frozenset({"Concat", "Slice", "Split"}),
    ),
    basis=(
        "assumed, then adjusted until 28 times that others publish of YOLO11 and YOLOv8, fp16 and INT8, on Jetson "
        "Nano, Orin Nano and Orin NX all lay between the ends; no deblurring network was measured there"
    ),
)
"""Published by: ultralytics/ultralytics, docs/en/guides/nvidia-jetson.md (YOLO11 n to x, Orin Nano Super and Orin
NX 16GB); the0807/YOLOv8-ONNX-TensorRT (YOLOv8 n to m, Orin Nano); Qengineering/YoloV8-TensorRT-Jetson_Nano (YOLOv8
n and s, Jetson Nano). The middle of the estimate is 0.65 to 1.24 times what they publish."""
