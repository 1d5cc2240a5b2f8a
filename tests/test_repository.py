"""The promises of the layout: what is packaged, who imports whom, what runs without the heavy dependencies."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
ROOMS = ("calibration", "export", "runtime", "train")
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

IMPORTED_ROOMS: Mapping[str, set[str]] = {
    "runtime": set(),
    "calibration": {"runtime"},
    "train": {"runtime"},
    "export": {"train", "calibration", "runtime"},
}
ON_DEVICE = {"numpy", "onnxruntime", "av", "PIL", "typer", "rich"}
IMPORTED_PACKAGES: Mapping[str, set[str]] = {
    "runtime": ON_DEVICE,
    # google.protobuf: what onnx raises on a damaged file
    "calibration": ON_DEVICE | {"onnx", "google", "matplotlib"},
    "train": ON_DEVICE | {"torch", "accelerate", "safetensors", "matplotlib"},
    "export": ON_DEVICE
    | {"torch", "safetensors", "onnx", "onnxscript", "onnxsim", "jinja2", "markupsafe", "matplotlib"},
}
# Not in a package: GStreamer would take an __init__.py beside it for an element.
PLUGIN = Path("runtime/gstreamer/python/gstunblur.py")
OPTIONAL: Mapping[str, set[str]] = {  # each in the one module that needs it, which is imported where it is there
    "export/triton.py": {"tritonclient", "google"},
    "runtime/tensorrt/cuda_pycuda.py": {"pycuda"},
    str(PLUGIN): {"gi"},
    "runtime/preview/app.py": {"starlette"},
    "runtime/preview/host.py": {"starlette", "uvicorn", "h11"},
    "runtime/cli/preview.py": set(),  # imports the two above
    "runtime/loops/cluster.py": {"ray"},
    "runtime/loops/prometheus.py": {"prometheus_client"},
    "runtime/machine/nvml.py": {"pynvml"},
    "runtime/images.py": {"pillow_heif"},
    "runtime/model/openvino_runner.py": {"openvino"},
}
RUNTIME_FOR_TRAIN = {"spec", "frames", "images", "metrics", "blur", "errors", "files", "console"}
RUNTIME_FOR_TRAIN |= {"strict_json", "media", "model", "quality", "cli"}  # clips; QAT; shared options
EXTRAS = ("torch", "onnx", "onnxscript", "onnxsim", "accelerate", "safetensors", "matplotlib", "jinja2")
EXTRAS += ("tensorrt", "tensorrt_rtx", "pycuda", "prometheus_client", "starlette", "uvicorn", "websockets")
EXTRAS += ("pynvml", "openvino", "pillow_heif", "ray", "tritonclient", "gi")
MAX_LINES = 400


def tree_of(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def imports_of(file: Path) -> Iterator[str]:
    """Every module and member that a file imports, anywhere in it; `from a import b` gives "a.b"."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def found_in_files(wrong: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What `wrong` finds, by the file it is found in; {} is good."""
    return {str(file): found for file in FILES if (found := wrong(file))}


