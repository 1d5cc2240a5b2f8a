"""The diagnosis of machines that are not at hand, from system files that others have published.

Documented, never recorded by us: the release files and boards are quoted from public reports, each named below;
the Debian versions and GPUs are those of NVIDIA's release notes for that JetPack. Nothing here ran on a Jetson.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from unblur.runtime.cli import doctor as cli_doctor
from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.doctor import Check, examine, examine_model
from unblur.runtime.machine.facts import SystemFacts, read_facts
from unblur.runtime.spec import ModelSpec
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_file import (
    BuildOptions,
    EngineIdentity,
    EngineRecord,
    Flavour,
    Profile,
    hash_of,
    this_platform,
    write_engine,
)
from unblur.runtime.tensorrt.trt import TOO_OLD

PYTHON_PACKAGES = {"onnxruntime": "1.23.2", "pycuda": "2026.1"}
ENGINE = b"opaque"


def debian(**packages: str) -> str:
    """A package database in the format of dpkg; `_` stands for `-`."""
    paragraphs = [
        f"Package: {name.replace('_', '-')}\nStatus: install ok installed\nVersion: {version}\n"
        for name, version in packages.items()
    ]
    return "\n".join([*paragraphs, "Package: libnvinfer99\nStatus: deinstall ok config-files\nVersion: 99\n"])


# Release file quoted in the tests of github.com/tier4/ota-client; JetPack 5.1.2 has TensorRT 8.5.2.
JETPACK5 = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
    "DATE: Tue Aug  1 19:57:35 UTC 2023\n",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 20.04.6 LTS"\nVERSION_ID="20.04"\n',
    "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
    "var/lib/dpkg/status": debian(nvidia_jetpack="5.1.2-b104", libnvinfer8="8.5.2-1+cuda11.4"),
}
# Release file quoted in the tests of github.com/roboflow/inference; board, TensorRT and CUDA in
# github.com/rbonghi/jetson_stats/issues/603 (L4T 36.4.3).
JETPACK6 = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
    "var/lib/dpkg/status": debian(libnvinfer10="10.3.0.30-1+cuda12.5", python3_libnvinfer="10.3.0.30-1+cuda12.5"),
}
# Quoted in github.com/rbonghi/jetson_stats/issues/711.
JETPACK7 = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, "
    "DATE: Fri Aug 22 00:55:42 UTC 2025\n",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.0.0"}}',
}
# Quoted in github.com/rbonghi/jetson_stats/issues/864.
JETPACK72_ORIN = {
    **JETPACK7,
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun  1 09:28:48 PM UTC 2026\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
}
# The two forms of the line that NVIDIA's driver writes, with its proprietary and with its open kernel module.
DESKTOP = {
    "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release\n",
}
DESKTOP_PROPRIETARY = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Tue Aug  5 2025\n"
}

ORIN = Device(0, "Orin", 87, True, 16 << 30, (12, 6))
THOR = Device(0, "NVIDIA Thor", 110, True, 122 << 30, (13, 0))
RTX4090 = Device(0, "NVIDIA GeForce RTX 4090", 89, False, 24 << 30, (12, 9))

Look = Callable[..., SystemFacts]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Facts of a machine: its files, its GPU, and Python packages beside the usual ones."""

    def read(files: Mapping[str, str], gpu: Device | None = None, **packages: str) -> SystemFacts:
        root = tmp_path / "root"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

        def find_gpu() -> Device:
            if gpu is None:
                raise DeviceError("there is no CUDA driver (libcuda.so.1); install NVIDIA's")
            return gpu

        named = {name.replace("_", "-"): version for name, version in packages.items()}
        return read_facts(root, find_gpu=find_gpu, packages=PYTHON_PACKAGES | named)

    return read


def check(facts: SystemFacts, name: str) -> Check:
    (found,) = [check for check in examine(facts) if check.name == name]
    return found


def wrong(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok]


