"""Every class, enum and signature of TensorRT that we touch, against the real bindings of six versions.

Not part of `make test`, since it downloads them: `make conformance`. A version that cannot be downloaded fails.
Nothing is computed here; that TensorRT-RTX builds real engines is tested in tests/export.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bindings import Binding, NoWheel, unpack  # beside this file, no package
from touched import Touch, touched

HERE = Path(__file__).parent

RTX = Binding("tensorrt-rtx", "1.7.1.116", "tensorrt_rtx")
BINDINGS = (
    Binding("tensorrt-cu12-bindings", "10.0.1"),
    Binding("tensorrt-cu12-bindings", "10.3.0"),
    Binding("tensorrt-cu12-bindings", "10.7.0"),
    Binding("tensorrt-cu12-bindings", "10.13.3.9"),
    Binding("tensorrt-cu13-bindings", "11.4.0.106"),
    RTX,
)
WEAK_TYPING = {
    ("BuilderFlag", "FP16"),
    ("BuilderFlag", "INT8"),
    ("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS"),
    ("ILayer", "precision"),
}
ONE_ARCHITECTURE = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
IMPLICIT_INT8 = {
    ("", "IInt8EntropyCalibrator2"),
    *(("IInt8EntropyCalibrator2", name) for name in ("__init__", "get_batch", "get_batch_size")),
    *(("IInt8EntropyCalibrator2", f"{verb}_calibration_cache") for verb in ("read", "write")),
    ("IBuilderConfig", "int8_calibrator"),
}
IMPLICIT_BATCH = {("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")}
OWN_MEMORY = {("ICudaEngine", "device_memory_size_v2"), ("IExecutionContext", "set_device_memory")}

# What a version may lack, because trt_api asks before it touches it; all else must be there.
MAY_LACK = {
    "10.0.1": ONE_ARCHITECTURE | OWN_MEMORY,
    "10.3.0": ONE_ARCHITECTURE,
    "10.7.0": ONE_ARCHITECTURE,
    "10.13.3.9": ONE_ARCHITECTURE,
    "11.4.0.106": ONE_ARCHITECTURE | WEAK_TYPING | IMPLICIT_BATCH | IMPLICIT_INT8,
    "1.7.1.116": WEAK_TYPING | IMPLICIT_BATCH | IMPLICIT_INT8,
}
# Reached through the result of another call, where the source alone does not tell the class.
BY_HAND = [
    Touch("EngineInspector", "get_engine_information", 1),
    Touch("IInt8EntropyCalibrator2", "get_batch", 1),
    Touch("IInt8EntropyCalibrator2", "get_batch_size", 0),
    Touch("IInt8EntropyCalibrator2", "read_calibration_cache", 0),
    Touch("IInt8EntropyCalibrator2", "write_calibration_cache", 1),
    Touch("IExecutionContext", "enqueue_emits_profile"),
    Touch("ILogger", "log"),
    Touch("ILogger", "ERROR"),
    Touch("ILogger", "INTERNAL_ERROR"),
    Touch("IProgressMonitor", "phase_start"),
    Touch("IProgressMonitor", "step_complete"),
    Touch("IProfiler", "report_layer_time", 2),
    Touch("IProgressMonitor", "phase_finish"),
    Touch("TensorIOMode", "INPUT"),
    Touch("TensorIOMode", "OUTPUT"),
]


@pytest.fixture(scope="session", params=BINDINGS, ids=lambda binding: f"{binding.package}-{binding.version}")
def answer(request: pytest.FixtureRequest, cache: Path) -> dict[str, Any]:
    """What the probe says of one version, in a process of its own."""
    binding: Binding = request.param
    environment, flavour = dict(os.environ), "tensorrt"
    if binding is RTX:
        if importlib.util.find_spec(binding.module) is None:
            pytest.fail(f"{binding.requirement} is not installed (pip install 'unblur[rtx]')")
        flavour = "tensorrt_rtx"
    else:
        try:
            folder, libraries = unpack(binding, cache)
        except NoWheel as error:
            pytest.fail(f"not checked: {error}")
        environment |= {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, str(HERE / "probe.py"), binding.module, flavour],
        input=json.dumps([(touch.owner, touch.name) for touch in everything()]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["version"] == binding.version
    return answer


def everything() -> list[Touch]:
    return [*touched(), *BY_HAND]


def test_the_source_is_read() -> None:
    """The check below is worth what it looks for."""
    found = touched()
    assert len(found) > 60
    assert Touch("IBuilderConfig", "set_memory_pool_limit", 2) in found
    assert Touch("MemoryPoolType", "WORKSPACE") in found
    assert Touch("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS") in found
    assert Touch("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in found
    assert Touch("IExecutionContext", "execute_async_v3", 1) in found
    assert Touch("Runtime", "engine_host_code_allowed") in found
    assert Touch("ILayer", "precision") in found
    assert Touch("IExecutionContext", "profiler") in found
    assert Touch("EngineInspector", "execution_context") in found


def test_all_that_we_touch_is_there(answer: dict[str, Any]) -> None:
    missing = {(owner, name) for owner, name in answer["missing"]}
    assert missing == MAY_LACK[answer["version"]]


def test_calls_fit_their_signatures(answer: dict[str, Any]) -> None:
    wrong = []
    for touch in everything():
        known = answer["signatures"][f"{touch.owner}.{touch.name}"]
        if touch.arguments is not None and known and not any(takes(line, touch.arguments) for line in known):
            wrong.append((touch, known))
    assert wrong == []


def test_signatures_are_compared_at_all(answer: dict[str, Any]) -> None:
    compared = [
        touch for touch in everything() if touch.arguments and answer["signatures"][f"{touch.owner}.{touch.name}"]
    ]
    assert len(compared) >= 20


def test_our_own_code_meets_the_version(answer: dict[str, Any]) -> None:
    major = int(answer["version"].partition(".")[0])
    rtx = answer["version"] == RTX.version
    assert answer["monitor_stops"]
    assert (answer.get("calibration") == ["TRT-100300", "ENTROPY_CALIBRATION_2"]) == (major == 10)
    assert (answer["architectures"] is not None) == rtx
    if rtx:
        assert {75, 80, 86, 89, 120} <= set(answer["architectures"])
    else:
        assert answer["no_builder"].startswith(f"TensorRT {answer['version']} gives no builder: ")


@pytest.mark.parametrize(
    ("line", "count", "fits"),
    [
        ("f(self: trt.X) -> int", 0, True),
        ("f(self: trt.X) -> int", 1, False),
        ("f(self: trt.X, a: Dict[str, int], b: int = 0) -> int", 1, True),
        ("f(self: trt.X, a: Dict[str, int], b: int = 0) -> int", 3, False),
    ],
)
def test_how_signatures_are_read(line: str, count: int, fits: bool) -> None:
    assert takes(line, count) == fits


def takes(line: str, count: int) -> bool:
    """Whether the signature that pybind11 wrote takes that many arguments beside `self`."""
    inside = line[line.index("(") + 1 : line.rindex(") ->")]
    while "[" in inside:
        inside = re.sub(r"\[[^\[\]]*\]", "", inside)
    parameters = [part.strip() for part in inside.split(",")][1:]
    required = [part for part in parameters if "=" not in part]
    return len(required) <= count <= len(parameters)
