"""Engines in a folder, each built once: by key, one process at a time, whole or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unblur.export.engine_from_onnx import BuildWatch, Built, Source, engine_from_onnx
from unblur.export.file_lock import exclusive
from unblur.export.timing_cache import timing_cache
from unblur.export.trt_api import TrtApi
from unblur.runtime.engine.record import (
    SUFFIX,
    EngineIdentity,
    EngineRecord,
    read_engine,
    read_record,
    record_path,
    write_engine,
)
from unblur.runtime.errors import BadInput, EngineMismatch


@dataclass(frozen=True)
class Stored:
    """An engine in its folder. built: what building it gave; None if it was there already."""

    path: Path
    record: EngineRecord
    built: Built | None


def store_engine(
    source: Source,
    identity: EngineIdentity,
    api: TrtApi,
    folder: Path,
    watch: BuildWatch,
    *,
    force: bool = False,
    detailed: bool = False,
    waiting: Callable[[], object] = lambda: None,
) -> Stored:
    """The engine of that identity in `folder`, built now if it is not there or is damaged.

    Anything that matters changes the key, so a changed model or version is a new file beside the old one. If
    another process is building the same key, `waiting` is called, and its engine is taken when it is done.
    force: build in any case. Raises what `engine_from_onnx` raises, BadInput if `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror or error}; give another folder with -o") from error
    path = folder / f"{identity.key}{SUFFIX}"
    with exclusive(folder / f".{identity.key}.lock", waiting):
        record = None if force else _present(path, identity)
        if record is not None and not detailed:
            return Stored(path, record, None)
        _remove_leftovers(path)
        timings = timing_cache(identity) if api.can_cache_timings else None
        built = engine_from_onnx(source, identity, api, watch, timings=timings, detailed=detailed)
        write_engine(folder, built.engine, built.record)
        built.keep_timings()
    return Stored(path, built.record, built)


def _present(path: Path, identity: EngineIdentity) -> EngineRecord | None:
    """The record of an engine that is there and whole."""
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        read_engine(path, record)
    except EngineMismatch:  # damaged, or left by a build that was killed: it is built again
        return None
    return record if record.identity == identity else None


def _remove_leftovers(path: Path) -> None:
    """Half-written files of builds of this key that were killed; nobody else builds it while we hold the lock."""
    for final in (path, record_path(path)):
        for leftover in path.parent.glob(f".{final.stem}.*.partial{final.suffix}"):
            leftover.unlink(missing_ok=True)
