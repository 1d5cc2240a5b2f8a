"""Engines are built for real, by TensorRT-RTX, which needs no GPU for it; nothing here executes one."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from onnx import TensorProto, helper

from unblur.calibration.images import find_sample
from unblur.calibration.int8_from_fp32 import Settings, calibrate
from unblur.calibration.onnx_model import OnnxModel, described, write_onnx
from unblur.export.engine_from_onnx import (
    BuildWatch,
    Source,
    Target,
    engine_from_onnx,
    identify,
    profile_from_text,
    read_source,
)
from unblur.export.fp16 import fp16_from_fp32, int8_fp16_from_int8
from unblur.export.onnx_from_network import onnx_from_network
from unblur.export.trt_api import TrtApi, dla_refusal, load_api
from unblur.runtime.errors import EngineMismatch, MissingExtra, SpecMismatch
from unblur.runtime.spec import Precision
from unblur.runtime.tensorrt.engine_file import BuildOptions, EngineRecord, hash_of, this_platform
from unblur.runtime.tensorrt.trt import load_tensorrt
from unblur.train.networks import build_network

pytest.importorskip("tensorrt_rtx", reason="NO RTX ENGINE IS BUILT: pip install 'unblur[rtx]'")

SM86 = Target("rtx", 86)
FIXED, DYNAMIC = "64x96", "64x96:128x192"
MakeSource = Callable[[OnnxModel], Source]


class CountingWatch(BuildWatch):
    """Stops the build once it has seen `patience` steps."""

    def __init__(self, patience: int = 1000) -> None:
        super().__init__()
        self.phases: list[tuple[str, int]] = []
        self.steps = 0
        self._patience = patience

    def phase(self, name: str, steps: int) -> None:
        self.phases.append((name, steps))

    def step(self) -> None:
        self.steps += 1
        if self.steps >= self._patience:
            self.stop()


@pytest.fixture(scope="session")
def api() -> TrtApi:
    return load_api("rtx")


@pytest.fixture
def source_of(tmp_path: Path) -> MakeSource:
    def make(model: OnnxModel) -> Source:
        path = tmp_path / "model.onnx"
        write_onnx(path, model)
        return read_source(path)

    return make


def build(
    api: TrtApi, source: Source, sizes: str, watch: BuildWatch | None = None, options: BuildOptions | None = None
) -> tuple[bytes, EngineRecord]:
    profiles = [profile_from_text(size, source.spec.multiple_of) for size in sizes.split()]
    identity = identify(source, SM86, api, profiles, options or BuildOptions())
    built = engine_from_onnx(source, identity, api, watch or BuildWatch())
    return built.engine, built.record


@pytest.mark.parametrize("sizes", [FIXED, DYNAMIC], ids=["fixed", "dynamic"])
def test_a_record_says_what_was_built(api: TrtApi, source_of: MakeSource, fp16: OnnxModel, sizes: str) -> None:
    source = source_of(fp16)
    engine, record = build(api, source, sizes)
    assert (record.engine_bytes, record.engine_sha256) == (len(engine), hash_of(engine))
    assert len(engine) > len(source.data)
    assert (record.input, record.output, record.spec) == ("blurred", "restored", fp16.spec)
    identity = record.identity
    assert (identity.flavour, identity.version, identity.sm, identity.gpu) == ("rtx", api.version, 86, None)
    assert (identity.precision, identity.steps, identity.platform) == ("fp16", 2, this_platform())
    assert identity.onnx_sha256 == hash_of(fp16.data)
    assert record.seconds > 0


@pytest.mark.parametrize("preset", ["lprn-n", "lprn-s"])
def test_every_shipped_preset_builds_in_every_precision(
    api: TrtApi, source_of: MakeSource, preset: str, calibration_folder: Path
) -> None:
    torch.manual_seed(0)
    network = build_network(preset)
    for parameter in network.reconstruct.parameters():  # zero in a fresh network, and so is what INT8 would measure
        torch.nn.init.normal_(parameter, std=0.03)
    fp32 = onnx_from_network(network.eval())
    everything = Settings(budget_db=99, implicit=False)  # the image's convolutions too
    int8 = calibrate(fp32, find_sample(calibration_folder, synthetic_blur=False).spread(2), everything).model
    for precision, model in {"fp32": fp32, "fp16": fp16_from_fp32(fp32), "int8": int8_fp16_from_int8(int8)}.items():
        _, record = build(api, source_of(model), f"{FIXED} {DYNAMIC}")
        assert record.identity.precision == precision
        assert [profile.is_fixed for profile in record.identity.profiles] == [True, False]


def test_a_build_is_watched(api: TrtApi, source_of: MakeSource, fp16: OnnxModel) -> None:
    watch = CountingWatch()
    build(api, source_of(fp16), FIXED, watch)
    assert watch.phases
    assert watch.steps > 0


def test_a_build_can_be_stopped(api: TrtApi, source_of: MakeSource, fp16: OnnxModel) -> None:
    with pytest.raises(EngineMismatch, match=r"TensorRT-RTX .* could not build the engine"):
        build(api, source_of(fp16), FIXED, CountingWatch(patience=1))


def test_the_builder_gets_its_options(api: TrtApi, source_of: MakeSource, fp16: OnnxModel) -> None:
    quick, _ = build(api, source_of(fp16), FIXED, options=BuildOptions(level=0, workspace_mb=64))
    assert quick


def test_the_layers_are_listed(api: TrtApi, source_of: MakeSource, fp16: OnnxModel) -> None:
    source = source_of(fp16)
    identity = identify(source, SM86, api, [profile_from_text(FIXED, 4)], BuildOptions())
    built = engine_from_onnx(source, identity, api, BuildWatch(), detailed=True)
    convolutions = [layer for layer in built.layers if layer["type"] == "CONVOLUTION"]
    assert convolutions
    assert all(cast(list[dict[str, object]], layer["outputs"])[0]["type"] == "HALF" for layer in convolutions)
    assert built.inspection is None  # takes a GPU


def test_an_unsupported_operator_is_named(api: TrtApi, source_of: MakeSource, fp32: OnnxModel) -> None:
    graph = helper.make_graph(
        [helper.make_node("Det", ["blurred"], ["restored"], name="of_all_things")],
        "unsupported",
        [helper.make_tensor_value_info("blurred", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, [1, 3])],
    )
    model = described(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), fp32.spec, "fp32")
    with pytest.raises(
        EngineMismatch, match=r"does not support node 'of_all_things' \(Det\): .*; use ONNX Runtime"
    ):
        build(api, source_of(model), "8x8")


def test_a_size_that_the_graph_does_not_take(api: TrtApi, source_of: MakeSource, fp32: OnnxModel) -> None:
    fixed = OnnxModel.of(fp32.copied())
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 32
    with pytest.raises(EngineMismatch, match=r"could not build the engine|refuses the size 1x64x96"):
        build(api, source_of(fixed), FIXED)


def test_a_model_without_precision(source_of: MakeSource, fp32: OnnxModel) -> None:
    model = described(fp32.copied(), fp32.spec, cast(Precision, "fp8"))
    with pytest.raises(SpecMismatch, match="does not say its precision; export the model again"):
        source_of(model)


def test_another_architecture_is_refused(api: TrtApi, source_of: MakeSource, fp32: OnnxModel) -> None:
    with pytest.raises(EngineMismatch, match=r"cannot build for SM87; expected rtx-sm75, .*--target tensorrt"):
        identify(source_of(fp32), Target("rtx", 87), api, [], BuildOptions())


@pytest.mark.parametrize("options", [BuildOptions(version_compatible=True), BuildOptions(hardware_compatible=True)])
def test_compatible_rtx_engines_are_refused(
    api: TrtApi, source_of: MakeSource, fp32: OnnxModel, options: BuildOptions
) -> None:
    with pytest.raises(EngineMismatch, match="leave the compatibility out and name several targets"):
        identify(source_of(fp32), SM86, api, [], options)


def test_an_rtx_engine_for_a_dla_is_refused(api: TrtApi, source_of: MakeSource, fp32: OnnxModel) -> None:
    with pytest.raises(EngineMismatch, match="--dla does not work here: TensorRT-RTX has no DLA"):
        identify(source_of(fp32), SM86, api, [], BuildOptions(dla_core=0))


@pytest.mark.parametrize(
    ("version", "precision", "reason"),
    [
        ("10.0.1", "fp16", None),
        ("10.3.0", "fp16", None),
        ("10.7.0", "fp16", None),
        ("11.4.1.2", "int8", None),
        ("10.3.0", "fp32", "computes in fp16 or INT8, not in fp32"),
        ("10.3.0", "int8", "takes INT8 from a calibration cache only, not from Q/DQ; give a bundle"),
        ("10.13.3.9", "fp16", "TensorRT 10.13.3.9 has no DLA"),
        ("11.4.0.106", "fp16", "has no DLA; 10.7 is the last before, 11.4.1 the first after"),
    ],
)
def test_which_version_has_a_dla(version: str, precision: Precision, reason: str | None) -> None:
    refusal = dla_refusal("tensorrt", version, precision)
    assert (refusal is None) if reason is None else (refusal is not None and reason in refusal)


@pytest.mark.parametrize(
    ("target", "extra"), [(SM86, "unblur\\[rtx\\]"), (Target("tensorrt", None), "unblur\\[tensorrt\\]")]
)
def test_what_builds_engines_is_an_extra(monkeypatch: pytest.MonkeyPatch, target: Target, extra: str) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)  # any import of it now fails
    with pytest.raises(MissingExtra, match=f"need the Python package 'tensorrt.*': pip install '{extra}'"):
        load_tensorrt.__wrapped__(target.flavour)
