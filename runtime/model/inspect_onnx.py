"""The spec of an ONNX file that unblur did not write, by inspection and by running it on small images.

    spec, precision, lines = inspect_onnx(Path("nafnet.onnx"), SpecOverrides(value_range=(-1.0, 1.0)))

What is found: the tensors, channels, whether sizes are free, the multiple that sides must have, the scale, and how
far an output pixel sees, by changing a few rows of a narrow strip. What is guessed, from a photograph and a grey
image: the value range, and whether the output is the image or what must be added to it. What a user states goes
before both.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import cell_means
from unblur.runtime.images import read_image
from unblur.runtime.metrics import luma
from unblur.runtime.model.onnx_header import read_header
from unblur.runtime.model.onnx_session import ORT_ERRORS, first_line, open_session, session_options
from unblur.runtime.spec import FOREIGN, ModelSpec, OutputKind, Precision, SpecOverrides
from unblur.runtime.strict_json import parse_json

Values = NDArray[np.float32]

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 5, 6, 7, 10, 12, 14, 20, 24, 28, 48, 56, 96)
_BASE_HW = (64, 96)  # even multiples of every power of two up to 32
_RANGES = ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (0.0, 255.0))
_PREFERRED_DB = 3.0  # -0.5 to 0.5 is taken rather than 0 to 1 only if the image comes back better by this,
_GOOD_DB = 30.0  # and in 0 to 1 worse than this
_PLAUSIBLE_DB = 20.0  # an image that comes back worse than this was given in a wrong range
_RESIDUAL_DB = 3.0  # an output is held to be a residual only if that explains it better by this
_STRIPS = (512, 1536, 3072)  # rows; a network that sees from the middle to the ends of the last sees everything
_SLOW_S = 2.5  # a strip that took longer is the last
_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PHOTO = Path(__file__).with_name("probe.jpg")  # Eileen Collins by NASA, in the public domain; a part of it
_CACHE_VERSION = 2


@dataclass(frozen=True)
class Inspection:
    """lines: what was found, for people."""

    spec: ModelSpec
    precision: Precision
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or output. shape: integers, or names where a side is free."""

    name: str
    type: str
    shape: tuple[object, ...]

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(str(side) if side is not None else '?' for side in self.shape)}"


def inspect_onnx(path: Path, overrides: SpecOverrides = SpecOverrides()) -> Inspection:
    """What must be known to run the network in `path`; found once for a file, and remembered in the user's cache.

    Raises BadInput if the file does not load, SpecMismatch in one line if it is not a network from an image to an
    image, or if what is stated is impossible.
    """
    named = SpecOverrides(input_name=overrides.input_name, output_name=overrides.output_name)
    note = _cache_folder() / f"{_key(path, named)}.json"
    found = _recall(note, path)
    if found is None:
        found = _inspect(path, named)
        _remember(note, found)
    spec = replace(overrides.apply(found.spec), preset=path.stem)
    return Inspection(spec, found.precision, (*found.lines, *_lines(spec, overrides)))


def _inspect(path: Path, named: SpecOverrides) -> Inspection:
    probe = _Probe(path, named)
    spec = ModelSpec(
        system=FOREIGN,
        preset=path.stem,
        steps=1,
        multiple_of=probe.multiple_of,
        receptive_field=0,
        pooling="none",
        colour="grey" if probe.channels == 1 else "RGB",
        scale=probe.scale,
        input_name=probe.input.name,
        output_name=probe.output.name,
        fixed_hw=probe.fixed_hw,
        licence="unknown",
    )
    value_range, output = probe.guess_values()
    radius = probe.receptive_field(value_range)
    spec = replace(
        spec,
        value_range=value_range,
        output=output,
        receptive_field=radius,
        pooling="none" if radius else "global",
    )
    header = read_header(path)
    half = header.half or probe.input.type == "tensor(float16)"
    precision: Precision = "int8" if "DequantizeLinear" in header.operators else "fp16" if half else "fp32"
    return Inspection(spec, precision, probe.notes)


