"""ModelSpec: what a caller must know about a network to feed it, as data that travels with the model.

It is stored as JSON in the header of a checkpoint, in the `metadata_props` of an ONNX file (key `unblur.spec`,
beside `unblur.precision`) and in a bundle's manifest, so that nothing hard-codes preprocessing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.strict_json import check_schema, from_json, to_json

SPEC_KEY = "unblur.spec"
PRECISION_KEY = "unblur.precision"  # of an ONNX file: "fp32", "fp16" or "int8"
SCHEMA = 1

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "tensorrt", "cuda", "cpu"]
Pooling = Literal["none", "global", "local"]
OptionValue = bool | int | float | str

_SIZE = re.compile(r"\s*([0-9]{1,5})x([0-9]{1,5})\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSpec:
    """Description of one trained network.

    system: family, as `unblur train SYSTEM` names it, e.g. "lprn".
    preset: named configuration of it, e.g. "lprn-s".
    options: the constructor arguments that rebuild the network.
    steps: recursion steps (stages) of this model; 1 where a network has none.
    multiple_of: height and width must be multiples of this many pixels; the runtime pads.
    receptive_field: radius in pixels, i.e. how far an output pixel can see; the halo of a tile. 0 means
        unbounded: a network with global pooling sees the whole frame, whatever the halo.
    pooling: what the attention averages over. "local" and "none" make tiling exact, "global" does not.
    value_range, colour: of the float image the network takes and gives.
    training_data: names of the data sets the weights have seen. licence: of the weights.
    """

    system: str
    preset: str
    steps: int
    multiple_of: int
    receptive_field: int
    pooling: Pooling
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    value_range: tuple[float, float] = (0.0, 1.0)
    colour: Literal["RGB"] = "RGB"
    training_data: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in ("steps", "multiple_of"):
            if getattr(self, name) < 1:
                raise SpecMismatch(f"model spec: {name} is {getattr(self, name)}, expected at least 1")

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys."""
        return json.dumps(to_json(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "ModelSpec":
        """Parse and check a spec. `where` names the file it came from, for the error message.

        Raises SpecMismatch that names the first field which is missing, unknown or of the wrong type.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise SpecMismatch(f"{where}: the model spec is not JSON ({error})") from error
        return cls.from_dict(raw, where=where)

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> "ModelSpec":
        """As `from_json`, from an object that is already parsed."""
        try:
            check_schema(raw, f"{where}: the model spec", SCHEMA)
            return from_json(cls, raw, f"{where}: the model spec")
        except ValueError as error:
            raise SpecMismatch(f"{error}; export the model again with this version of unblur") from error


def parse_size_hw(text: str, option: str = "--size") -> tuple[int, int]:
    """(height, width) in pixels from "720x1280"; BadInput, which names the option, for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None or 0 in (size_hw := (int(match[1]), int(match[2]))):
        raise BadInput(f"{option} is '{text}', expected height x width such as 720x1280")
    return size_hw


def parse_version(text: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) from "10.13.3.9"; parts that are not numbers are left out."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
