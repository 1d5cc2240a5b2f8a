"""ModelSpec: what a caller must know about a network to feed it, as data that travels with the model.

It is stored as JSON in the header of a checkpoint, in the `metadata_props` of an ONNX file (key
`unblur.spec`, beside `unblur.precision`) and in a bundle's manifest, so that nobody hard-codes preprocessing.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from unblur.runtime.errors import SpecMismatch

SPEC_KEY = "unblur.spec"
PRECISION_KEY = "unblur.precision"  # of an ONNX file: "fp32", "fp16" or "int8"
SCHEMA = 1

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "tensorrt", "cuda", "cpu"]
Pooling = Literal["none", "global", "local"]
OptionValue = bool | int | float | str


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
        if self.pooling not in get_args(Pooling):
            raise SpecMismatch(
                f"model spec: pooling is '{self.pooling}', expected one of {', '.join(get_args(Pooling))}"
            )

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

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
        if not isinstance(raw, dict):
            raise SpecMismatch(f"{where}: the model spec is a {type(raw).__name__}, expected an object")
        if raw.get("schema") != SCHEMA:
            raise SpecMismatch(
                f"{where}: model spec schema {raw.get('schema')!r}, this version reads {SCHEMA}; "
                "export the model again with this version of unblur"
            )
        _check_fields(raw, where)
        return cls(**_tuples(raw))


_FIELD_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "system": str,
    "preset": str,
    "steps": int,
    "multiple_of": int,
    "receptive_field": int,
    "pooling": str,
    "options": dict,
    "value_range": (list, tuple),
    "colour": str,
    "training_data": (list, tuple),
    "licence": str,
    "schema": int,
}


def _check_fields(raw: Mapping[str, object], where: str) -> None:
    for name, kind in _FIELD_TYPES.items():
        if name not in raw:
            raise SpecMismatch(f"{where}: the model spec has no field '{name}'")
        if not isinstance(raw[name], kind) or (kind is int and isinstance(raw[name], bool)):
            raise SpecMismatch(f"{where}: model spec field '{name}' is {raw[name]!r}, a wrong type")
    unknown = sorted(set(raw) - set(_FIELD_TYPES))
    if unknown:
        raise SpecMismatch(f"{where}: the model spec has an unknown field '{unknown[0]}'")


def _tuples(raw: Mapping[str, object]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
