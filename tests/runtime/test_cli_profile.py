"""`unblur profile` on real networks: the document, the screen, and one line for whatever cannot be measured."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, DeviceError, UnblurError
from unblur.runtime.profile.document import read_profile
from unblur.runtime.profile.measure import LEAST_SAMPLES

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/profile_schema.json").read_text())
QUICK = ("--size", "60x96", "--seconds", "0.2", "--warm-up", "0.2", "--threads", "1")


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `unblur profile`; an error of ours is raised."""
    done = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_document_of_everything(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    sweeps = ("--sweep", "sizes", "--sweep", "batches=1,2", "--sweep", "streams=1")
    code, text, _ = call(tiny_bundle, *QUICK, *sweeps, "--baseline-precision", "int8", "-o", out, "--json")
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    assert code == 0
    assert read_profile(out).to_json() == document
    assert (document["model"], document["precision"], document["steps"]) == ("tiny.unblur", "fp32", 2)
    assert (document["size"], document["padded_size"]) == ([60, 96], [64, 96])
    assert document["cold_ms"]["open"] > 0
    parts, p50 = document["timing"], document["latency_ms"]["p50"]
    assert 0.1 * p50 < sum(parts.values()) < 10 * p50  # not of the same inferences
    assert document["against"]["precision"] == "int8"
    assert len(document["sweeps"]["sizes"]["points"]) >= 3
    assert [point["value"] for point in document["sweeps"]["batches"]] == ["1", "2"]


def test_the_screen(tiny_bundle: Path) -> None:
    code, text, _ = call(tiny_bundle, *QUICK, "--steps", "1", "--sweep", "sizes", "--baseline-steps", "2")
    assert code == 0
    assert text.startswith("tiny.unblur fp32, 1 step, 60x96, batch 1, on cpu (onnxruntime ")
    for title in ("cold start", "warm-up", "steady state", "p50", "p99.9", "mean", "95 % interval"):
        assert title in text
    assert re.search(r"tiny.unblur fp32, 2 steps, takes [\d.]+ times as long as tiny.unblur fp32, 1 step", text)
    assert re.search(r"Sizes: pixels \*\* [\d.]+", text)


def test_a_cold_start_counts_the_imports(tiny_onnx: Path) -> None:
    command = [sys.executable, "-m", "unblur.runtime.cli.main", "profile", str(tiny_onnx), *QUICK, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["cold_ms"]["import"] > 10


@pytest.mark.realtime  # the signal comes two seconds after the start
def test_ctrl_c_keeps_what_was_measured(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    code, _, errors = call(tiny_onnx, *QUICK, "--seconds", "600", "-o", out)
    profile = read_profile(out)
    assert (code, profile.interrupted) == (130, True)
    assert profile.samples > LEAST_SAMPLES
    assert errors == f"unblur: interrupted; these are the first {profile.samples} inferences\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "the time to measure is 0 s, expected more than 0"),
        (["--minutes", "0"], "the time to measure is 0 s, expected more than 0"),
        (["--size", "huge"], "--size is 'huge', expected height x width such as 720x1280"),
        (["--sweep", "colours"], "--sweep is 'colours', expected one of"),
        (["-o", "nowhere/profile.json"], "cannot write nowhere/profile.json: the folder nowhere does not exist"),
    ],
)
def test_bad_input_is_told_before_anything_runs(arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        call("no-such-model", *arguments)
    assert str(refused.value).startswith(message)
    assert (refused.value.exit_code, "\n" in str(refused.value)) == (2, False)


def test_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no model 'lprn-x'"):
        call("lprn-x", *QUICK)


def test_a_model_that_throws(tiny_onnx: Path) -> None:
    """It takes 64 x 96 and no other size, which only running it shows."""
    model = onnx.load(tiny_onnx)
    shape = numpy_helper.from_array(
        onnx.numpy_helper.to_array(helper.make_tensor("s", 7, [4], [1, 3, 64, 96])), "s"
    )
    model.graph.initializer.append(shape)
    first = model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("Reshape", [first.input[0], "s"], ["fixed"]))
    first.input[0] = "fixed"
    onnx.save(model, tiny_onnx)
    assert call(tiny_onnx, *QUICK)[0] == 0
    with pytest.raises(DeviceError, match="failed on a batch of 1 x 3 x 32 x 96") as failed:
        call(tiny_onnx, *QUICK, "--size", "32x96")
    assert isinstance(failed.value, UnblurError)
    assert "\n" not in str(failed.value)


def test_a_section_that_fails_loses_nothing_of_those_before(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    with pytest.raises(BadInput, match="there is no model 'nothing'"):
        call(tiny_onnx, *QUICK, "--baseline", "nothing", "-o", out)
    assert read_profile(out).samples >= LEAST_SAMPLES
