"""The calibration table: which ranges were measured, on which pictures, for which model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from unblur.calibration.observe import Range

Method = Literal["minmax"]
SCHEMA = 1


@dataclass(frozen=True)
class CalibrationTable:
    """The ranges behind an INT8 model, bound to the model and the pictures that they were measured with.

    model_sha256: of the fp32 ONNX file. images: name -> sha256 of the file, in the order of use. blurred: the
    pictures were sharp and a camera shake was laid over each. ranges: tensor -> what it took. kept: weight -> why
    it stays float.
    """

    method: Method
    model_sha256: str
    images: Mapping[str, str]
    blurred: bool
    ranges: Mapping[str, Range]
    kept: Mapping[str, str]

    def to_json(self) -> str:
        """The table as JSON text; equal tables give equal text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    @property
    def identity(self) -> str:
        """sha256 of the JSON text: what a bundle records to say which calibration it was made with."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
