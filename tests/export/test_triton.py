"""`unblur export-triton`: its repository, read with Triton's schema. tests/conformance runs a server on it."""

import shutil
from pathlib import Path

import pytest
from engine_workshop import Profile, Workshop
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from unblur.export.triton import Serving, find_models, write_models
from unblur.runtime.errors import BadInput, EngineMismatch, SpecMismatch
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.open_model import find_model

SMALL = Serving(max_batch=4, delay_ms=1.5, sizes_hw=((90, 160),))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model("lprn-n"), tmp_path / "mine.unblur"))


def build_engine(bundle: Path, *profiles: Profile) -> Path:
    """An fp16 engine of the bundle, as `unblur build` leaves it."""
    (bundle / "engines").mkdir(exist_ok=True)
    manifest = read_bundle(bundle).manifest
    sha256 = manifest.files["fp16.onnx"].sha256
    return Workshop(bundle / "engines").build(*profiles, steps=manifest.spec.steps, onnx_sha256=sha256)


def write(bundle: Path, repository: Path, serving: Serving = SMALL) -> dict[str, tuple[int, bool]]:
    written = write_models(find_models(read_bundle(bundle), serving), repository)
    return {model.name: (model.version, model.added) for model in written}


def read_config(repository: Path, name: str) -> ModelConfig:
    """Raises text_format.ParseError for a field or a value that is not in Triton's schema."""
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), ModelConfig())


def test_variants_and_engines_become_models_that_state_sizes_batches_and_warm_up(
    bundle: Path, tmp_path: Path
) -> None:
    fixed = Profile(*[(1, 3, 64, 96)] * 3)
    engine = build_engine(bundle, fixed, Profile((1, 3, 32, 32), (2, 3, 96, 96), (4, 3, 128, 128)))
    repository = tmp_path / "models" / "deblurring"
    names = ("lprn-n-fp32-onnx", "lprn-n-fp16-onnx", "lprn-n-int8-onnx", "lprn-n-fp16-tensorrt")
    assert write(bundle, repository) == dict.fromkeys(names, (1, True))

    onnx = read_config(repository, "lprn-n-int8-onnx")
    assert (repository / "lprn-n-int8-onnx/1" / onnx.default_model_filename).read_bytes() == (
        bundle / "int8.onnx"
    ).read_bytes()
    assert (onnx.backend, onnx.platform, onnx.max_batch_size) == ("onnxruntime", "onnxruntime_onnx", 4)
    assert [(each.name, list(each.dims)) for each in (*onnx.input, *onnx.output)] == [
        ("blurred", [3, -1, -1]),
        ("restored", [3, -1, -1]),
    ]
    assert onnx.dynamic_batching.max_queue_delay_microseconds == 1500
    assert [list(each.inputs["blurred"].dims) for each in onnx.model_warmup] == [[3, 96, 160]]  # multiples of 32
    assert '"multiple_of": 32' in onnx.parameters["unblur.spec"].string_value

    plan = read_config(repository, "lprn-n-fp16-tensorrt")
    assert (repository / "lprn-n-fp16-tensorrt/1/model.plan").read_bytes() == engine.read_bytes()
    assert (plan.backend, plan.platform, plan.max_batch_size) == ("tensorrt", "tensorrt_plan", 1)
    assert not plan.HasField("dynamic_batching")
    assert [(each.kind, list(each.profile)) for each in plan.instance_group] == [
        (ModelInstanceGroup.KIND_GPU, ["0", "1"])
    ]
    assert [list(each.inputs["blurred"].dims) for each in plan.model_warmup] == [[3, 64, 96], [3, 96, 96]]


def test_other_weights_become_a_new_version_and_another_config_is_refused(bundle: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write(bundle, repository)
    assert write(bundle, repository)["lprn-n-fp32-onnx"] == (1, False)
    retrained = repository / "lprn-n-fp32-onnx/1/model.onnx"
    retrained.write_bytes(b"earlier weights")
    assert write(bundle, repository)["lprn-n-fp32-onnx"] == (2, True)
    assert retrained.read_bytes() == b"earlier weights"

    before = sorted(repository.rglob("*"))
    with pytest.raises(BadInput, match=r"lprn-n-fp32-onnx/config.pbtxt differs from .*; remove .* or give another"):
        write(bundle, repository, Serving(max_batch=16))
    (repository / "lprn-n-fp32-onnx/config.pbtxt").write_text("max_batches: 4")
    with pytest.raises(BadInput, match=r"config.pbtxt cannot be read as the config of a model; remove"):
        write(bundle, repository)
    assert sorted(repository.rglob("*")) == before


def test_what_cannot_be_served_is_refused(bundle: Path) -> None:
    with pytest.raises(SpecMismatch, match=r"has no variant at 9 steps; it has variants at \d"):
        find_models(read_bundle(bundle), steps=9)
    engine = build_engine(bundle)
    data = engine.read_bytes()
    engine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(EngineMismatch, match="is altered"):
        find_models(read_bundle(bundle))
    build_engine(bundle, Profile(*[(1, 3, 64, 96)] * 3))
    with pytest.raises(BadInput, match=r"would be one model of the repository; leave one of them in"):
        find_models(read_bundle(bundle))
