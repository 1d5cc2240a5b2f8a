"""Engines are built once, by one process, and nothing half-written ever loads."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.test_files import gone_process, left_over
from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.export.build import StoredEngine, store_engine
from unblur.export.engine_from_onnx import BuildWatch, Source, Target, identify, profile_from_text, read_source
from unblur.export.timing_cache import TimingCache, exclusive, timing_cache
from unblur.export.trt_api import load_api
from unblur.runtime.errors import BadInput
from unblur.runtime.tensorrt.engine_file import BuildOptions, EngineIdentity, find_engines, read_engine, record_path

pytest.importorskip("tensorrt_rtx", reason="NO RTX ENGINE IS BUILT: pip install 'unblur[rtx]'")

Store = Callable[..., StoredEngine]


@pytest.fixture(scope="module")
def source(fp16: OnnxModel, tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("source") / "fp16.onnx"
    write_onnx(path, fp16)
    return read_source(path)


@pytest.fixture(scope="module")
def identity(source: Source) -> EngineIdentity:
    profile = profile_from_text("32x32", source.spec.multiple_of)
    return identify(source, Target("rtx", 86), load_api("rtx"), [profile], BuildOptions(level=0))


@pytest.fixture
def store(source: Source, identity: EngineIdentity, tmp_path: Path) -> Store:
    def run(**options: bool) -> StoredEngine:
        return store_engine(source, identity, load_api("rtx"), tmp_path / "engines", BuildWatch(), **options)

    return run


def test_an_engine_is_built_once_and_again_when_damaged_or_forced(store: Store) -> None:
    first = store()
    assert first.built is not None
    assert store().built is None
    assert store(force=True).built is not None

    first.path.write_bytes(first.path.read_bytes()[:-1])
    again = store()
    assert again.built is not None
    assert len(read_engine(again.path, again.record)) == first.record.engine_bytes


def test_what_a_killed_build_left_is_not_an_engine_and_goes(store: Store, identity: EngineIdentity) -> None:
    engine = store()
    record_path(engine.path).unlink()  # killed between the engine and its record
    coming = engine.path.with_name(f".{engine.path.name}.coming")
    leftover = left_over(coming, gone_process())
    leftover.write_bytes(b"half")
    assert find_engines(leftover.parent) == [engine.path]
    assert store().built is not None
    assert not leftover.exists()


def test_a_folder_that_cannot_be_made(source: Source, identity: EngineIdentity, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        BadInput, match=r"cannot write .*file/engines: Not a directory; give another folder with -o"
    ):
        store_engine(source, identity, load_api("rtx"), tmp_path / "file" / "engines", BuildWatch())


HOLD = """
import sys, time
from pathlib import Path
from unblur.export.timing_cache import exclusive
with exclusive(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_process_waits_for_the_one_that_holds_the_lock(tmp_path: Path) -> None:
    lock, waited = tmp_path / "lock", []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"

        def waiting() -> None:
            waited.append(time.monotonic())
            other.kill()  # as hard as it can die, its lock goes with it

        with exclusive(lock, waiting):
            assert len(waited) == 1


def test_a_lock_that_nobody_holds_is_taken_at_once(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", lambda: pytest.fail("nobody has it")):
        pass


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write"), exclusive(tmp_path / "none" / "lock"):
        pass


def test_timings_of_all_builds_are_kept(
    identity: EngineIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = timing_cache(identity)
    assert cache.read() == b""
    cache.update(lambda others: others + b"a")
    timing_cache(identity).update(lambda others: others + b"b")
    assert cache.read() == b"ab"


def test_every_device_has_its_own_timings(
    identity: EngineIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    others = [replace(identity, sm=89), replace(identity, version="9"), replace(identity, flavour="tensorrt")]
    assert len({timing_cache(each).path for each in (identity, *others)}) == 4


def test_timings_that_cannot_be_stored_leave_the_old_ones(tmp_path: Path) -> None:
    cache = TimingCache(tmp_path / "x.timings")
    cache.update(lambda others: b"old")

    def fail(others: bytes) -> bytes:
        raise BadInput("no")

    with pytest.raises(BadInput, match="no"):
        cache.update(fail)
    assert cache.read() == b"old"


def test_a_cache_folder_that_cannot_be_made(
    identity: EngineIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"cannot make .* for kernel timings: Not a directory; see XDG_CACHE_HOME"):
        timing_cache(identity)
