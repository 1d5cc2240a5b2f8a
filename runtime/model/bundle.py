"""A bundle: one folder `NAME.unblur/` with everything that a device needs to run a model and to trust it.

    bundle = read_bundle(Path("lprn-s.unblur"))
    onnx = bundle.path / bundle.variant("fp32").file

`bundle.json` lists every other file with its size and sha256, and `bundle.json.sha256` covers `bundle.json`, so
one changed byte anywhere is found, before anything in the bundle is parsed. That is against damage and
mix-ups; it is not a signature: whoever can rewrite a file can rewrite its hash.

`engines/` may gain files on the device after sealing; each brings its own JSON, checked by who loads it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from unblur.runtime.errors import BundleError, SpecMismatch
from unblur.runtime.model.onnx_header import read_header
from unblur.runtime.quality.parity import Hop
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.strict_json import parse_document, to_json

SUFFIX = ".unblur"
MANIFEST = "bundle.json"
MANIFEST_SHA256 = "bundle.json.sha256"
ENGINES = "engines"
SCHEMA = 1

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be. sha256: 64 lower-case hexadecimal digits."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Variant:
    """The model at one precision and number of recursion steps. file: path in the bundle."""

    precision: Precision
    steps: int
    file: str


@dataclass(frozen=True)
class Golden:
    """An input and what the variant of that precision and steps made of it when the bundle was built.

    input: uint8 (H, W, 3) as .npy. expected: float32 (1, 3, H, W) as .npy. Both are paths in the bundle.
    """

    precision: Precision
    steps: int
    input: str
    expected: str


@dataclass(frozen=True)
class BundleManifest:
    """The contents of `bundle.json`.

    name: of the model, "lprn-s". created: UTC, ISO 8601. versions: of the packages that built it ("unblur",
    "onnx", "onnxruntime", "torch"). ledger: the parity of the variants, measured at build. calibration_id: of the
    table that the INT8 variants were made with. files: every file but the manifest and its
    hash; `seal_bundle` fills it.
    """

    name: str
    spec: ModelSpec
    created: str
    versions: Mapping[str, str]
    variants: tuple[Variant, ...]
    ledger: tuple[Hop, ...] = ()
    golden: tuple[Golden, ...] = ()
    calibration_id: str | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The text of `bundle.json`; equal manifests give equal bytes."""
        return json.dumps(to_json(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "BundleManifest":
        """Parse and check; BundleError or SpecMismatch, naming `where` and the first field at fault."""
        try:
            manifest = parse_document(cls, text, where, schema=SCHEMA)
        except ValueError as error:
            raise BundleError(f"{error}; deploy the bundle again") from error
        _check_references(manifest, where)
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine whose files were all there and unaltered when it was read."""

    path: Path
    manifest: BundleManifest

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    def variant(self, precision: Precision, steps: int | None = None) -> Variant:
        """The variant of that precision and number of steps (default: the model's own).

        Raises SpecMismatch that lists what there is.
        """
        wanted = steps or self.spec.steps
        for variant in self.manifest.variants:
            if (variant.precision, variant.steps) == (precision, wanted):
                return variant
        present = ", ".join(f"{variant.precision} at {variant.steps}" for variant in self.manifest.variants)
        raise SpecMismatch(f"{self.path} has no {precision} variant at {wanted} steps; it has {present}")

    def golden(self, variant: Variant) -> Golden | None:
        """The golden vectors of a variant, if it has any."""
        key = (variant.precision, variant.steps)
        return next((item for item in self.manifest.golden if (item.precision, item.steps) == key), None)


def read_bundle(path: Path) -> Bundle:
    """Check every byte of the bundle at `path`, then parse its manifest; nothing else is parsed here.

    Raises BundleError that names the file which is missing, altered, extra or outside the bundle, or the
    field of the manifest that is wrong.
    """
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}; make one with `unblur deploy`")
    try:
        manifest = BundleManifest.from_json(_checked_manifest(path), where=str(path / MANIFEST))
        for name, entry in manifest.files.items():
            _check_file(path, name, entry)
            if name.endswith(".onnx"):
                _check_weights(path, name)
        _check_no_extra_files(path, manifest)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    return Bundle(path, manifest)


def seal_bundle(folder: Path, manifest: BundleManifest) -> BundleManifest:
    """Write `bundle.json` and its hash over all files that are in `folder`; returns the manifest with `files`.

    Call it last, inside `atomic_folder`. Raises BundleError if the manifest names a file that is not there.
    """
    files = {name: _entry(folder / name) for name in _file_names(folder)}
    sealed = replace(manifest, files=files)
    _check_references(sealed, str(folder))
    data = sealed.to_json().encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_SHA256).write_bytes(_hash_line(data))
    return sealed


def _checked_manifest(path: Path) -> bytes:
    data = (path / MANIFEST).read_bytes()
    hash_file = path / MANIFEST_SHA256
    if not hash_file.is_file():
        raise BundleError(f"{path}: {MANIFEST_SHA256} is missing; copy the bundle again")
    if hash_file.read_bytes() != _hash_line(data):
        raise BundleError(f"{path}: {MANIFEST} or {MANIFEST_SHA256} is altered; copy the bundle again")
    return data


def _hash_line(data: bytes) -> bytes:
    """What `sha256sum bundle.json` prints, so that a person can check it without unblur."""
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()


def _check_file(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    if not file.is_file():
        raise BundleError(f"{path}: {name} is missing; copy the bundle again")
    if file.stat().st_size != entry.bytes:
        raise BundleError(
            f"{path}: {name} has {file.stat().st_size} bytes, expected {entry.bytes}; copy the bundle again"
        )
    if _sha256(file) != entry.sha256:
        raise BundleError(f"{path}: {name} is altered, its sha256 differs; copy the bundle again")


def _check_weights(path: Path, name: str) -> None:
    """All of them are in the file itself: what it refers to has no hash here, and may lie anywhere."""
    try:
        external = read_header(path / name).external
    except ValueError:  # who opens it says what is wrong
        return
    if external:
        raise BundleError(f"{path}: {name} keeps weights in {external[0]}, outside the bundle; deploy it again")


def _check_no_extra_files(path: Path, manifest: BundleManifest) -> None:
    for name in _file_names(path):
        if name not in manifest.files and PurePosixPath(name).parts[0] != ENGINES:
            raise BundleError(f"{path}: {name} does not belong to the bundle; remove it")


def _file_names(path: Path) -> Iterator[str]:
    """All files but the manifest and its hash, as sorted paths in the bundle; links are refused."""
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            raise BundleError(f"{path}: {name} is a link, expected a file; copy the bundle with its contents")
        if not file.is_dir() and name not in (MANIFEST, MANIFEST_SHA256):
            yield name


def _entry(file: Path) -> FileEntry:
    return FileEntry(_sha256(file), file.stat().st_size)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_references(manifest: BundleManifest, where: str) -> None:
    for name in manifest.files:
        _check_name(name, where)
    referenced = [variant.file for variant in manifest.variants]
    referenced += [name for golden in manifest.golden for name in (golden.input, golden.expected)]
    for name in referenced:
        if name not in manifest.files:
            raise BundleError(f"{where} refers to {name}, which is not among the files of the bundle")
    keys = [(variant.precision, variant.steps) for variant in manifest.variants]
    if not keys or len(set(keys)) != len(keys):
        raise BundleError(f"{where} lists the variants {keys}, expected at least one and none twice")


def _check_name(name: str, where: str) -> None:
    pure = PurePosixPath(name)
    outside = pure.is_absolute() or ".." in pure.parts or any(char in name for char in "\\:\0")
    if outside or name != pure.as_posix() or name in (".", MANIFEST, MANIFEST_SHA256):
        raise BundleError(f"{where} lists a file '{name}', which is not a path inside the bundle")
