"""TensorRT's calibration cache, in and out: how a calibration table reaches implicit INT8 and DLA (TensorRT <= 10).

    TRT-8601-EntropyCalibration2           the header of 8.6.1; that of 10.3.0 begins with TRT-100300-
    step1/body.0.first/Relu: 3bcbd419      tensor: amax / 127, a big-endian float32

Implicit INT8 runs a layer in INT8 only if all its floating-point inputs and outputs have a scale; for a tensor
without one TensorRT warns "Missing scale and zero-point for tensor ..., expect fall back to non-int8 implementation
for any layer consuming or producing given tensor" (NVIDIA/TensorRT#2114, #1785). So `cache_tensors` names more
tensors than explicit Q/DQ needs, and no others: missing scales are what keeps the first and the last convolution
and the gates in float. TensorRT takes a cache only under the header of its own version and of the calibrator that
reads it ("Calibration table does not match calibrator algorithm type"), so a header says who reads, not how the
ranges were found. DLA takes EntropyCalibration2 alone.

Beyond that implicit INT8 promises nothing: TensorRT chooses by speed, after fusing layers, and may run a layer in
INT8 that the table excludes if both its neighbours are INT8. Where that matters, use the Q/DQ model.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from onnx import NodeProto

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import Placement, place
from unblur.calibration.table import table_of
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.calibration_table import FLOAT32_MAX, CalibrationTable, TensorRange

Algorithm = Literal["LegacyCalibration", "EntropyCalibration", "EntropyCalibration2", "MinMaxCalibration"]
Version = tuple[int, int, int]

CACHE_FILE = "calibration.cache"
_HEADER = re.compile(r"TRT-(\d{4}|\d{6})-(\w+)")
_LINE = re.compile(r"(?P<name>.+): (?P<scale>[0-9a-fA-F]{1,8})")  # greedy: a name may hold colons and spaces
_FUSED = frozenset({"Add", "Clip", "LeakyRelu", "PRelu", "Relu"})
_INTERNAL = "(Unnamed Layer*"  # how TensorRT calls a tensor that the ONNX file has no name for


@dataclass(frozen=True)
class TensorRTCache:
    """version: of the TensorRT that reads it. scales: tensor -> hexadecimal text, in the order of the file.
    final_newline: whether the last line ends with one; TensorRT writes it, editors may not.
    """

    version: Version
    algorithm: Algorithm
    scales: Mapping[str, str]
    final_newline: bool = True

    def to_text(self) -> str:
        """The contents of the file; what was read gives the same bytes."""
        lines = [f"TRT-{_digits(self.version)}-{self.algorithm}"]
        lines += [f"{name}: {scale}" for name, scale in self.scales.items()]
        return "\n".join(lines) + "\n" * self.final_newline

    @classmethod
    def from_text(cls, text: str, *, where: str) -> "TensorRTCache":
        """Parse a cache. where: the file it came from, for messages.

        Raises CalibrationError for a header or a line that TensorRT does not write.
        """
        header, _, body = text.partition("\n")
        version, algorithm = _read_header(header, where)
        lines = body.removesuffix("\n").split("\n") if body else []
        scales: dict[str, str] = {}
        for number, line in enumerate(lines, start=2):
            found = _LINE.fullmatch(line)
            if found is None or found["name"] in scales:
                problem = "is no 'tensor: hexadecimal scale'" if found is None else "names a tensor twice"
                raise CalibrationError(f"{where}: line {number} of the TensorRT cache {problem}: {line[:80]!r}")
            scales[found["name"]] = found["scale"]
        return cls(version, algorithm, scales, final_newline=text.endswith("\n"))

    def amax(self, name: str) -> float:
        """The largest magnitude that a tensor's scale holds; may be 0, infinite or NaN in a bad cache."""
        (scale,) = struct.unpack(">f", bytes.fromhex(self.scales[name].zfill(8)))
        return 127 * float(scale)


def read_cache(path: Path) -> TensorRTCache:
    """The cache in a file; BadInput if it cannot be read, CalibrationError if it is no TensorRT cache."""
    try:
        text = path.read_bytes().decode("utf-8")  # as bytes: the newlines stay as they are
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; expected a TensorRT calibration cache") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is no TensorRT calibration cache: it is not text") from error
    return TensorRTCache.from_text(text, where=str(path))


def version_from_text(text: str) -> Version:
    """The version in "10.3" or "8.6.1"; BadInput if it has no implicit INT8 or is none."""
    found = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?(?:\.\d+)?", text)
    if found is None:
        raise BadInput(f"'{text}' is no TensorRT version; write it as 10.3 or 8.6.1")
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    if not 7 <= version[0] <= 10:
        raise BadInput(f"TensorRT {text} reads no calibration cache, 7 to 10 do; give it the Q/DQ model instead")
    return version


