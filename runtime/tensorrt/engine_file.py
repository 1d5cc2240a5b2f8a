"""The JSON beside an engine: what the engine is, where it may run, and what its bytes must be.

    engines/KEY.engine    opaque, written by TensorRT
    engines/KEY.json      an EngineRecord

Nothing can be learned from an engine file itself: TensorRT reads it only on a machine with a GPU, and may crash on
a damaged one. So an engine without its record is never opened, `read_engine` compares every byte with the
record's hash, and `check_engine` says which field forbids this device, both before anything is deserialised.
"""

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unblur.runtime.errors import EngineMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.model.bundle import ENGINES
from unblur.runtime.spec import ModelSpec, Precision, parse_version
from unblur.runtime.strict_json import parse_document, to_json

SUFFIX = ".engine"
SCHEMA = 2

Flavour = Literal["tensorrt", "rtx"]
FLAVOUR_NAMES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}

_KEY_DIGITS = 10
_AMPERE = 80
_REBUILD = "build it again with `unblur build`"


@dataclass(frozen=True)
class Profile:
    """The sizes that an engine takes: from `minimum` to `maximum`, tuned for `optimum`. Each (N, 3, H, W)."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a batch of this shape is inside."""
        return len(shape) == len(self.minimum) and all(
            low <= side <= high for low, side, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def __str__(self) -> str:
        low, high = (f"{n}x{height}x{width}" for n, _, height, width in (self.minimum, self.maximum))
        return low if self.is_fixed else f"{low}..{high}"


@dataclass(frozen=True)
class BuildOptions:
    """What the builder was asked for beside the graph and the sizes.

    level: builder optimisation level 0 to 5, None for the version's default. workspace_mb: limit of scratch memory,
    None for all there is. dla_core: None for the GPU. version_compatible: runs on later minor versions of the same
    major one. hardware_compatible: runs on every GPU from Ampere (SM80) up.
    """

    level: int | None = None
    workspace_mb: int | None = None
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class EngineIdentity:
    """All that makes an engine what it is: when one field changes, the engine has to be built again.

    version: of TensorRT, all its numbers. sm: 10 * major + minor of the compute capability, 87 for Orin. gpu: the
    name of the GPU it was tuned on; None for RTX engines, which were built without one. platform: as
    `this_platform`. onnx_sha256: of the ONNX file it was made from. calibration_sha256: of the calibration cache of
    implicit INT8, which is made from the fp32 file; None where the graph itself holds the precision.
    """

    flavour: Flavour
    version: str
    sm: int
    gpu: str | None
    platform: str
    precision: Precision
    steps: int
    profiles: tuple[Profile, ...]
    options: BuildOptions
    onnx_sha256: str
    calibration_sha256: str | None = None

    @property
    def key(self) -> str:
        """The stem of the engine's file name: what a person looks for, then a digest of every field."""
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]
        return f"{self.flavour}-{self.version}-sm{self.sm}-{self.precision}-{self.steps}-{digest}"


@dataclass(frozen=True)
class EngineRecord:
    """The contents of `KEY.json`. input, output: names of the tensors. seconds: that the build took."""

    identity: EngineIdentity
    spec: ModelSpec
    input: str
    output: str
    engine_sha256: str
    engine_bytes: int
    seconds: float
    schema: int = SCHEMA

    def profile_for(self, shape: tuple[int, ...]) -> int:
        """The index of the first profile that holds a batch of `shape`; EngineMismatch if none does."""
        for index, profile in enumerate(self.identity.profiles):
            if profile.holds(shape):
                return index
        present = ", ".join(map(str, self.identity.profiles))
        wanted = "x".join(str(side) for index, side in enumerate(shape) if index != 1)
        raise EngineMismatch(
            f"the engine takes batches (N x H x W) of {present}, got {wanted}; build one with `unblur build --size`"
        )


@dataclass(frozen=True)
class DeviceFacts:
    """What this machine offers an engine; the fields mean what they mean in EngineIdentity."""

    flavour: Flavour
    version: str
    sm: int
    gpu: str
    platform: str


def this_platform() -> str:
    """Operating system and processor: "linux-x86_64", "linux-aarch64", "windows-amd64"."""
    return f"{platform.system()}-{platform.machine()}".lower()


def record_path(engine: Path) -> Path:
    """Where the record of an engine file lies."""
    return engine.with_suffix(".json")