@pytest.mark.parametrize(
    ("files", "l4t", "jetpack"),
    [
        (JETPACK5, (35, 4, 1), "5.1.2"),
        (JETPACK6, (36, 4, 3), "6.2"),
        (JETPACK7, (38, 2, 0), "7.0"),
        (JETPACK72_ORIN, (39, 2, 0), "7.2"),
        (DESKTOP, None, None),
        ({"etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29689809"}, (32, 7, 1), None),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 1"}, (36, 4, 7), "6.2.1"),
        ({"etc/nv_tegra_release": "no release"}, None, None),
    ],
)
def test_the_jetpack_is_known_by_its_release_file(
    look: Look, files: Mapping[str, str], l4t: tuple[int, ...] | None, jetpack: str | None
) -> None:
    facts = look(files)
    assert (facts.l4t, facts.jetpack) == (l4t, jetpack)


def test_what_the_files_of_a_jetson_say(look: Look) -> None:
    facts = look(JETPACK6, ORIN)
    assert facts.board == "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    assert (facts.system, facts.toolkit) == ("Ubuntu 22.04.5 LTS", "12.6.68")
    assert sorted(facts.debian) == ["libnvinfer10", "python3-libnvinfer"]  # what was removed does not count


@pytest.mark.parametrize(
    ("files", "driver"), [(DESKTOP, "575.57.08"), (DESKTOP_PROPRIETARY, "580.82.07"), ({}, None)]
)
def test_the_driver_of_a_desktop(look: Look, files: Mapping[str, str], driver: str | None) -> None:
    assert look(files).driver == driver


def test_a_toolkit_whose_file_is_damaged(look: Look) -> None:
    assert look({"usr/local/cuda/version.json": "{"}).toolkit == "unknown"


def test_this_machine_can_be_read() -> None:
    facts = read_facts()
    assert "onnxruntime" in facts.packages
    assert (facts.gpu is None) == bool(facts.no_gpu)
    assert {"system", "python", "onnxruntime", "gpu"} <= {check.name for check in examine(facts)}


def test_a_jetpack_6_with_everything_is_well(look: Look) -> None:
    facts = look(JETPACK6, ORIN, tensorrt="10.3.0")
    assert wrong(examine(facts)) == []
    assert check(facts, "jetpack").detail == "JetPack 6.2, Jetson Linux 36.4.3"
    assert check(facts, "gpu").detail == "Orin, SM87, 16.0 GiB, CUDA 12.6, toolkit 12.6.68"


def test_a_jetpack_6_whose_venv_does_not_see_tensorrt(look: Look) -> None:
    found = check(look(JETPACK6, ORIN), "tensorrt")
    assert found.detail == "TensorRT 10.3.0.30-1+cuda12.5 is installed, but this Python does not see it"
    assert found.fix.endswith("python3 -m venv --system-site-packages .venv")


def test_a_jetson_without_the_python_module(look: Look) -> None:
    assert check(look(JETPACK7, THOR), "tensorrt").fix == "sudo apt install python3-libnvinfer"


def test_a_jetpack_5_is_too_old_for_engines(look: Look) -> None:
    found = check(look(JETPACK5), "jetpack")
    assert not found.ok
    assert "TensorRT 8.5 is older than 10" in found.detail
    assert "flash JetPack 6.2 (Orin); on a Xavier" in found.fix


def test_an_unknown_jetpack(look: Look) -> None:
    found = check(look({"etc/nv_tegra_release": "# R32 (release), REVISION: 7.1"}), "jetpack")
    assert found == Check(
        "jetpack", False, "Jetson Linux 32.7.1, of an unknown JetPack", "flash JetPack 6.2 or newer"
    )


@pytest.mark.parametrize(
    ("files", "gpu", "version", "problem"),
    [
        (JETPACK6, ORIN, "8.6.1", TOO_OLD),
        (JETPACK6, ORIN, "10.7.0", None),
        (JETPACK6, ORIN, "10.13.3", "has no kernels for Orin (SM87)"),
        (JETPACK72_ORIN, ORIN, "10.16.2", None),
        (JETPACK72_ORIN, ORIN, "11.4.0.106", "does not support Jetson before 11.4.1"),
        (JETPACK72_ORIN, ORIN, "11.4.1", None),
        (JETPACK7, THOR, "10.7.0", "does not know SM110"),
        (JETPACK7, THOR, "10.13.2", None),
        (DESKTOP, RTX4090, "11.4.0.106", None),
    ],
)
def test_which_tensorrt_goes_with_which_machine(
    look: Look, files: Mapping[str, str], gpu: Device, version: str, problem: str | None
) -> None:
    found = check(look(files, gpu, tensorrt=version), "tensorrt")
    assert (found.ok, found.detail) == (problem is None, f"TensorRT {version}{f' {problem}' if problem else ''}")
    assert bool(found.fix) == (problem is not None)