def cache_from_table(
    table: CalibrationTable, version: Version, algorithm: Algorithm = "EntropyCalibration2"
) -> TensorRTCache:
    """All ranges of `table` as the cache that a calibrator of kind `algorithm` in TensorRT `version` reads."""
    tensors = {**table.ranges, **table.implicit}
    return TensorRTCache(
        version, algorithm, {name: struct.pack(">f", seen.amax / 127).hex() for name, seen in tensors.items()}
    )


def table_from_cache(cache: TensorRTCache, model: OnnxModel, *, where: str = "the cache") -> CalibrationTable:
    """The table for `model`, an fp32 graph, with the ranges of a cache.

    A convolution that lacks a scale at its input or output stays float, as TensorRT would leave it. The cache does
    not say how its ranges were found; what a tensor took is given as what its scale holds. Raises CalibrationError
    if the cache names a tensor that the model has not, has a scale that is not positive, or suffices for no
    convolution.
    """
    _check_names(cache, model, where)
    candidates, spec = place(model, cautious=False), model.spec
    unscaled = {node.input[1] for node in candidates.quantized if not _has_scales(cache, node)}
    placement = candidates.only([layer for layer in candidates.layers if layer not in unscaled])
    if not placement.quantized:
        raise CalibrationError(
            f"{where} has not the scales that any of the {len(candidates.layers)} layers of '{spec.preset}' needs; "
            "it belongs to another model"
        )
    others = [name for name in cache.scales if name in cache_tensors(model, placement)]
    known = (name for name in (*placement.activations, *others) if name in cache.scales)
    ranges = {name: _range(cache, name, where) for name in known}
    return table_of(model, placement, ranges, method="imported", images={})


def cache_tensors(model: OnnxModel, placement: Placement) -> tuple[str, ...]:
    """The tensors that need a scale for the placed convolutions to run in INT8 on TensorRT's implicit path.

    Those are what a convolution reads and writes, and what the additions and activation functions that TensorRT
    fuses with it read and write.
    """
    weights, consumers = model.view.initializers, model.view.consumers
    pending = list(placement.quantized)
    tensors: dict[str, None] = {}
    while pending:
        node = pending.pop(0)
        tensors |= dict.fromkeys(name for name in node.input if name and name not in weights)
        if node.output[0] not in tensors:
            pending += [consumer for consumer in consumers.get(node.output[0], []) if consumer.op_type in _FUSED]
        tensors[node.output[0]] = None
    return tuple(tensors)


def _read_header(header: str, where: str) -> tuple[Version, Algorithm]:
    found = _HEADER.fullmatch(header)
    if found is None or found[2] not in get_args(Algorithm):
        raise CalibrationError(
            f"{where}: unknown header {header[:60]!r}, expected TRT-<4 or 6 digits>-<algorithm>, the algorithm one "
            f"of {', '.join(get_args(Algorithm))}"
        )
    major, rest = (found[1][0], found[1][1:]) if len(found[1]) == 4 else (found[1][:2], found[1][2:])
    minor, patch = rest[:-2], rest[-2:]
    return (int(major), int(minor), int(patch)), cast("Algorithm", found[2])


def _digits(version: Version) -> str:
    """NV_TENSORRT_VERSION: 8.6.1 is 8601, 10.3.0 is 100300."""
    major, minor, patch = version
    return f"{major}{minor:02}{patch:02}" if major >= 10 else f"{major}{minor}{patch:02}"


def _has_scales(cache: TensorRTCache, node: NodeProto) -> bool:
    return node.input[0] in cache.scales and node.output[0] in cache.scales


def _range(cache: TensorRTCache, name: str, where: str) -> TensorRange:
    amax = cache.amax(name)
    if not 0 < amax <= FLOAT32_MAX:
        raise CalibrationError(
            f"{where}: the scale of '{name}' is {amax / 127}, expected a positive float32; "
            "calibrate on pictures that excite it"
        )
    return TensorRange(-amax, amax, amax)


def _check_names(cache: TensorRTCache, model: OnnxModel, where: str) -> None:
    known = model.view.tensors
    foreign = [name for name in cache.scales if name not in known and not name.startswith(_INTERNAL)]
    if foreign:
        raise CalibrationError(
            f"{where} names the tensor '{foreign[0]}', which the model '{model.spec.preset}' has not; "
            "it belongs to another model"
        )
