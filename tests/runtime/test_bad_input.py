"""Files and names that nobody thought of: each command ends with 2 and one line, and leaves nothing behind."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import foreign_networks as foreign
import onnx
import pytest
from PIL import Image, features

from tests.fuzz.contract import Outcome, call
from unblur.runtime.frames import Frame
from unblur.runtime.images import write_image
from unblur.runtime.model.bundle import MANIFEST, MANIFEST_SHA256
from unblur.runtime.model.open_model import find_model
from unblur.runtime.spec import SPEC_KEY

SHIPPED = find_model("lprn-n")
NESTED = "[" * 100_000
COMMAND = [sys.executable, "-m", "unblur.runtime.cli.main"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def image(tmp_path: Path, frame: Frame) -> Path:
    write_image(tmp_path / "image.png", frame)
    return tmp_path / "image.png"


@pytest.fixture
def refused(out: Path) -> Callable[..., str]:
    """The one line of a command that must end with 2."""

    def run(*arguments: object) -> str:
        outcome = call(*arguments, out=out).check()
        assert outcome.code == 2, outcome
        return outcome.stderr

    return run


Refused = Callable[..., str]


def restore(model: Path, source: Path, out: Path) -> Outcome:
    return call("run", model, "--source", source, "--sink", out / "sharp.png", out=out)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_never_reaches_ghostscript(
    tiny_onnx: Path, tmp_path: Path, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ghostscript-ran\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(EPS)
    line = refused("run", tiny_onnx, "--source", tmp_path / "a.png", "--sink", out / "b.png")
    assert "a.png is not an image that can be read" in line
    assert not (tmp_path / "ghostscript-ran").exists()


def test_images_are_opened_in_the_supported_formats_alone() -> None:
    root = Path(__file__).parents[2]
    rooms = [root / room for room in ("runtime", "train", "calibration", "export")]
    calls = [line for room in rooms for file in room.rglob("*.py") for line in file.read_text().split("\n")]
    calls = [line.strip() for line in calls if "Image.open(" in line]
    assert calls
    assert [line for line in calls if "formats=_formats()" not in line] == []


@pytest.mark.skipif(not features.check("avif"), reason="NO DAMAGED AVIF: this Pillow cannot write one")
def test_a_damaged_avif_under_another_name(tiny_onnx: Path, tmp_path: Path, out: Path, frame: Frame) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "AVIF")
    data = buffer.getvalue()
    damaged = [data[:40], data[: len(data) // 2], data[:-9]]
    damaged += [data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :] for at in range(4, len(data), len(data) // 12)]
    for content in damaged:
        (tmp_path / "a.png").write_bytes(content)
        restore(tiny_onnx, tmp_path / "a.png", out).check()


FOREIGN_NAME = "[red]in\n\x1b[31m:bug:"
SHOWN = r"[red]in\n\x1b[31m:bug:"


def test_names_of_files_are_shown_as_they_are(tiny_onnx: Path, image: Path, tmp_path: Path, out: Path) -> None:
    source = image.rename(tmp_path / f"{FOREIGN_NAME}.png")
    done = call("run", tiny_onnx, "--source", source, "--sink", out / source.name, out=out)
    assert (done.code, done.left) == (0, (source.name,))
    assert done.stdout.count("\n") == 1
    assert done.stdout.endswith(f"{SHOWN}.png\n")


def test_names_inside_a_network_are_shown_as_they_are(tmp_path: Path, image: Path, out: Path) -> None:
    proto = foreign.plain()
    proto.graph.input[0].name = FOREIGN_NAME
    for node in proto.graph.node:
        node.name = f"{FOREIGN_NAME} {node.output[0]}"
        node.input[:] = [FOREIGN_NAME if name == "image" else name for name in node.input]
    proto.graph.node[0].op_type = "Bernoulli"
    onnx.save(proto, tmp_path / "net.onnx")
    lint = call("lint", tmp_path / "net.onnx", out=out).check()
    assert lint.code == 1
    assert SHOWN in lint.stdout
    assert FOREIGN_NAME not in lint.stdout
    proto.graph.node[0].op_type = "Conv"
    onnx.save(proto, tmp_path / "net.onnx")
    run = restore(tmp_path / "net.onnx", image, out)
    assert (run.code, run.stderr.count("\n"), run.stderr.count(SHOWN)) == (0, 1, 1), run.stderr


def test_numbers_beyond_measure(table: Path, tiny_onnx: Path, image: Path, out: Path, refused: Refused) -> None:
    document = json.loads(table.read_text())
    next(iter(document["ranges"].values()))["amax"] = 1e308
    table.write_text(json.dumps(document))
    assert "expected a positive float32" in refused("table", "to-cache", table, "-o", out / "cache")
    cache = table.with_suffix(".cache")
    text = (SHIPPED / "calibration.cache").read_text()
    cache.write_text(re.sub("[0-9a-f]{8}\n", "7f7fffff\n", text))
    refused("table", "from-cache", cache, "--model", SHIPPED / "fp32.onnx", "-o", out / "table.json")
    sink = ("--source", image, "--sink", out / "a.png")
    assert "expected 1 to 4096" in refused("run", tiny_onnx, *sink, "--multiple-of", 10**9)
    proto = onnx.load(tiny_onnx)
    spec = next(entry for entry in proto.metadata_props if entry.key == SPEC_KEY)
    spec.value = json.dumps(json.loads(spec.value) | {"multiple_of": 10**9})
    onnx.save(proto, tiny_onnx)
    assert "multiple_of is 1000000000" in refused("run", tiny_onnx, *sink)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHIPPED / "calibration.json", tmp_path))


def test_external_data_that_is_cut_short(tmp_path: Path, tiny_onnx: Path, image: Path, out: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(tiny_onnx), path, save_as_external_data=True, location="weights", size_threshold=0)
    weights = (tmp_path / "weights").read_bytes()
    (tmp_path / "weights").write_bytes(weights[: len(weights) // 2])
    for outcome in (call("lint", path, out=out), restore(path, image, out)):
        assert outcome.check().code == 2


def test_json_that_is_nested_without_end(
    tiny_bundle: Path, tiny_onnx: Path, table: Path, image: Path, out: Path, refused: Refused
) -> None:
    (tiny_bundle / MANIFEST).write_text(NESTED)
    (tiny_bundle / MANIFEST_SHA256).write_text(f"{sha256(NESTED.encode()).hexdigest()}  {MANIFEST}\n")
    proto = onnx.load(tiny_onnx)
    next(entry for entry in proto.metadata_props if entry.key == SPEC_KEY).value = NESTED
    onnx.save(proto, tiny_onnx)
    table.write_text(NESTED)
    engine = tiny_bundle.parent / "a.engine"
    engine.touch()
    engine.with_suffix(".json").write_text(NESTED)
    sink = ("--source", image, "--sink", out / "a.png")
    for model in (tiny_bundle, tiny_onnx, engine):
        refused("run", model, *sink)
    refused("table", "diff", table, table)
    refused("verify", tiny_bundle)


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "lprn-n", "--source", "{image}", "--sink", f"{{out}}/{LONG}.png"),
        ("run", "lprn-n", "--source", "{image}", "--sink", f"{{out}}/{LONG}.mp4"),
        ("run", "lprn-n", "--source", "{image}", "--sink", f"{{out}}/{LONG}/"),
        ("run", "lprn-n", "--source", "{image}", "--sink", f"{{out}}/{LONG}/a.png"),
        ("run", "lprn-n", "--source", "test://moving?frames=2", "--sink", f"{{out}}/{LONG}.mkv"),
        ("run", f"{LONG}.engine", "--source", "{image}", "--sink", "{out}/a.png"),
        ("lint", f"{LONG}.onnx"),
        ("table", "to-cache", f"{LONG}.json", "-o", "{out}/a"),
        ("doctor", f"{LONG}.onnx"),
        ("profile", "lprn-n", "-o", f"{{out}}/{LONG}/a.json"),
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_names_longer_than_255_bytes(arguments: tuple[str, ...], image: Path, out: Path) -> None:
    call(*(word.format(image=image, out=out) for word in arguments), out=out).check()


@pytest.mark.parametrize(
    ("command", "redirection", "code"),
    [
        ("doctor --json", ">&-", 2),
        ("doctor", ">/dev/full", 2),
        ("doctor --json", "| true", 2),
        ("verify nothing", "2>&-", 2),
        ("verify nothing", "2>/dev/full", 2),
        ("run lprn-n --source image.png --sink out/a.png --threads 1", "2>/dev/full", 0),
    ],
)
def test_standard_streams_that_are_full_or_closed(
    command: str, redirection: str, code: int, image: Path, out: Path
) -> None:
    unblur = " ".join([*COMMAND, command, redirection])
    script = f"set -o pipefail; {unblur}" if redirection == "| true" else unblur
    done = subprocess.run(["bash", "-c", script], cwd=image.parent, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (not redirection.startswith("2"))
    assert "Traceback" not in done.stderr
