"""The command starts light, lists every room's commands without its extra, and ends in one line and a code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unblur.runtime.cli.main import RENAMED_OPTIONS, app
from unblur.runtime.errors import BadInput

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "av", "PIL", "tensorrt", "scipy", "matplotlib")
COMMANDS = ("train", "export", "calibrate", "build", "deploy", "verify", "evaluate", "data")
COMMANDS += ("run", "preview", "doctor", "profile")

BLOCK_EXTRAS = """
import sys
extras = "torch onnx tensorrt onnxscript onnxsim accelerate safetensors matplotlib starlette uvicorn"
for name in extras.split():
    sys.modules[name] = None  # any import of it now fails
"""


def python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def unblur(*arguments: object, before: str = "") -> "subprocess.CompletedProcess[str]":
    return python(f"{before}\nfrom unblur.runtime.cli.main import main\nmain()", *arguments)


def loaded(code: str, *arguments: str) -> set[str]:
    """Which heavy modules a program has loaded when it ends."""
    report = (
        "import atexit, json, sys\natexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))"
    )
    done = python(f"{report}\n{code}", *arguments)
    return set(json.loads(done.stderr.splitlines()[-1])) & set(HEAVY)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("import unblur.runtime") == set()


def test_help_loads_nothing_heavy() -> None:
    assert loaded("from unblur.runtime.cli.main import main\nmain()", "--help") == set()


def test_the_check_above_can_fail() -> None:
    assert loaded("import unblur.runtime.model.onnx_runner") >= {"numpy", "onnxruntime"}


def test_deblurring_needs_neither_torch_nor_onnx() -> None:
    assert loaded(
        "import unblur.runtime.model.deblurrer, unblur.runtime.quality.verify, unblur.runtime.media.open_media"
    ).isdisjoint({"torch", "onnx", "tensorrt", "matplotlib"})


def test_every_command_is_listed_without_its_extra() -> None:
    done = unblur("--help", before=BLOCK_EXTRAS)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_every_command_explains_itself_without_its_extra() -> None:
    code = """
from typer.testing import CliRunner
from unblur.runtime.cli.main import app
for command in sys.argv[1:]:
    print(command, CliRunner().invoke(app, [command, "--help"]).exit_code)
"""
    done = python(BLOCK_EXTRAS + code, *COMMANDS)
    assert done.stdout.split("\n")[:-1] == [f"{command} 0" for command in COMMANDS], done.stderr


def test_a_missing_extra_is_named_in_one_line(tmp_path: Path) -> None:
    done = unblur("export", "lprn-s", "-o", tmp_path / "x.onnx", before=BLOCK_EXTRAS)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'unblur[export]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_and_a_code(tmp_path: Path) -> None:
    done = unblur("verify", tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == f"unblur: {tmp_path} is not a bundle: it has no bundle.json; make one with `unblur deploy`\n"
    )
    assert done.stdout == ""


def test_debug_adds_the_traceback_and_keeps_the_code(tmp_path: Path) -> None:
    done = unblur("--debug", "verify", tmp_path)
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("unblur: ")


def test_a_wrong_option_is_code_2() -> None:
    assert unblur("verify").returncode == 2
    assert unblur("frobnicate").returncode == 2


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [(command, old, new) for command, renamed in RENAMED_OPTIONS.items() for old, new in renamed.items()],
)
def test_an_old_spelling_names_the_new_one(command: str, old: str, new: str) -> None:
    with pytest.raises(BadInput, match=f"unblur {command} has no {old} any more; use {new}$"):
        app([command, f"{old}=1"])


def test_the_help_of_a_command_without_its_extra_names_the_extra() -> None:
    done = unblur("preview", "--help", before=BLOCK_EXTRAS)
    assert done.returncode == 0
    assert "pip install 'unblur[preview]'" in " ".join(done.stdout.split())


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_full_disk_behind_stdout_is_one_line(debug: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "unblur.runtime.cli.main", *debug, "doctor", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "unblur: cannot use standard output: No space left on device"
    assert len(done.stderr.splitlines()) == 1 or debug


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "a\nb\x1b[31m"), "there is no model 'a\\nb\\x1b[31m'"),
        (("verify", "a" * 5000), "File name too long"),
        (("verify", f"{'b' * 300}.onnx"), "File name too long"),
        (("run", "lprn-n", "--source", "c" * 5000, "--sink", "null:"), "File name too long"),
        (("run", "lprn-n", "--source", f"{'d' * 300}.png", "--sink", "null:"), "File name too long"),
        (("run", "lprn-n", "--source", "test://moving?fps=1/0", "--sink", "null:"), "has fps='1/0', expected"),
        (("verify", "."), ". is not a bundle: it has no bundle.json"),
    ],
)
def test_odd_names_are_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unblur.runtime.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
