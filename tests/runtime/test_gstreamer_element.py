"""The GStreamer element in real pipelines: the same pixels as in Python, or one line that says why not."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stream_servers import SYSTEM_PYTHON, need_gstreamer

import unblur.runtime.gstreamer
from unblur.runtime.frames import Frame
from unblur.runtime.media.colour import Colour, ColourConverter
from unblur.runtime.model import open_model
from unblur.runtime.model.choose_variant import choose_variant
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.runner import RunnerOptions

PLUGINS = Path(unblur.runtime.gstreamer.__file__).parent
PACKAGES = Path(np.__file__).parents[1]
FAKES = Path(__file__).parents[1] / "fakes"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SMALL = "video/x-raw,width=96,height=64"

Environment = dict[str, str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Activated as docs/camera.md says: made by the system's Python, with the packages of these tests in it."""
    need_gstreamer()
    code = f"import sys; from gi.overrides import _gi_gst; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode:
        pytest.skip(f"NO GSTREAMER ELEMENT TESTED WITHOUT {SYSTEM_PYTHON} {VERSION} and python3-gst-1.0")
    folder = tmp_path_factory.mktemp("gstreamer")
    making = [SYSTEM_PYTHON, "-m", "venv", "--system-site-packages", "--without-pip", str(folder / "venv")]
    subprocess.run(making, check=True)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    link = folder / f"venv/lib/python{VERSION}/site-packages/ours.pth"
    link.write_text(f"import site; site.addsitedir({ours!r})\n")
    environment = dict(os.environ, GST_PLUGIN_PATH=str(PLUGINS), GST_REGISTRY=str(folder / "registry"))
    environment["PATH"] = f"{folder}/venv/bin:/usr/bin:/bin"
    inspected = gst(environment, "gst-inspect-1.0", "--exists", "unblur")
    assert inspected.returncode == 0, f"apt-get install gstreamer1.0-python3-plugin-loader\n{inspected.stderr}"
    return environment