class _Probe:
    """A session on the file, and what running it on small images shows."""

    def __init__(self, path: Path, named: SpecOverrides) -> None:
        self.path = path
        self.notes: tuple[str, ...] = ()
        self._session = open_session(path, session_options())
        self.input = self._find_input(named.input_name)
        self.channels, self.fixed_hw = self._read_shape()
        self._outputs = [_tensor(output) for output in self._session.get_outputs()]
        if named.output_name is not None and named.output_name not in {output.name for output in self._outputs}:
            raise SpecMismatch(f"{path} has no output '{named.output_name}'; it has {_listed(self._outputs)}")
        self.output, self.multiple_of, self.scale = self._find_sizes(named.output_name)

    def run(self, values: Values) -> Values:
        """The output of (1, C, H, W)."""
        (restored,) = self._session.run([self.output.name], {self.input.name: self._cast(values)})
        return np.asarray(restored, np.float32)

    def guess_values(self) -> tuple[tuple[float, float], OutputKind]:
        """The value range in which an image comes back much as it was, and whether it or a residual does.

        A wider range makes what a network adds look smaller, so the narrowest that is plausible is taken.
        """
        clipped = self._clipping_range()
        if clipped is not None:
            return clipped, "image"
        found = [(value_range, *self._likeness(value_range)) for value_range in _RANGES]
        if not any(likeness_db > -math.inf for _, _, likeness_db in found):
            raise SpecMismatch(
                f"{self.path} gives NaN or infinity for a photograph in any range of values; check its weights"
            )
        if found[0][2] < min(found[1][2] - _PREFERRED_DB, _GOOD_DB):
            found[:2] = found[1::-1]
        value_range, kind, _ = next((each for each in found if each[2] >= _PLAUSIBLE_DB), found[0])
        return value_range, kind

    def _likeness(self, value_range: tuple[float, float]) -> tuple[OutputKind, float]:
        """What the output is, and how like themselves a photograph and a grey image come back, in dB."""
        photo, grey = self._photo(), np.full((1, self.channels, *self._working_hw()), 0.5, np.float32)
        errors = [self._errors(values, value_range) for values in (photo, grey)]
        image, residual = (_db(first + second) for first, second in zip(*errors, strict=True))
        return ("residual", residual) if residual > image + _RESIDUAL_DB else ("image", image)

    def receptive_field(self, value_range: tuple[float, float]) -> int:
        """How many pixels away a change still changes the output; 0 if everywhere."""
        low, high = value_range
        rng = np.random.default_rng(0)
        for rows in _STRIPS:
            size_hw = self.fixed_hw or (_up(rows, self.multiple_of), _up(_BASE_HW[0], self.multiple_of))
            values = rng.uniform(low, high, (1, self.channels, *size_hw)).astype(np.float32)
            began_s = time.perf_counter()
            radius = self._reach(values, size_hw, low + high)
            if radius is not None or self.fixed_hw is not None or time.perf_counter() - began_s > _SLOW_S:
                return radius or 0
        return 0

    def _reach(self, values: Values, size_hw: tuple[int, int], mirror: float) -> int | None:
        """The distance in pixels to which a change of the middle rows reaches; None if to an end of the strip."""
        before = self.run(values)
        first = size_hw[0] // 2 // self.multiple_of * self.multiple_of
        end = first + self.multiple_of
        values[:, :, first:end] = mirror - values[:, :, first:end]
        changed = np.flatnonzero((self.run(values) != before).any(axis=(0, 1, 3))) // self.scale
        if len(changed) == 0:
            return self.multiple_of  # the output does not depend on the input there; a halo costs little
        if changed[0] == 0 or changed[-1] == size_hw[0] - 1:
            return None
        return max(first - int(changed[0]), int(changed[-1]) - end + 1, 1)

    def _find_input(self, name: str | None) -> Tensor:
        inputs = [_tensor(value) for value in self._session.get_inputs()]
        if name is not None and name not in {each.name for each in inputs}:
            raise SpecMismatch(f"{self.path} has no input '{name}'; it has {_listed(inputs)}")
        found = [each for each in inputs if name in (None, each.name)]
        if len(inputs) != 1:
            raise SpecMismatch(
                f"{self.path} has {len(inputs)} inputs ({_listed(inputs)}), expected one image; make the others "
                "constants of the graph"
            )
        if len(found[0].shape) != 4 or found[0].type not in _FLOAT_TYPES:
            raise SpecMismatch(
                f"{self.path} takes {found[0]} of {found[0].type}, expected an image of (N, C, H, W) in float"
            )
        return found[0]

    def _read_shape(self) -> tuple[int, tuple[int, int] | None]:
        _, channels, height, width = self.input.shape
        if width in (1, 3) and channels not in (1, 3):
            raise SpecMismatch(
                f"{self.path} takes {self.input}, channels last; export it channels first, with tf2onnx by "
                f"--inputs-as-nchw {self.input.name}"
            )
        if isinstance(channels, int) and channels not in (1, 3):
            raise SpecMismatch(f"{self.path} takes {self.input}, expected an image of 1 or 3 channels")
        fixed = [side for side in (height, width) if isinstance(side, int)]
        if len(fixed) == 1:
            raise SpecMismatch(
                f"{self.path} takes {self.input}, free in one direction only; export it with both sides free"
            )
        return channels if isinstance(channels, int) else 3, cast(Any, tuple(fixed) or None)

    def _find_sizes(self, output_name: str | None) -> tuple[Tensor, int, int]:
        """The output, the least multiple of the sides with which it fits the input, and its scale."""
        problem = ""
        for multiple_of in _MULTIPLES if self.fixed_hw is None else (1,):
            size_hw = self.fixed_hw or cast(
                tuple[int, int], tuple(_odd_multiple(side, multiple_of) for side in _BASE_HW)
            )
            values = np.full((1, self.channels, *size_hw), 0.5, np.float32)
            try:
                outputs = self._session.run(None, {self.input.name: self._cast(values)})
            except ORT_ERRORS as error:
                problem = f"does not run on {size_hw[0]}x{size_hw[1]}: {first_line(error)}"
                continue
            shapes = [
                Tensor(each.name, each.type, np.shape(value))
                for each, value in zip(self._outputs, outputs, strict=True)
            ]
            scales = [_scale(each.shape, values.shape) for each in shapes]
            chosen = _chosen(self.path, shapes, scales, output_name)
            if chosen is not None:
                if output_name is None and len(shapes) > 1:
                    self.notes = (
                        f"of its {len(shapes)} outputs ({_listed(shapes)}) {shapes[chosen].name}, of full size, is "
                        "taken; --output-name states another",
                    )
                return shapes[chosen], multiple_of, scales[chosen]
            problem = (
                f"gives {_listed(shapes)} for an image of {size_hw[0]}x{size_hw[1]}, expected an image of that "
                "size or a whole multiple of it; a classifier or a detector cannot be run"
            )
        raise SpecMismatch(f"{self.path} {problem}")

    def _clipping_range(self) -> tuple[float, float] | None:
        """The range that the output is clipped or squashed to, if it is one of those that are in use."""
        noise = np.random.default_rng(0).uniform(-1000, 1000, (1, self.channels, *self._working_hw()))
        restored = self.run(noise.astype(np.float32))
        ends = float(restored.min()), float(restored.max())
        return next((known for known in _RANGES if np.allclose(ends, known, atol=1e-3 * known[1])), None)

    def _errors(self, image: Values, value_range: tuple[float, float]) -> tuple[float, float]:
        """Mean squared differences to the image if the output is (the image, a residual)."""
        low, high = value_range
        restored = cell_means(self.run(image * (high - low) + low), self.scale)
        if not np.isfinite(restored).any():
            return math.nan, math.nan
        full = np.nanmean(np.square((restored - low) / (high - low) - image, dtype=np.float64))
        is_residual = self.scale == 1 and np.ptp(restored) > 0  # of a constant nothing can be told
        residual = np.nanmean(np.square(restored / (high - low), dtype=np.float64)) if is_residual else math.inf
        return float(full), float(residual)

    def _working_hw(self) -> tuple[int, int]:
        return self.fixed_hw or (_up(_BASE_HW[0], self.multiple_of), _up(_BASE_HW[1], self.multiple_of))

    def _photo(self) -> Values:
        """The photograph in [0, 1] at the size that is worked with, repeated as often as it takes."""
        photo = read_image(_PHOTO) / np.float32(255)
        pixels = luma(photo)[..., None] if self.channels == 1 else photo
        height, width = self._working_hw()
        repeats = (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1)
        tiled = np.tile(pixels, repeats)[:height, :width]
        return np.ascontiguousarray(tiled.transpose(2, 0, 1)[None], np.float32)

    def _cast(self, values: Values) -> NDArray[np.floating]:
        return values.astype(_FLOAT_TYPES[self.input.type], copy=False)


