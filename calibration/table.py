"""The calibration table: which ranges were measured, how, on which pictures, for which model.

It is what INT8 is made from, again and again and for every TensorRT, so it says what it belongs to and is refused
where it does not: explicit Q/DQ reads it (`quantize`), and so do TensorRT's implicit INT8 and DLA (`trt_cache`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from unblur.calibration.observe import Range
from unblur.calibration.onnx_file import onnx_bytes, spec_of
from unblur.runtime import records
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.spec import ModelSpec

Method = Literal["minmax", "percentile", "entropy", "mse", "imported"]
"""How the ranges were chosen; "imported": they come from a TensorRT cache, which does not say."""

StepPolicy = Literal["per-step", "shared", "clamped"]
SCHEMA = 2


@dataclass(frozen=True)
class TensorRange:
    """lowest, highest: what the tensor took on the pictures. amax: what was chosen; INT8 holds [-amax, amax] in
    steps of amax / 127 and clips the rest.
    """

    lowest: float
    highest: float
    amax: float

    @property
    def clipped(self) -> Range:
        """The symmetric range that INT8 holds."""
        return Range(-self.amax, self.amax)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures became the network's input. multiple_of: in pixels, by padding. size_hw: crops of this size,
    None: whole pictures. blurred: the pictures were sharp and a camera shake was laid over each.
    """

    colour: str
    value_range: tuple[float, ...]
    multiple_of: int
    size_hw: tuple[int, ...] | None = None
    blurred: bool = False


@dataclass(frozen=True)
class Measured:
    """What INT8 with this table costs on the calibration pictures. budget_db: what it was allowed to lose, None
    without a search. delta_db: mean PSNR against float32, negative is a loss. int8_macs: the share of
    multiply-accumulates that run in INT8, 0 to 1.
    """

    budget_db: float | None
    delta_db: float
    int8_macs: float


@dataclass(frozen=True)
class CalibrationTable:
    """The ranges behind an INT8 model, bound to the model and the pictures that they were measured with.

    preset, steps: of the model. model_sha256: of its fp32 ONNX file. images: name -> sha256 of the file, in the
    order of use. percentile: of that method only, in percent. step_policy: how the steps of a recursion share
    ranges. ranges: tensor read by an INT8 convolution -> its range. implicit: ranges that only TensorRT's implicit
    INT8 needs, see `trt_cache`. kept: weight -> why it stays float. excluded: weights that are float because INT8
    was too costly there, or because the user said so.
    """

    method: Method
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
    excluded: tuple[str, ...] = ()
    measured: Measured | None = None

    def __post_init__(self) -> None:
        for name, value in {**self.ranges, **self.implicit}.items():
            if not 0 < value.amax < float("inf"):
                raise CalibrationError(
                    f"calibration table: the amax of tensor '{name}' is {value.amax}, expected a positive number"
                )

    def to_json(self) -> str:
        """The table as JSON text; equal tables give equal text, and what is read is what was written."""
        return json.dumps({"schema": SCHEMA, **fields_of(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "CalibrationTable":
        """Parse and check a table. where: the file it came from, for messages.

        Raises CalibrationError that names the first field at fault, or the schema if it is another.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise CalibrationError(f"{where} is no calibration table: it is not JSON ({error})") from error
        schema = raw.pop("schema", None) if isinstance(raw, dict) else None
        if schema != SCHEMA:
            raise CalibrationError(
                f"{where}: calibration table schema {schema!r}, this version reads {SCHEMA}; calibrate again, or "
                "use the version of unblur that wrote it"
            )
        try:
            return records.from_json(cls, raw, where)
        except ValueError as error:
            raise CalibrationError(f"{error}; the table is damaged or was edited, calibrate again") from error

    @property
    def identity(self) -> str:
        """sha256 of the JSON text: what a bundle records to say which calibration it was made with."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check_fits(self, model: ModelProto, *, where: str = "the calibration table") -> None:
        """CalibrationError with the field and both values if the table was not made for `model`, an fp32 graph."""
        spec = spec_of(model)
        own, expected = _binding(self), _binding(bound_to(self, model))
        for field, value in own.items():
            if value != expected[field]:
                raise CalibrationError(
                    f"{where} does not fit the model '{spec.preset}': its {field} is {value!r}, the model's "
                    f"{expected[field]!r}; calibrate this model"
                )


def fields_of(table: CalibrationTable) -> dict[str, object]:
    """The fields of a table as JSON has them."""
    return {field.name: records.to_json(getattr(table, field.name)) for field in fields(table)}


def read_table(path: Path) -> CalibrationTable:
    """The table in a file; BadInput if it cannot be read, CalibrationError if it is no table of this version."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; expected a calibration table") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is no calibration table: it is not text") from error
    return CalibrationTable.from_json(text, where=str(path))


def bound_to(table: CalibrationTable, model: ModelProto) -> CalibrationTable:
    """`table` as if it had been made for `model`: for weights that were fine-tuned against these very ranges."""
    spec = spec_of(model)
    return replace(
        table,
        preset=spec.preset,
        steps=spec.steps,
        model_sha256=model_sha256(model),
        preprocessing=preprocessing_of(
            spec, size_hw=table.preprocessing.size_hw, blurred=table.preprocessing.blurred
        ),
    )


def model_sha256(model: ModelProto) -> str:
    """sha256 of the file that `model` is, or would be written to."""
    return hashlib.sha256(onnx_bytes(model)).hexdigest()


def preprocessing_of(
    spec: ModelSpec, *, size_hw: tuple[int, ...] | None = None, blurred: bool = False
) -> Preprocessing:
    """What the runtime does to a picture for a model of this spec."""
    return Preprocessing(spec.colour, spec.value_range, spec.multiple_of, size_hw, blurred)


def _binding(table: CalibrationTable) -> dict[str, object]:
    """The fields that must agree with the model, the telling ones first."""
    preprocessing = table.preprocessing
    return {
        "preset": table.preset,
        "steps": table.steps,
        "preprocessing.colour": preprocessing.colour,
        "preprocessing.value_range": preprocessing.value_range,
        "preprocessing.multiple_of": preprocessing.multiple_of,
        "model_sha256": table.model_sha256,
    }