def test_a_desktop_with_rtx(look: Look) -> None:
    facts = look(DESKTOP, RTX4090, tensorrt_rtx="1.7.1.116")
    assert wrong(examine(facts)) == []
    assert check(facts, "tensorrt").detail == "TensorRT-RTX 1.7.1.116"
    assert check(facts, "gpu").detail == "NVIDIA GeForce RTX 4090, SM89, 24.0 GiB, CUDA 12.9, driver 575.57.08"


def test_a_desktop_without_tensorrt(look: Look) -> None:
    assert check(look(DESKTOP, RTX4090), "tensorrt").fix == "pip install 'unblur[tensorrt]'"


def test_a_machine_without_gpu_is_well(look: Look) -> None:
    facts = look({}, tensorrt_rtx="1.7.1.116")
    assert wrong(examine(facts)) == []
    assert check(facts, "gpu").detail.startswith("none, models run on the CPU (there is no CUDA driver")
    assert check(facts, "tensorrt-rtx").detail.endswith("builds engines for RTX cards, runs none here")


@pytest.mark.parametrize(
    ("files", "which"), [(DESKTOP, "the kernel has NVIDIA's driver 575"), (JETPACK6, "this is a")]
)
def test_a_gpu_that_should_be_there(look: Look, files: Mapping[str, str], which: str) -> None:
    found = check(look(files), "gpu")
    assert not found.ok
    assert found.detail.startswith(which)
    assert found.fix == "reboot; in a container use --runtime nvidia --gpus all"


def test_an_old_python(look: Look) -> None:
    found = check(replace(look({}), python=(3, 8)), "python")
    assert (found.ok, found.fix) == (False, "install Python 3.10 or newer beside the system's own")


def test_two_onnxruntimes_or_none(look: Look) -> None:
    assert check(look({}, onnxruntime_gpu="1.23.2"), "onnxruntime").fix == "pip uninstall both, then install one"
    assert check(replace(look({}), packages={}), "onnxruntime").fix == "pip install onnxruntime"


@pytest.mark.parametrize(("package", "detail"), [("pycuda", "pycuda 2026.1"), ("x", "none needed: the driver is")])
def test_a_binding_to_cuda_is_not_needed(look: Look, package: str, detail: str) -> None:
    facts = replace(look(JETPACK6, ORIN), packages={"tensorrt": "10.3.0", package: "2026.1"})
    found = check(facts, "cuda-binding")
    assert found.ok
    assert found.detail.startswith(detail)


def test_extras_are_told_and_not_asked_for(look: Look) -> None:
    found = check(look({}), "extra export")
    assert found.ok
    assert found.detail == "not installed (no torch, onnx, onnxscript, onnxsim), not needed to run models"


def write(
    folder: Path, flavour: Flavour = "tensorrt", version: str = "10.3.0", options: BuildOptions | None = None
) -> Path:
    """An engine for an Orin."""
    small, large = (1, 3, 64, 96), (1, 3, 128, 192)
    identity = EngineIdentity(
        flavour=flavour,
        version=version,
        sm=87,
        gpu="Orin",
        platform=this_platform(),
        precision="fp16",
        steps=4,
        profiles=(Profile(small, large, large),),
        options=options or BuildOptions(),
        onnx_sha256="0" * 64,
    )
    spec = ModelSpec("lprn", "lprn-s", steps=4, multiple_of=4, receptive_field=40, pooling="local")
    record = EngineRecord(identity, spec, "blurred", "restored", hash_of(ENGINE), len(ENGINE), 1.0)
    folder.mkdir(parents=True, exist_ok=True)
    return write_engine(folder, ENGINE, record)


def test_an_engine_that_runs_here(look: Look, tmp_path: Path) -> None:
    (found,) = examine_model(write(tmp_path / "engines"), look(JETPACK6, ORIN, tensorrt="10.3.0"))
    assert found.ok
    assert found.detail == "runs here: fp16, 4 steps, sizes 1x64x96..1x128x192"


