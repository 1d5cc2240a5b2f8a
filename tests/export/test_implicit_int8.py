"""INT8 from an fp32 graph and a calibration cache, which a DLA of TensorRT 10.0 to 10.7 asks for.

No such TensorRT can be installed here: the one below keeps what it is told, as test_trt_api's does. That its names
are those of the real one is for `make conformance` to check.
"""

from dataclasses import replace
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_cuda import ORIN

from unblur.calibration.onnx_model import OnnxModel, write_onnx
from unblur.calibration.placement import place
from unblur.calibration.trt_cache import CACHE_FILE, TensorRTCache, cache_tensors
from unblur.export import build, engine_from_onnx
from unblur.export.build import find_sources, needs_cache
from unblur.export.engine_from_onnx import (
    BuildWatch,
    Source,
    Target,
    calibrated,
    identify,
    profile_from_text,
    read_source,
)
from unblur.export.trt_api import TrtApi, dla_refusal
from unblur.runtime.errors import BadInput, CalibrationError, EngineMismatch, SpecMismatch
from unblur.runtime.model.bundle import read_bundle, seal_bundle
from unblur.runtime.model.open_model import find_model
from unblur.runtime.tensorrt.engine_file import BuildOptions
from unblur.runtime.tensorrt.trt import TensorRT

HERE, RTX = Target("tensorrt", None), Target("rtx", 86)
DLA = BuildOptions(dla_core=0)
SHIPPED = find_model("lprn-n")
DYNAMIC = [profile_from_text("64x96:128x192", 4)]


LayerType = Enum("LayerType", "REDUCE POOLING NORMALIZATION")
LAYERS = [
    SimpleNamespace(name=kind.name.lower(), type=kind, num_outputs=0, get_output=lambda _: SimpleNamespace(dtype=0))
    for kind in LayerType
]


class Config(SimpleNamespace):
    """Keeps every attribute that is set, and every flag."""

    int8_calibrator: Any = None

    def __init__(self) -> None:
        super().__init__(flags=set())

    def clear_flag(self, flag: Enum) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: Enum) -> None:
        self.flags.add(flag)

    def can_run_on_DLA(self, layer: SimpleNamespace) -> bool:  # noqa: N802  # TensorRT's name
        return layer.type is not LayerType.NORMALIZATION

    def add_optimization_profile(self, profile: object) -> int:
        return 0


def tensorrt(version: str, config: Config, **members: object) -> TrtApi:
    """TensorRT 10: strong typing, and calibrators unless `members` say otherwise. One DLA core."""
    builder = SimpleNamespace(
        num_DLA_cores=1,
        create_network=lambda flags: SimpleNamespace(flags=flags, num_layers=3, get_layer=LAYERS.__getitem__),
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *sizes: None),
        build_serialized_network=lambda network, config: (
            b"typed weakly" if network.flags == 0 else b"typed strongly"
        ),
    )
    module = SimpleNamespace(
        __version__=version,
        ILogger=type("Logger", (), {"ERROR": 1, "INTERNAL_ERROR": 0}),
        Builder=lambda logger: builder,
        BuilderFlag=Enum("BuilderFlag", "TF32 FP16 INT8 OBEY_PRECISION_CONSTRAINTS GPU_FALLBACK"),
        DeviceType=Enum("DeviceType", "GPU DLA"),
        IBuilderConfig=Config,
        IInt8EntropyCalibrator2=object,
        IProgressMonitor=object,
        LayerType=LayerType,
        DataType=Enum("DataType", "FLOAT HALF"),
        NetworkDefinitionCreationFlag=IntEnum("Creation", {"STRONGLY_TYPED": 1}),
        OnnxParser=lambda network, logger: SimpleNamespace(parse=lambda onnx: True),
    )
    return TrtApi(TensorRT(SimpleNamespace(**vars(module) | members), "tensorrt"))


@pytest.fixture
def graph(fp32: OnnxModel, tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"
    write_onnx(path, fp32)
    return path


def write_cache(path: Path, model: OnnxModel, scale: str = "3c010204") -> Path:
    """A cache for `model` as another version and another calibrator would have written it."""
    scales = dict.fromkeys(cache_tensors(model, place(model)), scale)
    path.write_text(TensorRTCache((10, 0, 1), "MinMaxCalibration", scales).to_text())
    return path


@pytest.fixture
def source(graph: Path, fp32: OnnxModel) -> Source:
    return calibrated(read_source(graph), write_cache(graph.with_name("cache"), fp32))


@pytest.fixture(autouse=True)
def orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_from_onnx, "probe", lambda: ORIN)


def test_the_builder_reads_the_cache_under_its_own_header(source: Source) -> None:
    config = Config()
    api = tensorrt("10.3.0", config)
    identity = identify(source, HERE, api, [profile_from_text("64x96", 4)], DLA)
    assert (identity.precision, identity.options.dla_core) == ("int8", 0)
    built = engine_from_onnx.engine_from_onnx(source, identity, api, BuildWatch())
    assert built.engine == b"typed weakly"
    assert built.not_on_dla == ("normalization (NORMALIZATION)",)
    assert {flag.name for flag in config.flags} == {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "GPU_FALLBACK"}
    header, *lines = config.int8_calibrator.read_calibration_cache().decode().splitlines()
    assert header == "TRT-100300-EntropyCalibration2"
    assert source.calibration is not None
    assert lines == [f"{name}: 3c010204" for name in source.calibration.scales]


