"""A disk that is full, a folder that cannot be written: one line, and what was there before is there still."""

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuzz.contract import call
from unblur.calibration.onnx_model import OnnxModel, write_onnx

_CAPABILITIES_V3 = 0x20080522  # linux/capability.h


@pytest.fixture
def model(fp32: OnnxModel, tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"
    write_onnx(path, fp32)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture(params=["calibrate", "deploy", "run", "evaluate", "table", "train"])
def arguments(
    request: pytest.FixtureRequest, model: Path, calibration_folder: Path, pairs_folder: Path, out: Path
) -> tuple[object, ...]:
    """Of a command that writes into `out`."""
    image, train = calibration_folder / "0.png", ("--set", "width=8,8", "--set", "blocks=1,1,1", "--crop", 32)
    return {
        "calibrate": ("calibrate", model, "--images", calibration_folder, "-o", out / "a.onnx"),
        "deploy": ("deploy", model, "--calibration", calibration_folder, "--keep-failed", "-o", out / "a.unblur"),
        "run": ("run", model, "--source", image, "--sink", out / "a.png"),
        "evaluate": ("evaluate", model, "--data", pairs_folder, "-o", out / "a"),
        "table": ("table", "to-cache", "runtime/bundles/lprn-n.unblur/calibration.json", "-o", out / "a"),
        "train": (
            *("train", "lprn-n", "--data", pairs_folder, "--hold-out", 1, *train, "--batch", 1, "--iterations", 1),
            *("--workers", 0, "--threads", 1, "-o", out / "a"),
        ),
    }[request.param]  # fmt: skip


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What the kernel refuses then is what it refuses on a full disk, under another name."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(arguments: tuple[object, ...], out: Path) -> None:
    with files_of_at_most(1000):
        outcome = call(*arguments, out=out)
    assert (outcome.code, outcome.stderr.count("\n")) == (2, 1), outcome
    assert "cannot write" in outcome.stderr
    assert "File too large" in outcome.stderr
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert left <= {"log.jsonl"}  # of a run of `train`, which is there to go on


def forked(test: Callable[[], object]) -> int:
    """The exit code of a fork that a root user's privileges do not help."""
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)())
        try:
            test()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_that_cannot_be_written(arguments: tuple[object, ...], out: Path) -> None:
    out.chmod(0o555)

    def attempt() -> None:
        outcome = call(*arguments, out=out).check()
        os._exit(0 if outcome.code == 2 and "Permission denied" in outcome.stderr else 2)

    assert forked(attempt) == 0
    out.chmod(0o755)
