"""The record beside an engine: written, read, refused, and compared with a device."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unblur.runtime.errors import BadInput, EngineMismatch
from unblur.runtime.spec import ModelSpec
from unblur.runtime.tensorrt.engine_file import (
    BuildOptions,
    DeviceFacts,
    EngineIdentity,
    EngineRecord,
    Profile,
    check_engine,
    find_engines,
    hash_of,
    read_engine,
    read_record,
    record_path,
    write_engine,
)

ENGINE = b"not really an engine, but nobody may look inside"
SMALL, LARGE = (1, 3, 64, 96), (2, 3, 128, 192)
IDENTITY = EngineIdentity(
    flavour="tensorrt",
    version="10.3.0",
    sm=87,
    gpu="Orin",
    platform="linux-aarch64",
    precision="int8",
    steps=4,
    profiles=(Profile(SMALL, SMALL, SMALL), Profile(SMALL, SMALL, LARGE)),
    options=BuildOptions(),
    onnx_sha256="0" * 64,
)
DEVICE = DeviceFacts("tensorrt", "10.3.0", 87, "Orin", "linux-aarch64")


def record(**changes: Any) -> EngineRecord:
    spec = ModelSpec("lprn", "lprn-s", steps=4, multiple_of=4, receptive_field=40, pooling="local")
    return EngineRecord(
        identity=replace(IDENTITY, **changes),
        spec=spec,
        input="blurred",
        output="restored",
        engine_sha256=hash_of(ENGINE),
        engine_bytes=len(ENGINE),
        seconds=1.5,
    )


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path, ENGINE, record())


def test_what_is_written_is_what_is_read(engine: Path) -> None:
    assert read_record(engine) == record()
    assert read_engine(engine, record()) == ENGINE
    assert find_engines(engine.parent) == [engine]


def test_engines_are_found_in_a_bundle_and_half_written_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    engine = write_engine(tmp_path / "engines", ENGINE, record())
    engine.with_name(f".{engine.stem}.1.partial.engine").write_bytes(ENGINE[:9])
    assert find_engines(tmp_path) == [engine]


@pytest.mark.parametrize(
    "change",
    [
        {"flavour": "rtx"},
        {"version": "10.3.1"},
        {"sm": 86},
        {"gpu": None},
        {"platform": "linux-x86_64"},
        {"precision": "fp16"},
        {"steps": 3},
        {"profiles": IDENTITY.profiles[:1]},
        {"options": BuildOptions(level=5)},
        {"onnx_sha256": "1" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_changes_the_key(change: dict[str, Any]) -> None:
    assert replace(IDENTITY, **change).key != IDENTITY.key


def test_the_key_is_readable_and_lasting() -> None:
    assert IDENTITY.key.startswith("tensorrt-10.3.0-sm87-int8-4-")
    assert replace(IDENTITY).key == IDENTITY.key


@pytest.mark.parametrize("damaged", [ENGINE[:-1], b"", ENGINE + b"x"], ids=["truncated", "empty", "longer"])
def test_another_length_is_refused(engine: Path, damaged: bytes) -> None:
    engine.write_bytes(damaged)
    with pytest.raises(EngineMismatch, match=rf"has {len(damaged)} bytes, expected {len(ENGINE)}; build it again"):
        read_engine(engine, read_record(engine))


def test_one_changed_byte_is_refused(engine: Path) -> None:
    engine.write_bytes(b"N" + ENGINE[1:])
    with pytest.raises(EngineMismatch, match="is altered, its sha256 differs; build it again"):
        read_engine(engine, read_record(engine))


def test_a_missing_engine_is_refused(engine: Path) -> None:
    engine.unlink()
    with pytest.raises(EngineMismatch, match=r"\.engine cannot be read: No such file"):
        read_engine(engine, read_record(engine))


def test_an_engine_without_a_record_is_refused(engine: Path) -> None:
    record_path(engine).unlink()
    with pytest.raises(EngineMismatch, match=r"has no tensorrt-10\.3\.0-.*\.json beside it; build it again"):
        read_record(engine)


def test_a_record_that_cannot_be_opened_is_refused(engine: Path) -> None:
    record_path(engine).unlink()
    record_path(engine).mkdir()
    with pytest.raises(EngineMismatch, match=r"\.json cannot be read: Is a directory; build it again"):
        read_record(engine)


def test_a_record_of_another_schema_is_refused(engine: Path) -> None:
    record_path(engine).write_text('{"schema": 99}')
    with pytest.raises(EngineMismatch, match=r"has schema 99, this version of unblur reads 2; build it again"):
        read_record(engine)


def test_a_truncated_record_is_refused(engine: Path) -> None:
    path = record_path(engine)
    path.write_text(path.read_text()[:40])
    with pytest.raises(EngineMismatch, match="build it again"):
        read_record(engine)


def test_a_record_of_another_engine_is_refused(engine: Path) -> None:
    raw = json.loads(record_path(engine).read_text())
    raw["identity"]["sm"] = 72
    record_path(engine).write_text(json.dumps(raw))
    with pytest.raises(EngineMismatch, match=r"describes the engine tensorrt-10\.3\.0-sm72-.*, not tensorrt-"):
        read_record(engine)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*the folder .* does not exist"):
        write_engine(tmp_path / "none", ENGINE, record())


def test_an_engine_of_this_device_passes() -> None:
    check_engine(record(), DEVICE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flavour": "rtx"}, "the flavour differs: the engine is for TensorRT-RTX, this device has TensorRT"),
        ({"platform": "linux-x86_64"}, "the operating system differs: the engine is for linux-x86_64, this device"),
        ({"version": "10.3.1"}, "the TensorRT version differs: the engine is for 10.3.1, this device has 10.3.0"),
        ({"sm": 86}, "the GPU architecture differs: the engine is for SM86, this device has SM87"),
        ({"gpu": "Xavier"}, "the GPU differs: the engine is for Xavier, this device has Orin; build it again with"),
    ],
)
def test_the_field_that_differs_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineMismatch, match=message):
        check_engine(record(**change), DEVICE)


@pytest.mark.parametrize(
    ("version", "fits"), [("10.3.0", True), ("10.13.2", True), ("10.2.9", False), ("11.4", False)]
)
def test_a_version_compatible_engine_goes_forward_within_its_major_version(version: str, fits: bool) -> None:
    device = replace(DEVICE, version=version)
    compatible = record(options=BuildOptions(version_compatible=True))
    if fits:
        check_engine(compatible, device)
    else:
        with pytest.raises(EngineMismatch, match="TensorRT version differs"):
            check_engine(compatible, device)


def test_a_hardware_compatible_engine_runs_from_ampere_up() -> None:
    compatible = record(options=BuildOptions(hardware_compatible=True), sm=86, gpu="RTX 3060")
    check_engine(compatible, replace(DEVICE, sm=120, gpu="RTX 5090"))
    with pytest.raises(EngineMismatch, match="for SM86, this device has SM75"):
        check_engine(compatible, replace(DEVICE, sm=75, gpu="T4"))


def test_an_rtx_engine_runs_on_every_gpu_of_its_architecture() -> None:
    check_engine(record(flavour="rtx", gpu=None), replace(DEVICE, flavour="rtx", gpu="RTX 4090"))


def test_the_first_profile_that_holds_a_batch() -> None:
    assert [record().profile_for(shape) for shape in (SMALL, LARGE, (1, 3, 100, 100))] == [0, 1, 1]


def test_a_size_outside_the_profiles_is_refused() -> None:
    with pytest.raises(EngineMismatch, match=r"of 1x64x96, 1x64x96\.\.2x128x192, got 3x64x96; build one with"):
        record().profile_for((3, 3, 64, 96))