def gst(environment: Environment, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def run(environment: Environment, *pipelines: str) -> list[dict[str, Any]]:
    done = gst(environment, "python", str(FAKES / "gst_pipelines.py"), *pipelines)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def frames_in(path: Path, sizes_hw: Sequence[tuple[int, int]]) -> Iterator[Frame]:
    """RGB as GStreamer lays it out, rows padded to 4 bytes, one frame after the other."""
    data, at = np.frombuffer(path.read_bytes(), np.uint8), 0
    for height, width in sizes_hw:
        stride = -(-3 * width // 4) * 4
        rows = data[at : at + height * stride].reshape(height, stride)
        yield rows[:, : 3 * width].reshape(height, width, 3)
        at += height * stride
    assert at == data.size


def test_rgb_is_bit_for_bit_what_python_gives_also_when_the_size_changes(
    environment: Environment,
    tiny_onnx: Path,
    tiny_bundle: Path,
    make_frame: Callable[[int, int], Frame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_model, "choose_variant", choose_variant)  # remembers what the element chose
    sizes_hw = [(64, 96), (64, 96), (63, 97)]
    frames = [make_frame(*size_hw) for size_hw in sizes_hw]
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    source = f"multifilesrc location={tmp_path}/%d.png caps=image/png,framerate=25/1 ! pngdec"
    bundle = f"model={tiny_bundle} precision=fp32"
    asked: dict[str, tuple[Path, RunnerOptions]] = {
        f"model={tiny_onnx}": (tiny_onnx, RunnerOptions()),
        f"{bundle} steps=1": (tiny_bundle, RunnerOptions("fp32", 1)),
        f"{bundle} deadline-ms=0.001": (tiny_bundle, RunnerOptions("fp32", 1)),
        f"{bundle} deadline-ms=60000": (tiny_bundle, RunnerOptions("fp32")),
    }
    pipelines = [
        f"{source} ! unblur name=u {properties} ! filesink location={tmp_path}/{index}.rgb"
        for index, properties in enumerate(asked)
    ]
    results = run(environment, *pipelines)
    assert [(result["buffers"], result["error"]) for result in results] == [(3, None)] * 4
    for index, (properties, (model, options)) in enumerate(asked.items()):
        with Deblurrer(model, options) as deblur:
            for frame, restored in zip(frames, frames_in(tmp_path / f"{index}.rgb", sizes_hw), strict=True):
                assert (restored == deblur(frame)).all(), properties


def test_nv12_keeps_its_colours(environment: Environment, tiny_onnx: Path, frame: Frame, tmp_path: Path) -> None:
    converter = ColourConverter(Colour(6, 1, 6, 6))
    nv12 = converter.yuv_from(frame, "nv12")
    (tmp_path / "in").write_bytes(nv12.to_ndarray().tobytes())
    raw = f"filesrc location={tmp_path}/in ! rawvideoparse format=nv12 width=96 height=64 framerate=25/1"
    odd = "videotestsrc num-buffers=2 ! video/x-raw,width=97,height=63,format=NV12"
    pipelines = [
        f"{raw} ! unblur name=u model={tiny_onnx} ! filesink location={tmp_path}/out",
        f"{odd} ! unblur name=u model={tiny_onnx} ! videoconvert ! fakesink",
    ]
    assert [(result["buffers"], result["error"]) for result in run(environment, *pipelines)] == [
        (1, None),
        (2, None),
    ]
    luma, chroma = np.split(np.frombuffer((tmp_path / "out").read_bytes(), np.uint8).reshape(96, 96), [64])
    with Deblurrer(tiny_onnx) as deblur:
        expected = converter.yuv_from(deblur(converter.rgb_from(nv12)), "nv12").to_ndarray()
    assert (luma == expected[:64]).all()
    assert (chroma == expected[64:]).all()
    assert (luma != nv12.to_ndarray()[:64]).any(), "nothing was restored"


def test_a_thousand_buffers_do_not_grow_and_late_ones_are_dropped(
    environment: Environment, tiny_onnx: Path
) -> None:
    """The latency that is reported is what a frame takes; with QoS a network that is behind catches up."""
    source = f"videotestsrc num-buffers=%d ! {SMALL},format=%s"
    element = f"unblur model={tiny_onnx}"
    long, late, slow = run(
        environment,
        f"{source % (1000, 'RGB')} ! {element} name=u ! fakesink",
        f"{source % (100, 'NV12')} ! {element} name=late ! fakesink",
        f"{source % (100, 'NV12')} ! {element} name=late qos=false ! fakesink",
    )
    assert (long["buffers"], long["error"]) == (1000, None)
    assert long["late_mb"] - long["early_mb"] < 2
    assert long["latency_ms"] > 0
    assert late["buffers"] == 5
    assert slow["buffers"] == 100


def test_other_formats_are_refused_with_advice(environment: Environment, tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(2 * 96 * 64))
    grey = f"filesrc location={tmp_path}/raw ! rawvideoparse format=gray8 width=96 height=64"
    element = f"unblur name=u model={tiny_onnx} ! fakesink"
    refused, converted = run(environment, f"{grey} ! {element}", f"{grey} ! videoconvert ! {element}")
    assert refused["warnings"] == ["unblur takes RGB and NV12, not GRAY8; put videoconvert before it"]
    assert "Internal data stream error" in refused["error"]
    assert (converted["warnings"], converted["error"], converted["buffers"]) == ([], None, 2)


def test_what_the_model_says_is_the_error_of_the_pipeline(
    environment: Environment, tiny_onnx: Path, make_onnx: Callable[..., Path]
) -> None:
    source = f"videotestsrc num-buffers=5 ! {SMALL} ! unblur name=u model"
    broken = make_onnx(scale=float("nan"))
    results = run(
        environment,
        f"{source}=nosuch ! fakesink",
        f"{source}={tiny_onnx} precision=fp8 ! fakesink",
        f"{source}={broken} ! fakesink",
    )
    errors = [result["error"] for result in results]
    assert errors[0].startswith("u: there is no model 'nosuch'; shipped: lprn-n, lprn-s.")
    assert errors[1] == "u: precision is 'fp8', expected one of auto, fp32, fp16, int8"
    assert errors[2] == "u: 'tiny' gave NaN or infinity; try --precision fp32, or check its --value-range"
    assert all("\n" not in error for error in errors)


def test_inspect_explains_the_properties(environment: Environment) -> None:
    shown = gst(environment, "gst-inspect-1.0", "unblur").stdout
    for expected in (
        "Removes motion blur from RGB and NV12 video with a network",
        "model               : A shipped preset, a bundle, an .onnx file or an engine",
        "changeable only in NULL or READY state",
        'String. Default: "lprn-s"',
        "steps               : Recursion steps of every frame",
        "deadline-ms         : Milliseconds for a frame",
        "changeable in NULL, READY, PAUSED or PLAYING state",
        "precision           : Variant of a bundle: fp32, fp16, int8, or auto",
    ):
        assert expected in shown


def test_the_command_prints_the_path_once_the_element_starts(environment: Environment, tmp_path: Path) -> None:
    command = ("python", "-m", "unblur.runtime.cli.main", "gstreamer")
    printed = gst({**environment, "GST_PLUGIN_PATH": ""}, *command)
    assert (printed.returncode, printed.stdout) == (0, f"{PLUGINS}\n"), printed.stderr
    python = str(Path(environment["PATH"].partition(":")[0]) / "python")
    without = gst({**environment, "PATH": str(tmp_path)}, python, *command[1:])
    assert without.stderr == (
        "unblur: gst-launch-1.0 is not installed; on Debian and Ubuntu: apt-get install gstreamer1.0-tools "
        "gstreamer1.0-python3-plugin-loader\n"
    )
    no_loader = {"GST_PLUGIN_SYSTEM_PATH": str(tmp_path), "GST_REGISTRY": str(tmp_path / "registry")}
    assert gst({**environment, **no_loader}, *command).stderr.startswith(
        "unblur: GStreamer does not load the element: on Debian and Ubuntu apt-get install gstreamer1.0-tools "
    )


def test_the_pipelines_of_the_page_are_pipelines(environment: Environment) -> None:
    page = (PLUGINS.parents[1] / "docs/camera.md").read_text()
    commands = re.findall(r"^gst-launch-1.0 (.+)$", page, re.MULTILINE)
    assert len(commands) >= 3
    code = "import sys, gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
    code += "for text in sys.argv[1:]: Gst.parse_launch(text)"
    parsed = gst(environment, "python", "-c", code, *commands)
    assert parsed.returncode == 0, parsed.stderr


def installed(folder: Path, version: str) -> Path:
    """A site-packages with unblur in it, as pip leaves it."""
    packages = folder / f"lib/python{version}/site-packages"
    (packages / "unblur").mkdir(parents=True)
    (packages / "unblur/runtime").symlink_to(PLUGINS.parent)
    return packages / "unblur/runtime/gstreamer"


def test_an_environment_that_is_not_activated_is_found_if_its_python_fits(
    environment: Environment, tiny_onnx: Path, tmp_path: Path
) -> None:
    bare = environment | {"PATH": "/usr/bin:/bin"}
    pipeline = f"videotestsrc num-buffers=2 ! {SMALL} ! unblur model={tiny_onnx} ! fakesink".split()
    fits = bare | {"GST_PLUGIN_PATH": str(installed(tmp_path, VERSION)), "PYTHONPATH": str(PACKAGES)}
    done = gst(fits, "gst-launch-1.0", *pipeline)
    assert done.returncode == 0, done.stderr
    other = bare | {"GST_PLUGIN_PATH": str(installed(tmp_path, "3.1"))}
    refused = gst(other, "gst-launch-1.0", *pipeline)
    assert f"GStreamer runs Python {VERSION}, but unblur is of Python 3.1; install unblur into" in refused.stderr
    lost = gst(bare, "gst-launch-1.0", *pipeline)
    assert f"GStreamer's Python {VERSION} cannot import unblur: No module named 'unblur'; install" in lost.stderr
