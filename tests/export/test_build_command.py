"""`unblur build`, as a user types it; TensorRT-RTX builds for real."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.export.build import Steps, find_sources
from unblur.export.cli.build import precisions_from_text, step_counts
from unblur.export.engine_from_onnx import Target, identify, profile_from_text
from unblur.export.trt_api import load_api
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt.engine_file import BuildOptions, find_engines, read_engine, read_record

pytest.importorskip("tensorrt_rtx", reason="NO RTX ENGINE IS BUILT: pip install 'unblur[rtx]'")

QUICK = ("--size", "32x32", "--level", "0")


@pytest.fixture
def model(fp16: OnnxModel, tmp_path: Path) -> Path:
    path = tmp_path / "fp16.onnx"
    write_onnx(path, fp16)
    return path


def unblur_build(*arguments: object) -> Any:
    """The parsed JSON of the command; errors pass through."""
    result = CliRunner().invoke(app, ["build", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_engines_for_several_cards(model: Path) -> None:
    layers = model.with_name("layers.json")
    document = unblur_build(model, "--target", "rtx-sm86,rtx-sm89", *QUICK, "--layers", layers)
    assert [engine["sm"] for engine in document["engines"]] == [86, 89]
    assert {"engine", "key", "flavour", "version", "precision", "seconds"} <= document.keys()
    assert (document["flavour"], document["precision"], document["built"]) == ("rtx", "fp16", True)
    assert find_engines(model.parent) == sorted(Path(engine["engine"]) for engine in document["engines"])
    for path in find_engines(model.parent):
        read_engine(path, read_record(path))
    report = json.loads(layers.read_text())
    assert report[document["key"]]["network"]
    assert report[document["key"]]["engine"] is None  # takes a GPU

    again = unblur_build(model, "--target", "rtx-sm86", *QUICK, "-o", model.parent)
    assert not again["built"]


@pytest.mark.usefixtures("quick_export")
def test_a_deployed_bundle_comes_with_engines_and_takes_more(
    checkpoint: Path, calibration_folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "small.unblur"
    arguments = ("deploy", checkpoint, "--calibration", calibration_folder, "-o", bundle)
    result = CliRunner().invoke(app, [*map(str, arguments), "--target", "rtx-sm86", "--json"])
    assert result.exit_code == 0, result.exception
    engines = json.loads(result.stdout)["engines"]
    assert [engine["precision"] for engine in engines] == ["fp32", "fp16", "int8"]
    assert {engine["steps"] for engine in engines} == {2}
    assert {tuple(engine["sizes"]) for engine in engines} == {("1x720x1280",)}

    unblur_build(bundle, "--target", "rtx-sm89", *QUICK, "--precision", "int8")
    assert unblur_build(bundle, "--target", "rtx-sm89", *QUICK)["precision"] == "fp16"
    assert len(find_engines(bundle)) == 5
    hashes = {entry.sha256 for entry in read_bundle(bundle).manifest.files.values()}
    assert {read_record(engine).identity.onnx_sha256 for engine in find_engines(bundle)} < hashes


def test_a_wrong_target_is_found_before_anything_is_deployed(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("deploy", checkpoint, "--calibration", tmp_path, "-o", tmp_path / "x.unblur", "--target", "rtx")
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, BadInput)
    assert "--target is 'rtx'" in str(result.exception)


def test_an_engine_is_not_built_again(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.engine is an engine already; build from the model it was made of"):
        unblur_build(tmp_path / "x.engine", "--target", "rtx-sm86")
    with pytest.raises(BadInput, match=r"is an engine already; build from .*small\.unblur$"):
        unblur_build(tmp_path / "small.unblur/engines/x.engine", "--target", "rtx-sm86")


def test_an_onnx_file_has_one_precision(model: Path) -> None:
    with pytest.raises(SpecMismatch, match="is fp16, asked for int8; give a bundle"):
        unblur_build(model, "--target", "rtx-sm86", "--precision", "int8")


def test_an_onnx_file_has_its_steps(model: Path) -> None:
    with pytest.raises(SpecMismatch, match="runs 2 steps, asked for 1; export it with --steps 1"):
        unblur_build(model, "--target", "rtx-sm86", "--steps", 1)


def test_steps() -> None:
    assert step_counts("") == ()
    assert step_counts("6, 1,6") == (6, 1)
    with pytest.raises(BadInput, match="--steps is '0', expected numbers with commas between them"):
        step_counts("0")


def test_a_bundle_is_built_at_the_steps_that_are_asked_for(stepped_bundle: Path) -> None:
    def files(*precisions: Precision, steps: Steps = ()) -> list[str]:
        return [source.path.name for source in find_sources(stepped_bundle, precisions, steps)[0]]

    assert files() == ["fp16.onnx"]
    assert files("fp32", steps=(4, 1)) == ["fp32.onnx", "fp32-1.onnx"]
    assert files("int8", "fp32", steps=(4,)) == ["int8.onnx", "fp32.onnx"]
    assert files("fp32", steps="all") == ["fp32.onnx", "fp32-1.onnx", "fp32-2.onnx", "fp32-3.onnx"]
    with pytest.raises(SpecMismatch, match="has no fp16 variant at 5 steps; it has fp32 at 4"):
        files(steps=(5,))


def test_a_model_at_fewer_steps_is_another_engine(stepped_bundle: Path) -> None:
    (own, fewer), _ = find_sources(stepped_bundle, ("fp32",), (4, 1))
    target, profiles = Target("rtx", 86), [profile_from_text("64x96", 16)]
    keys = [identify(source, target, load_api("rtx"), profiles, BuildOptions()).key for source in (own, fewer)]
    assert ["-fp32-4-" in keys[0], "-fp32-1-" in keys[1]] == [True, True]


def test_precisions() -> None:
    assert precisions_from_text(None) == ()
    assert precisions_from_text("int8, fp16,int8") == ("int8", "fp16")
    with pytest.raises(BadInput, match="--precision is 'fp8', expected fp32, fp16, int8 or several of them"):
        precisions_from_text("fp8")


def start(*arguments: object, before: str = "") -> "subprocess.Popen[str]":
    # a process started in the background of a script ignores SIGINT: take it back, as a terminal would have it
    hears = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hears}\n{before}\nfrom unblur.runtime.cli.main import main\nmain()"
    command = [sys.executable, "-c", code, "build", *map(str, arguments), "--target", "rtx-sm86", *QUICK]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lock(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob(".*.lock")):
        assert time.monotonic() < deadline, "the build did not begin"
        time.sleep(0.01)


def test_a_build_that_is_ended_leaves_no_engine_that_loads(model: Path) -> None:
    with start(model) as process:
        wait_for_lock(model.parent)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert not list(model.parent.glob("rtx-*.json"))


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # an engine is larger: writing it fails midway
"""


def test_a_full_disk_leaves_no_engine(model: Path) -> None:
    with start(model, before=FULL_DISK) as process:
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 2
    assert stderr.startswith("unblur: cannot write ")
    assert stderr.count("\n") == 1
    assert not list(model.parent.glob("*.engine"))
    assert not list(model.parent.glob("*.json"))


def test_of_two_processes_one_builds(model: Path) -> None:
    with start(model, "--json") as one, start(model, "--json") as other:
        documents = [json.loads(process.communicate(timeout=240)[0]) for process in (one, other)]
    assert sorted(document["built"] for document in documents) == [False, True]
    assert len(find_engines(model.parent)) == 1