def test_an_engine_of_another_version_and_the_command_that_mends_it(look: Look, tmp_path: Path) -> None:
    engine = write(tmp_path / "my model.unblur" / "engines")
    (found,) = examine_model(engine, look(JETPACK6, ORIN, tensorrt="10.7.0"))
    assert "the TensorRT version differs: the engine is for 10.3.0, this device has 10.7.0" in found.detail
    model = f"'{tmp_path / 'my model.unblur'}'"
    sizes = "--size 64x96:128x192:128x192"
    assert found.fix == f"unblur build {model} --target tensorrt --precision fp16 --steps 4 {sizes}"


def test_the_command_that_mends_an_engine_keeps_what_it_was_built_with(look: Look, tmp_path: Path) -> None:
    options = BuildOptions(level=0, workspace_mb=512, dla_core=0, version_compatible=True, hardware_compatible=True)
    engine = write(tmp_path, options=options)
    (found,) = examine_model(engine, look(JETPACK6, ORIN, tensorrt="10.2.0"))
    kept = "--level 0 --workspace-mb 512 --dla 0 --version-compatible --hardware-compatible"
    assert found.fix.endswith(f"--size 64x96:128x192:128x192 {kept}")


def test_an_engine_without_gpu_or_without_its_tensorrt(look: Look, tmp_path: Path) -> None:
    engine = write(tmp_path)
    (no_gpu,) = examine_model(engine, look({}))
    assert no_gpu.detail.startswith("cannot run here: there is no CUDA driver")
    assert no_gpu.fix == "run the model without engine, on the CPU"
    (no_tensorrt,) = examine_model(engine, look(DESKTOP, RTX4090, tensorrt_rtx="1.7.1.116"))
    assert no_tensorrt.detail == "needs TensorRT, which is not installed"
    assert no_tensorrt.fix == "pip install 'unblur[tensorrt]'"


def test_a_damaged_engine(look: Look, tmp_path: Path) -> None:
    engine = write(tmp_path)
    engine.write_bytes(ENGINE[:-1])
    (found,) = examine_model(engine, look(JETPACK6, ORIN, tensorrt="10.3.0"))
    assert "has 5 bytes, expected 6" in found.detail


def test_an_onnx_file_runs_everywhere(look: Look, tiny_onnx: Path, tmp_path: Path) -> None:
    assert examine_model(tiny_onnx, look({}))[0].ok
    assert examine_model(tmp_path / "none.onnx", look({}))[0].detail.endswith("none.onnx does not exist")


def test_what_is_no_bundle(look: Look, tmp_path: Path) -> None:
    (found,) = examine_model(tmp_path, look({}))
    assert (found.name, found.ok) == ("bundle", False)


def test_a_bundle_and_its_engines(look: Look, tiny_bundle: Path) -> None:
    assert wrong(examine_model(tiny_bundle, look({}))) == []
    jetson = look(JETPACK6, ORIN, tensorrt="10.3.0")
    *_, advice = examine_model(tiny_bundle, jetson)
    assert advice.fix == f"unblur build {tiny_bundle} --target tensorrt --precision int8,fp16"
    write(tiny_bundle / "engines")
    found = examine_model(tiny_bundle, jetson)
    assert [(check.name, check.ok) for check in found[:2]] == [("bundle", True), ("variant", True)]
    assert found[1].detail == ("fp16 on tensorrt 2 ms, fp32 on cpu 10 ms, int8 on cpu 20 ms: fp16 on tensorrt")
    assert all(check.ok for check in found)


def test_the_command(tmp_path: Path) -> None:
    app = Typer()
    app.command()(cli_doctor.doctor)
    healthy = CliRunner().invoke(app, ["--json"])
    assert {"name", "ok", "detail", "fix"} == json.loads(healthy.stdout)["checks"][0].keys()
    assert healthy.exit_code == (0 if all(check["ok"] for check in json.loads(healthy.stdout)["checks"]) else 1)
    ill = CliRunner().invoke(app, [str(tmp_path)])
    assert ill.exit_code == 1
    assert "NO" in ill.stdout
