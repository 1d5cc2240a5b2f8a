"""The calibration table: which ranges were measured, how, on which images, for which model.

It is data that travels: a bundle carries it, explicit Q/DQ and TensorRT's implicit INT8 are made from it again and
again (`unblur.calibration`), and fine-tuning with fake quantisation reads it (`unblur.train.qat`). So it says what
it belongs to, and is refused where it does not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.spec import ModelSpec
from unblur.runtime.strict_json import parse_document, to_json

Method = Literal["minmax", "percentile", "entropy", "mse"]
"""How a range is chosen from the values that a tensor took."""

Origin = Literal[Method, "imported"]
"""Where ranges come from: a method, or a TensorRT cache, which does not say by which."""

StepPolicy = Literal["per-step", "shared", "clamped"]
SCHEMA = 2

INT8_LEVELS = 127
"""Steps between 0 and the largest value that symmetric INT8 holds."""


FLOAT32_MAX = (2 - 2**-23) * 2.0**127


@dataclass(frozen=True)
class TensorRange:
    """lowest, highest: what the tensor took on the images. amax: what was chosen; INT8 holds [-amax, amax] in
    steps of amax / 127 and clips the rest.
    """

    lowest: float
    highest: float
    amax: float

    @property
    def scale(self) -> float:
        """One step of INT8."""
        return self.amax / INT8_LEVELS


@dataclass(frozen=True)
class Preprocessing:
    """How images became the network's input. multiple_of: in pixels, by padding. size_hw: crops of this size,
    None: whole images. blurred: the images were sharp and a camera shake was laid over each.
    """

    colour: str
    value_range: tuple[float, ...]
    multiple_of: int
    size_hw: tuple[int, ...] | None = None
    blurred: bool = False


@dataclass(frozen=True)
class Measured:
    """What INT8 with this table costs on the calibration images. budget_db: what it was allowed to lose, None
    without a search. delta_db: mean PSNR against float32, negative is a loss. int8_macs: the share of
    multiply-accumulates that run in INT8, 0 to 1.
    """

    budget_db: float | None
    delta_db: float
    int8_macs: float


@dataclass(frozen=True)
class CalibrationTable:
    """The ranges behind an INT8 model, bound to the model and the images that they were measured with.

    preset, steps: of the model. model_sha256: of its fp32 ONNX file. images: name -> sha256 of the file, in the
    order of use. percentile: of that method only, in percent. step_policy: how the steps of a recursion share
    ranges. ranges: tensor read in INT8 -> its range. implicit: ranges that only TensorRT's implicit
    INT8 needs, see `unblur.calibration.trt_cache`. kept: weight -> why it stays float. excluded: weights that are
    float because INT8 was too costly there, or because the user said so. reads: INT8 weight -> the tensors it is
    applied to, in the order of the graph, one for each step that uses it. image_tensors: those of them that are the
    image itself, which only convolutions read in INT8.
    Raises ValueError for an amax that is not positive, or beyond float32.
    """

    method: Origin
    percentile: float | None
    step_policy: StepPolicy
    preset: str
    steps: int
    model_sha256: str
    preprocessing: Preprocessing
    images: Mapping[str, str]
    ranges: Mapping[str, TensorRange]
    implicit: Mapping[str, TensorRange]
    kept: Mapping[str, str]
    reads: Mapping[str, tuple[str, ...]]
    excluded: tuple[str, ...] = ()
    image_tensors: tuple[str, ...] = ()
    measured: Measured | None = None

    def __post_init__(self) -> None:
        for name, value in {**self.ranges, **self.implicit}.items():
            if not 0 < value.amax <= FLOAT32_MAX:
                raise ValueError(f"the amax of tensor '{name}' is {value.amax}, expected a positive float32")

    def to_json(self) -> str:
        """The table as JSON text; equal tables give equal text, and what is read is what was written."""
        return json.dumps({"schema": SCHEMA, **fields_of(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "CalibrationTable":
        """Parse and check a table. where: the file it came from, for messages.

        Raises CalibrationError that names the first field at fault, or the schema if it is another.
        """
        try:
            return parse_document(cls, text, where, schema=SCHEMA)
        except ValueError as error:
            raise CalibrationError(f"{error}; expected a calibration table, calibrate again") from error

    @property
    def joins(self) -> tuple[str, ...]:
        """The tensors that are rounded to INT8 for an Add alone: the output of one of two convolutions it adds."""
        read = {tensor for tensors in self.reads.values() for tensor in tensors}
        return tuple(name for name in self.ranges if name not in read)

    @property
    def identity(self) -> str:
        """sha256 of the JSON text: what a bundle records to say which calibration it was made with."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check_spec(self, spec: ModelSpec, *, where: str) -> None:
        """CalibrationError with the field and both values if the table was made for another network than `spec`."""
        preprocessing = preprocessing_of(spec)
        for name in ("preset", "steps"):
            _check(where, spec, name, getattr(self, name), getattr(spec, name))
        for name in ("colour", "value_range", "multiple_of"):
            own, expected = getattr(self.preprocessing, name), getattr(preprocessing, name)
            _check(where, spec, f"preprocessing.{name}", own, expected)


def fields_of(table: CalibrationTable) -> dict[str, object]:
    """The fields of a table as JSON has them."""
    return {each.name: to_json(getattr(table, each.name)) for each in fields(table)}


def read_table(path: Path) -> CalibrationTable:
    """The table in a file; BadInput if it cannot be read, CalibrationError if it is not a table of this version."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; expected a calibration table") from error
    return CalibrationTable.from_json(text, where=str(path))


def preprocessing_of(
    spec: ModelSpec, *, size_hw: tuple[int, ...] | None = None, blurred: bool = False
) -> Preprocessing:
    """What the runtime does to an image for a model of this spec."""
    return Preprocessing(spec.colour, spec.value_range, spec.multiple_of, size_hw, blurred)


def mismatch_error(
    where: str, spec: ModelSpec, name: str, own: object, expected: object, fix: str = "calibrate this model"
) -> CalibrationError:
    """The error for a table of another model; `name` is the field that differs."""
    return CalibrationError(
        f"{where} does not fit the model '{spec.preset}': its {name} is {own!r}, the model's {expected!r}; {fix}"
    )


def _check(where: str, spec: ModelSpec, name: str, own: object, expected: object) -> None:
    if own != expected:
        raise mismatch_error(where, spec, name, own, expected)