def _tensor(value: onnxruntime.NodeArg) -> Tensor:
    return Tensor(value.name, value.type, tuple(value.shape))


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(map(str, tensors))


def _scale(shape: tuple[object, ...], image: tuple[int, ...]) -> int:
    """How much larger an output is than the image, a whole number; 0 if it is not an image of such a size."""
    if len(shape) != 4 or shape[:2] != image[:2]:
        return 0
    (height, width), (rows, columns) = cast(tuple[int, int], shape[2:]), image[2:]
    return height // rows if height % rows == 0 and height // rows * columns == width else 0


def _chosen(path: Path, outputs: Sequence[Tensor], scales: Sequence[int], name: str | None) -> int | None:
    """The index of the output to take: the one that is named, else the only one of the full size."""
    fitting = [index for index, scale in enumerate(scales) if scale and name in (None, outputs[index].name)]
    if len(fitting) > 1:
        raise SpecMismatch(
            f"{path} has {len(outputs)} outputs ({_listed(outputs)}); give --output-name, for example "
            f"{outputs[fitting[-1]].name}, one of full size"
        )
    return fitting[0] if fitting else None


def _odd_multiple(base: int, multiple_of: int) -> int:
    """A size near `base` that is a multiple of this and of no larger power of two times it."""
    times = -(-base // multiple_of)
    return (times + 1 - times % 2) * multiple_of


def _lines(spec: ModelSpec, overrides: SpecOverrides) -> tuple[str, ...]:
    """What was found, what was guessed, and what was stated."""
    low, high = spec.value_range
    sides = f"{spec.fixed_hw[0]}x{spec.fixed_hw[1]} only" if spec.fixed_hw else f"multiples of {spec.multiple_of}"
    sees = f"{spec.receptive_field} pixels" if spec.receptive_field else "the whole image"
    guess = "stated" if overrides.value_range else "a guess, --value-range states it"
    return (
        f"input {spec.input_name}, output {spec.output_name}, {spec.colour}, sides {sides}, scale {spec.scale}",
        f"an output pixel sees {sees}; the output is {'an image' if spec.output == 'image' else 'a residual'}",
        f"values from {low:g} to {high:g} ({guess})",
    )


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "unblur" / "specs"


def _key(path: Path, named: SpecOverrides) -> str:
    """Of everything that decides what is found."""
    digest = hashlib.sha256(f"{_CACHE_VERSION} {onnxruntime.__version__} {named}".encode())
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(f"{path} does not exist; expected an .onnx file") from error
    return digest.hexdigest()[:32]


def _recall(note: Path, path: Path) -> Inspection | None:
    """What was found before; None if nothing was, or what is there cannot be read."""
    try:
        raw = parse_json(note.read_bytes())
        return Inspection(ModelSpec.from_dict(raw["spec"], where=str(path)), raw["precision"], tuple(raw["lines"]))
    except (OSError, ValueError, KeyError, SpecMismatch):
        return None


def _remember(note: Path, found: Inspection) -> None:
    """Written whole or not at all; a cache that cannot be written is only slower."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(note) as temporary:
            found_json = {"spec": found.spec.to_dict(), "precision": found.precision, "lines": found.lines}
            temporary.write_text(json.dumps(found_json))
    except (OSError, BadInput):
        return


def _db(mean_square: float) -> float:
    return math.inf if mean_square == 0 else -10 * math.log10(mean_square)


def _up(value: int, multiple_of: int) -> int:
    return -(-value // multiple_of) * multiple_of