def test_another_cache_is_another_engine(source: Source, graph: Path, fp32: OnnxModel) -> None:
    api = tensorrt("10.3.0", Config())
    other = calibrated(read_source(graph), write_cache(graph.with_name("other"), fp32, "3c010205"))
    identities = [identify(each, HERE, api, [], DLA) for each in (source, other)]
    assert len({identity.key for identity in identities}) == 2


@pytest.mark.parametrize("version", ["11.4.1.2", "11.4.0.106"])
def test_a_version_without_calibrators_refuses_a_cache(source: Source, version: str) -> None:
    api = tensorrt(version, Config(), IBuilderConfig=object)
    with pytest.raises(
        EngineMismatch, match=r"cache does not work here: TensorRT 11.* has no implicit INT8; build the INT8"
    ):
        identify(source, HERE, api, [], BuildOptions())


def test_a_dla_takes_int8_with_a_cache() -> None:
    assert dla_refusal("tensorrt", "10.3.0", "int8", calibrated=True) is None
    assert dla_refusal("tensorrt", "10.3.0", "int8") is not None


def test_a_cache_goes_with_fp32(fp16: OnnxModel, fp32: OnnxModel, tmp_path: Path) -> None:
    write_onnx(tmp_path / "fp16.onnx", fp16)
    cache = write_cache(tmp_path / "cache", fp32)
    with pytest.raises(SpecMismatch, match=r"fp16\.onnx is fp16, a calibration cache goes with an fp32 model"):
        find_sources(tmp_path / "fp16.onnx", cache=cache)


def test_a_cache_of_another_model(graph: Path) -> None:
    cache = graph.with_name("cache")
    cache.write_text("TRT-100300-EntropyCalibration2\nsomething else: 3c010204\n")
    with pytest.raises(CalibrationError, match="names the tensor 'something else'"):
        find_sources(graph, cache=cache)


def test_a_file_with_a_cache_is_int8(graph: Path, fp32: OnnxModel) -> None:
    (source,), folder = find_sources(graph, ("int8",), cache=write_cache(graph.with_name("cache"), fp32))
    assert (source.precision, source.path, folder) == ("int8", graph, graph.parent)


@pytest.mark.parametrize(
    ("version", "targets", "options", "needed"),
    [
        ("10.7.0", [HERE], DLA, True),
        ("10.0.1", [HERE], DLA, True),
        ("10.7.0", [HERE], BuildOptions(), False),
        ("10.7.0", [RTX], DLA, False),
        ("11.4.1", [HERE], DLA, False),
    ],
)
def test_when_a_cache_is_needed(
    version: str, targets: list[Target], options: BuildOptions, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_api", lambda flavour: SimpleNamespace(version=version))
    assert needs_cache(targets, options) == needed


def test_a_bundle_brings_its_cache(stepped_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "cached.unblur"
    bundle.mkdir()
    for name in ("fp32.onnx", "int8.onnx", "int8-1.onnx", "fp16.onnx"):
        (bundle / name).write_bytes((stepped_bundle / name).read_bytes())
    write_cache(bundle / CACHE_FILE, read_source(bundle / "fp32.onnx").model)
    manifest = read_bundle(stepped_bundle).manifest
    kept = tuple(variant for variant in manifest.variants if (bundle / variant.file).is_file())
    seal_bundle(bundle, replace(manifest, variants=kept, golden=()))
    (int8, fp16), _ = find_sources(bundle, ("int8", "fp16"), implicit=True)
    assert (int8.path.name, int8.precision, int8.calibration is None) == ("fp32.onnx", "int8", False)
    assert (fp16.path.name, fp16.calibration) == ("fp16.onnx", None)
    with pytest.raises(BadInput, match=r"calibration\.cache has the ranges of 4 steps, asked for 1; INT8 from a"):
        find_sources(bundle, ("int8",), (1,), implicit=True)
    (explicit,), _ = find_sources(bundle, ("int8",))
    assert (explicit.path.name, explicit.calibration) == ("int8.onnx", None)


def test_a_bundle_without_a_cache(tmp_path: Path) -> None:
    bundle = tmp_path / "old.unblur"
    bundle.mkdir()
    (bundle / "int8.onnx").write_bytes((SHIPPED / "int8.onnx").read_bytes())
    manifest = read_bundle(SHIPPED).manifest
    kept = tuple(variant for variant in manifest.variants if variant.file == "int8.onnx")
    seal_bundle(bundle, replace(manifest, variants=kept, golden=()))
    with pytest.raises(
        BadInput, match=r"old\.unblur has no calibration\.cache, .*or give one with --calibration-cache"
    ):
        find_sources(bundle, ("int8",), implicit=True)


def test_a_cache_is_for_int8(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--calibration-cache is for INT8, not for fp16; add --precision int8"):
        find_sources("lprn-n", ("fp16",), cache=tmp_path / "cache")


def test_a_dla_takes_one_fixed_size(graph: Path) -> None:
    with pytest.raises(EngineMismatch, match=r"--dla needs a fixed size, --size asks for 1x64x96\.\.1x128x192;"):
        identify(replace(read_source(graph), precision="fp16"), HERE, tensorrt("10.3.0", Config()), DYNAMIC, DLA)


def test_hardware_compatible_is_refused_on_jetpack(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, api = BuildOptions(hardware_compatible=True), tensorrt("10.3.0", Config())
    assert identify(read_source(graph), HERE, api, DYNAMIC, options).options == options
    monkeypatch.setattr(engine_from_onnx, "jetson_linux", lambda: (36, 4, 3))
    with pytest.raises(EngineMismatch, match=r"--hardware-compatible does not work on JetPack, .*; leave it out"):
        identify(read_source(graph), HERE, api, DYNAMIC, options)
