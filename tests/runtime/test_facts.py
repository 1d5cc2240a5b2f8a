"""What is stored beside a measurement, read from machines that others have published; see test_doctor.py."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from jetson_trees import ORIN_NANO_JETPACK6

from unblur.runtime.machine import facts as module
from unblur.runtime.machine.facts import Cpu, Environment, environment, read_environment, read_facts
from unblur.runtime.strict_json import from_json
from unblur.runtime.tensorrt.cuda_driver import Device

# One core as github.com/hrw/arm-socs-table/issues/63 quotes it, board and release file as in test_doctor.py.
XAVIER = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 0 (v8l)\nBogoMIPS\t: 62.50\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm dcpop\n"
    "CPU implementer\t: 0x4e\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x004\nCPU revision\t: 0\n",
    "proc/meminfo": "MemTotal:        7802256 kB\nMemFree:          173140 kB\n",
    "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n",
}
XEON = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6338\n"
    "flags\t\t: fpu avx2 avx512_vnni avx512f sse4_1 avx\n\nprocessor\t: 1\nmodel name\t: another\n",
}
GPU = Device(0, "Xavier", 72, integrated=True, memory_bytes=8 << 30, driver_cuda=(11, 4))


def look(root: Path, files: Mapping[str, str], packages: Mapping[str, str] | None = None) -> Environment:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return read_environment(root, facts=read_facts(root, find_gpu=lambda: GPU, packages=packages or {}))


def test_a_jetson(tmp_path: Path) -> None:
    found = look(tmp_path, XAVIER, {"unblur": "0.1.0", "tensorrt": "8.5.2.2", "rich": "15.0.0"})
    assert found.cpu == Cpu("Carmel", os.cpu_count() or 1, ("asimd", "asimdhp"), "schedutil")
    assert (found.board, found.jetpack) == ("NVIDIA Jetson Xavier NX Developer Kit", "5.1.2")
    assert found.memory_bytes == 7802256 * 1024
    assert found.packages == {"unblur": "0.1.0", "tensorrt": "8.5.2.2"}
    assert found.gpu == GPU


def test_how_a_jetson_is_set(tmp_path: Path) -> None:
    found = look(tmp_path, ORIN_NANO_JETPACK6)
    assert (found.power_mode, found.jetson_clocks) == ("MAXN_SUPER", True)


def test_a_server_whose_clock_linux_does_not_set(tmp_path: Path) -> None:
    cpu = look(tmp_path, XEON).cpu
    assert (cpu.model, cpu.governor) == ("Intel(R) Xeon(R) Gold 6338", None)
    assert cpu.flags == ("sse4_1", "avx", "avx2", "avx512f", "avx512_vnni")


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = look(tmp_path, {})
    assert (found.cpu.model, found.memory_bytes, found.board) == (platform.machine(), None, None)
    assert (found.power_mode, found.jetson_clocks) == (None, None)


def test_this_machine_as_json() -> None:
    document = json.loads(json.dumps(environment()))
    assert from_json(Environment, document, "environment") == read_environment()
    assert document["packages"].keys() >= {"unblur", "numpy", "onnxruntime"}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_a_checkout_says_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "runtime" / "machine" / "facts.py"
    source.parent.mkdir(parents=True)
    source.write_text("as committed")
    monkeypatch.setattr(module, "__file__", str(source))
    facts = read_facts(tmp_path, find_gpu=lambda: GPU, packages={})
    assert read_environment(tmp_path, facts=facts).commit is None

    git(tmp_path, "init", "--quiet")
    assert read_environment(tmp_path, facts=facts).commit is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert read_environment(tmp_path, facts=facts).commit == head
    source.write_text("edited")
    assert read_environment(tmp_path, facts=facts).commit == f"{head}-dirty"