def find_engines(folder: Path) -> list[Path]:
    """The engine files of a bundle or of a folder, in order of name; half-written ones are not among them."""
    inside = folder / ENGINES
    files = (inside if inside.is_dir() else folder).glob(f"*{SUFFIX}")
    return sorted(file for file in files if not file.name.startswith("."))


def owner_of(engine: Path) -> Path | None:
    """The bundle that an engine file lies in, if it lies in one."""
    return engine.parent.parent if engine.parent.name == ENGINES else None


def write_engine(folder: Path, engine: bytes, record: EngineRecord) -> Path:
    """Write `KEY.engine` and its record; returns the path of the engine.

    engine: the bytes that the record holds the hash of. A kill at any moment leaves what was there before, or this:
    it lies beside its place until the record is there, and `read_engine` finds it there. Raises BadInput if they
    cannot be written.
    """
    path = folder / f"{record.identity.key}{SUFFIX}"
    with atomic_file(_coming(path)) as temporary:
        temporary.write_bytes(engine)
    with atomic_file(record_path(path)) as temporary:
        temporary.write_text(json.dumps(to_json(record), indent=1, sort_keys=True, allow_nan=False) + "\n")
    _coming(path).replace(path)
    return path


def _coming(engine: Path) -> Path:
    """Where an engine lies until its record is written."""
    return engine.with_name(f".{engine.name}.coming")


def read_record(engine: Path) -> EngineRecord:
    """The record of an engine file, checked; the engine itself is not read.

    Raises EngineMismatch if it is missing, is not a record of this version, or describes an engine of another name.
    """
    path = record_path(engine)
    try:
        record = parse_document(EngineRecord, path.read_bytes(), str(path), schema=SCHEMA)
    except FileNotFoundError as error:
        raise EngineMismatch(f"{engine} has no {path.name} beside it; {_REBUILD}") from error
    except OSError as error:
        raise EngineMismatch(f"{path} cannot be read: {error.strerror or error}; {_REBUILD}") from error
    except ValueError as error:
        raise EngineMismatch(f"{error}; {_REBUILD}") from error
    if record.identity.key != engine.stem:
        raise EngineMismatch(f"{path} describes the engine {record.identity.key}, not {engine.stem}; {_REBUILD}")
    return record


def read_engine(engine: Path, record: EngineRecord) -> bytes:
    """The bytes of an engine, which are those that were built; EngineMismatch if they are not."""
    _recover(engine, record)
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise EngineMismatch(f"{engine} cannot be read: {error.strerror or error}; {_REBUILD}") from error
    if len(data) != record.engine_bytes:
        raise EngineMismatch(f"{engine} has {len(data)} bytes, expected {record.engine_bytes}; {_REBUILD}")
    if hash_of(data) != record.engine_sha256:
        raise EngineMismatch(f"{engine} is altered, its sha256 differs; {_REBUILD}")
    return data


def _recover(engine: Path, record: EngineRecord) -> None:
    """Put an engine in its place if the run that wrote its record was killed before it could."""
    coming = _coming(engine)
    with suppress(OSError):  # there is none, or the folder cannot be written
        if hash_of(coming.read_bytes()) == record.engine_sha256:
            coming.replace(engine)


def hash_of(data: bytes) -> str:
    """64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_engine(record: EngineRecord, device: DeviceFacts) -> None:
    """Raise EngineMismatch that names the first field which forbids running the engine on `device`."""
    engine = record.identity
    _require("the flavour", FLAVOUR_NAMES[engine.flavour], FLAVOUR_NAMES[device.flavour])
    _require("the operating system", engine.platform, device.platform)
    if not _version_fits(engine, device.version):
        _require(f"the {FLAVOUR_NAMES[engine.flavour]} version", engine.version, device.version)
    if engine.options.hardware_compatible and device.sm >= _AMPERE:
        return
    _require("the GPU architecture", f"SM{engine.sm}", f"SM{device.sm}")
    if engine.gpu is not None:
        _require("the GPU", engine.gpu, device.gpu)


def _require(field: str, built_for: str, here: str) -> None:
    if built_for != here:
        raise EngineMismatch(f"{field} differs: the engine is for {built_for}, this device has {here}; {_REBUILD}")


def _version_fits(engine: EngineIdentity, version: str) -> bool:
    """Equal, or later within the same major version if the engine was built to allow that."""
    if not engine.options.version_compatible:
        return engine.version == version
    built, here = parse_version(engine.version), parse_version(version)
    return built[:1] == here[:1] and built <= here