def copy_of_sources(folder: Path) -> None:
    """What `pip install .` reads, and nothing else of the work tree."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_packages_listed_are_the_packages_present(pyproject: dict[str, Any]) -> None:
    present = {".".join(("unblur", *file.parent.parts)) for file in FILES if file != PLUGIN}
    assert sorted(pyproject["tool"]["setuptools"]["packages"]) == sorted(present)


def test_every_package_has_an_init() -> None:
    assert {file.parent for file in FILES if file != PLUGIN} == {
        file.parent for file in FILES if file.name == "__init__.py"
    }


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_typed_and_linked_for_mypy(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    assert (ROOT / "tests/typing/unblur" / room).readlink() == Path("../../..") / room


def test_the_wheel_holds_the_rooms_under_unblur_and_nothing_else(tmp_path: Path) -> None:
    """Built with weights and a bundle in it, whether any ship yet or not."""
    copy_of_sources(tmp_path)
    for shipped in ("train/weights/a.safetensors", "runtime/bundles/a.unblur/golden/fp32-6.npy"):
        (tmp_path / shipped).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / shipped).write_bytes(b"shipped")
    (tmp_path / "runtime/bundles/a.unblur/bundle.json").write_text("{}")
    expected = {f"unblur/{path.relative_to(tmp_path)}" for room in ROOMS for path in (tmp_path / room).rglob("*.*")}
    expected = {name for name in expected if (tmp_path / name.removeprefix("unblur/")).is_file()}

    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("unblur-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_a_room_imports_only_the_rooms_below_it() -> None:
    def wrong(file: Path) -> set[str]:
        room = file.parts[0]
        rooms = {name.split(".")[1] for name in imports_of(file) if name.startswith("unblur.")}
        return rooms - {room} - IMPORTED_ROOMS[room]

    assert found_in_files(wrong) == {}


def test_a_room_imports_only_the_packages_it_may() -> None:
    def wrong(file: Path) -> set[str]:
        packages = {name.partition(".")[0] for name in imports_of(file)} - sys.stdlib_module_names
        return packages - {"unblur"} - IMPORTED_PACKAGES[file.parts[0]] - OPTIONAL.get(str(file), set())

    assert found_in_files(wrong) == {}


def test_train_uses_only_the_contracts_of_the_runtime() -> None:
    def wrong(file: Path) -> set[str]:
        used = {name.split(".")[2] for name in imports_of(file) if name.startswith("unblur.runtime.")}
        return used - RUNTIME_FOR_TRAIN if file.parts[0] == "train" else set()

    assert found_in_files(wrong) == {}


def test_no_import_goes_in_a_circle() -> None:
    """Imports inside functions and under TYPE_CHECKING included; CycleError names the modules."""
    modules = {".".join(("unblur", *file.with_suffix("").parts)).removesuffix(".__init__"): file for file in FILES}

    def imported(file: Path) -> set[str]:
        names = {name if name in modules else name.rpartition(".")[0] for name in imports_of(file)}
        return names & modules.keys()

    TopologicalSorter({name: imported(file) for name, file in modules.items()}).prepare()


def test_imports_are_absolute() -> None:
    def wrong(file: Path) -> set[str]:
        return {name for name in imports_of(file) if name.startswith(".") or name.partition(".")[0] in ROOMS}

    assert found_in_files(wrong) == {}


def test_what_is_public_is_documented() -> None:
    def undocumented(file: Path) -> set[str]:
        tree = tree_of(file)
        kinds = (ast.FunctionDef, ast.ClassDef)
        public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        names = {node.name for node in public if not ast.get_docstring(node)}
        return names if ast.get_docstring(tree) else names | {"the module itself"}

    assert found_in_files(undocumented) == {}


def test_every_module_of_the_runtime_imports_without_the_extras() -> None:
    """The device has numpy, onnxruntime, av, pillow, typer and rich, and nothing else."""
    files = [file for file in FILES if file.parts[0] == "runtime" and str(file) not in OPTIONAL]
    modules = [".".join(("unblur", *file.with_suffix("").parts)) for file in files]
    code = f"import importlib, sys\nsys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
    code += f"for name in {modules!r}:\n    importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("failing", ["not realtime", "realtime", ""])
def test_make_test_runs_both_halves_and_fails_if_one_does(failing: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\nfor last; do :; done\n[ "$last" != "{failing}" ]\n'
    )
    python.chmod(0o755)
    command = ["make", "--old-file", ".venv/installed", "test", f"BIN={tmp_path}", "ARGS="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(failing)
    halves = [line.removeprefix("-m pytest") for line in (tmp_path / "calls").read_text().splitlines()]
    assert halves == [" -n logical -m not realtime", " -m realtime"]


def test_every_dependency_is_pinned_with_hashes(pyproject: dict[str, Any]) -> None:
    pins = re.split(r"\n(?=\S)", (ROOT / "constraints.txt").read_text())[1:]
    assert [pin for pin in pins if not re.match(r"[\w-]+==\S+ (; .+ )?\\\n    --hash=sha256:", pin)] == []
    pinned = {pin.partition("==")[0] for pin in pins}
    extras = pyproject["project"]["optional-dependencies"]
    wanted = [
        *pyproject["project"]["dependencies"],
        *(name for extra in installed_extras(extras) for name in extras[extra]),
    ]
    names = {re.split(r"[><=\[ ;]", requirement)[0] for requirement in wanted}
    assert names - {"unblur", "torch"} <= pinned


def installed_extras(extras: dict[str, list[str]], extra: str = "dev") -> set[str]:
    """`dev` and the extras of our own that it asks for, as in "unblur[all,rtx]"."""
    inner = [re.findall(r"^unblur\[(.+)\]", requirement) for requirement in extras[extra]]
    names = {name for groups in inner for group in groups for name in group.split(",")}
    return {extra}.union(*(installed_extras(extras, name) for name in names))


def test_no_file_is_long() -> None:
    python = [path for path in tracked_files() if path.suffix == ".py"]
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in python}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_names_a_path_of_one_machine() -> None:
    """Text or binary: an exporter may leave the path of its source in a model."""
    machine = re.compile(rb"(?<![\w.])/(?:work|root)/")
    files = [path for path in tracked_files() if (ROOT / path).is_file()]
    assert [str(path) for path in files if machine.search((ROOT / path).read_bytes())] == []


def tracked_files() -> list[Path]:
    """What git tracks; the tests that need it are skipped where the sources came without git."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository: nothing tells which files belong to it")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listing.split("\0") if name and (ROOT / name).exists()]
