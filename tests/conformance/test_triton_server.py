"""A real Triton Inference Server loads what `unblur export-triton` writes, and restores what ONNX Runtime does.

The server comes with PyTriton, which has no other backend than that for Python. A backend in Python, which loads
`model.onnx` into ONNX Runtime, stands in for Triton's own; configs, versions, warm-up and batching are real.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bindings import NoWheel, download  # beside this file
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from unblur.export.triton import Serving, find_models, write_models
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.open_model import find_model

PYTRITON = "nvidia-pytriton==0.7.0"  # Triton 2.51
SHAPE = (1, 3, 64, 96)
STAND_IN = """
import os, sys
sys.path[:0] = os.environ["STAND_IN_PATH"].split(os.pathsep)
import json
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        file = os.path.join(args["model_repository"], args["model_version"], self.config["default_model_filename"])
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        (source,), (target,) = self.config["input"], self.config["output"]
        # by DLPack: the backend's own conversion is built for NumPy 1
        batches = [np.from_dlpack(triton.get_input_tensor_by_name(each, source["name"])) for each in requests]
        (restored,) = self.session.run([target["name"]], {source["name"]: np.concatenate(batches)})
        parts = np.split(restored, np.cumsum([len(batch) for batch in batches])[:-1])
        return [triton.InferenceResponse([triton.Tensor.from_dlpack(target["name"], part)]) for part in parts]
"""


@pytest.fixture(scope="session")
def triton(cache: Path) -> Path:
    """The folder that the wheel of the server is unpacked in."""
    folder = cache / PYTRITON
    if not (folder / "pytriton").is_dir():
        try:
            wheel = download(PYTRITON, folder)
        except NoWheel as error:  # for x86-64 Linux with glibc 2.35 only
            pytest.skip(f"not checked: {error}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


@pytest.fixture
def server(triton: Path, repository: Path, tmp_path: Path) -> Iterator[InferenceServerClient]:
    """A client of a server that has loaded the repository."""
    installed, backends = triton / "pytriton/tritonserver", tmp_path / "backends"
    shutil.copytree(installed / "backends", backends)
    stub = (
        installed / f"python_backend_stubs/{sys.version_info[0]}.{sys.version_info[1]}/triton_python_backend_stub"
    )
    Path(shutil.copy(stub, backends / "python")).chmod(0o755)
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime/model.py").write_text(STAND_IN)
    (installed / "bin/tritonserver").chmod(0o755)
    port = free_port()
    command = [
        installed / "bin/tritonserver", "--model-repository", repository, "--backend-directory", backends,
        "--grpc-address", "127.0.0.1", "--grpc-port", str(port), "--allow-http", "0", "--allow-metrics", "0",
        "--disable-auto-complete-config",
    ]  # fmt: skip
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(triton / "nvidia_pytriton.libs"),
        "STAND_IN_PATH": os.pathsep.join(sys.path),
    }
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            client = InferenceServerClient(f"127.0.0.1:{port}")
            wait_until_ready(client, process, tmp_path / "log")
            yield client
            client.close()
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(client: InferenceServerClient, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends_s = time.monotonic() + 120
    while time.monotonic() < ends_s and process.poll() is None:
        try:
            if client.is_server_ready():
                return
        except InferenceServerException:
            pass  # it does not listen yet
        time.sleep(0.2)
    pytest.fail(f"the server is not ready:\n{log.read_text()}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two versions of each model; the first is of other weights, and damaged."""
    models = find_models(
        read_bundle(find_model("lprn-n")), Serving(max_batch=4, delay_ms=500, sizes_hw=(SHAPE[2:],))
    )
    write_models(models, tmp_path / "models")
    for file in (tmp_path / "models").glob("*/1/model.onnx"):
        file.write_bytes(b"other weights")
    assert [written.version for written in write_models(models, tmp_path / "models")] == [2, 2, 2]
    return tmp_path / "models"


def test_a_server_loads_the_newest_version_and_restores_in_batches(server: InferenceServerClient) -> None:
    frames = np.random.default_rng(0).random((4, *SHAPE), np.float32)
    for precision in ("fp32", "int8"):
        name = f"lprn-n-{precision}-onnx"
        assert server.get_model_metadata(name, as_json=True)["versions"] == ["2"]

        def infer(frame: "np.ndarray", name: str = name) -> InferResult:
            tensor = InferInput("blurred", list(SHAPE), "FP32")
            tensor.set_data_from_numpy(frame)
            return server.infer(name, [tensor])

        with ThreadPoolExecutor(4) as clients:
            restored = [result.as_numpy("restored") for result in clients.map(infer, frames)]
        with OnnxRunner(find_model("lprn-n") / f"{precision}.onnx") as runner:
            for frame, one in zip(frames, restored, strict=True):
                np.testing.assert_allclose(one, runner.infer(frame), atol=1e-3 if precision == "fp32" else 0.05)
        (statistics,) = server.get_inference_statistics(name, as_json=True)["model_stats"]
        assert int(statistics["inference_count"]) == 5  # with that of the warm-up
        assert int(statistics["execution_count"]) < 5  # requests shared a batch
