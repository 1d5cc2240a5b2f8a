"""ModelSpec: what a caller must know about a network to feed it, as data that travels with the model.

It is stored as JSON in the header of a checkpoint, in the `metadata_props` of an ONNX file (key `unblur.spec`,
beside `unblur.precision`) and in a bundle's manifest, so that nothing hard-codes preprocessing.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.strict_json import check_schema, from_json, parse_json, to_json

SPEC_KEY = "unblur.spec"
PRECISION_KEY = "unblur.precision"  # of an ONNX file: "fp32", "fp16" or "int8"
SCHEMA = 2
FOREIGN = "foreign"
"""The system of a network that unblur did not train: its spec was found by inspection."""

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "tensorrt", "ort-tensorrt", "cuda", "openvino", "cpu"]
Pooling = Literal["none", "global", "local"]
Colour = Literal["RGB", "BGR", "grey"]
OutputKind = Literal["image", "residual"]
OptionValue = bool | int | float | str

# Beyond any network that there is; a number from a damaged file must not ask for all memory.
_LIMITS = {
    **{"steps": (1, 1000), "multiple_of": (1, 4096), "scale": (1, 64), "receptive_field": (0, 1 << 20)},
    "fixed_hw": (1, 1 << 16),
}
_SIZE = re.compile(r"\s*([0-9]{1,5})x([0-9]{1,5})\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSpec:
    """Description of one trained network.

    system: family, as `unblur train SYSTEM` names it, e.g. "lprn"; FOREIGN for a network from elsewhere.
    preset: named configuration of it, e.g. "lprn-s", or the name of a foreign file.
    steps: recursion steps (stages) of this model; 1 where a network has none.
    multiple_of: height and width must be multiples of this many pixels; the runtime pads.
    receptive_field: radius in pixels, i.e. how far an output pixel can see; the halo of a tile. 0 means
        unbounded: a network with global pooling sees the whole frame, whatever the halo.
    pooling: what the attention averages over. "local" and "none" make tiling exact, "global" does not.
    options: the constructor arguments that rebuild the network.
    value_range: black and white in the network's input and output, before mean and std are applied.
    colour: order of the network's channels. A "grey" network has one, and restores R, G and B in turn.
    mean, std: per channel in the network's order; the network takes (value - mean) / std.
    output: "image" is the restored image, "residual" is to be added to the input.
    scale: output size over input size, above 1 for super-resolution.
    input_name, output_name: tensors of the ONNX graph; "" where the graph has only one.
    fixed_hw: the only size that the network takes; None where sizes are free.
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
    colour: Colour = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    output: OutputKind = "image"
    scale: int = 1
    input_name: str = ""
    output_name: str = ""
    fixed_hw: tuple[int, int] | None = None
    training_data: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            values = getattr(self, name)
            for value in (values,) if isinstance(values, int) else values or ():
                if not least <= value <= most:
                    raise SpecMismatch(f"model spec: {name} is {value}, expected {least} to {most}")
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise SpecMismatch(f"model spec: value_range is {low:g},{high:g}, expected LOW,HIGH, LOW below HIGH")
        if not all(math.isfinite(mean) for mean in self.mean) or not all(0 < std < math.inf for std in self.std):
            raise SpecMismatch(f"model spec: mean {self.mean}, std {self.std}; expected numbers, and std above 0")

    @property
    def takes(self) -> str:
        """What images, for people: "RGB, values 0 to 1, sides multiples of 8 px"."""
        (low, high), fixed = self.value_range, self.fixed_hw
        sides = f"{fixed[0]}x{fixed[1]} only" if fixed else f"multiples of {self.multiple_of} px"
        return f"{self.colour}, values {low:g} to {high:g}, sides {sides}"

    def usual_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """`size_hw`, or the only size where larger images cannot be cut into tiles."""
        return self.fixed_hw if self.fixed_hw and not self.receptive_field else size_hw

    def output_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """The size that a frame of that size is restored to."""
        return self.scale * size_hw[0], self.scale * size_hw[1]

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def to_dict(self) -> dict[str, object]:
        """The spec as JSON has it: in schema 1, without the fields for networks from elsewhere, where possible."""
        raw = {each.name: to_json(getattr(self, each.name)) for each in fields(self)}
        if self.colour == "RGB" and all(getattr(self, name) == getattr(ModelSpec, name) for name in _NEW_IN_2):
            return {name: value for name, value in raw.items() if name not in _NEW_IN_2} | {"schema": 1}
        return raw

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "ModelSpec":
        """Parse and check a spec. `where` names the file it came from, for the error message.

        Raises SpecMismatch that names the first field which is missing, unknown or of the wrong type.
        """
        try:
            raw = parse_json(text)
        except ValueError as error:
            raise SpecMismatch(f"{where}: the model spec is not JSON ({error})") from error
        return cls.from_dict(raw, where=where)

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> "ModelSpec":
        """As `from_json`, from an object that is already parsed."""
        try:
            if isinstance(raw, dict) and raw.get("schema") == 1:
                raw = {**{name: to_json(getattr(cls, name)) for name in _NEW_IN_2}, **raw, "schema": SCHEMA}
            check_schema(raw, f"{where}: the model spec", SCHEMA)
            return from_json(cls, raw, f"{where}: the model spec")
        except ValueError as error:
            raise SpecMismatch(f"{error}; export the model again with this version of unblur") from error


_NEW_IN_2 = ("mean", "std", "output", "scale", "input_name", "output_name", "fixed_hw")


@dataclass(frozen=True)
class SpecOverrides:
    """What a user states about a network because it cannot be known, or was guessed wrong; None leaves it.

    The fields are those of ModelSpec. mean, std: one number for all channels, or one for each.
    """

    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    colour: Colour | None = None
    input_name: str | None = None
    output_name: str | None = None
    output: OutputKind | None = None
    multiple_of: int | None = None
    scale: int | None = None

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The spec with what was stated; SpecMismatch if that is impossible, e.g. a range of 1,0."""
        stated = {name: value for name, value in vars(self).items() if value is not None}
        for name in ("mean", "std"):
            if name in stated:
                stated[name] = _per_channel(name, stated[name])
        return replace(spec, **stated)


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """(0.485, 0.456, 0.406) from "0.485,0.456,0.406"; BadInput, which names the option, for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(f"{option} is '{text}', expected numbers with commas between them") from error


def parse_value_range(text: str, option: str = "--value-range") -> tuple[float, float]:
    """(-1.0, 1.0) from "-1,1"; BadInput, which names the option, for anything else."""
    numbers = parse_numbers(text, option)
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise BadInput(f"{option} is '{text}', expected black,white such as 0,1 or -1,1, black below white")
    return numbers[0], numbers[1]


def _per_channel(name: str, values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise SpecMismatch(f"model spec: {name} has {len(values)} numbers, expected 1 or 3")
    return values * (3 // len(values))


def parse_size_hw(text: str, option: str = "--size") -> tuple[int, int]:
    """(height, width) in pixels from "720x1280"; BadInput, which names the option, for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None or 0 in (size_hw := (int(match[1]), int(match[2]))):
        raise BadInput(f"{option} is '{text}', expected height x width such as 720x1280")
    return size_hw


def parse_version(text: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) from "10.13.3.9"; parts that are not numbers are left out."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
