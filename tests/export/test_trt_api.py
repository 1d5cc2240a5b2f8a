"""What TensorRT-RTX cannot show, because only TensorRT on a GPU has it: weak typing, DLA, timing caches.

The module below keeps state as TensorRT 10 does; that it has their names is for `make conformance` to check.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import pytest

from unblur.export.trt_api import ParseProblem, Settings, TrtApi, dla_types_weakly
from unblur.runtime.errors import DeviceError, EngineMismatch
from unblur.runtime.tensorrt.engine_file import Profile
from unblur.runtime.tensorrt.trt import TensorRT

Flag = Enum("Flag", "TF32 FP16 INT8 OBEY_PRECISION_CONSTRAINTS VERSION_COMPATIBLE GPU_FALLBACK")
LayerType = Enum("LayerType", "CONVOLUTION REDUCE POOLING NORMALIZATION")
DataType = Enum("DataType", "FLOAT HALF INT8")
PROFILE = Profile((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 16, 16))


class Logger:
    ERROR, INTERNAL_ERROR = "error", "internal error"


@dataclass
class Tensor:
    dtype: DataType
    shape: tuple[int, ...] = (1, 3, -1, -1)


@dataclass
class Layer:
    name: str
    type: LayerType
    output: Tensor
    precision: DataType | None = None
    num_outputs: int = 1

    def get_output(self, index: int) -> Tensor:
        return (self.output,)[index]


@dataclass
class Network:
    layers: list[Layer]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class TimingCache:
    """Bytes that start with "ok" are of this device."""

    def __init__(self, data: bytes) -> None:
        self.entries = set(data.split())

    def combine(self, other: "TimingCache", ignore_mismatch: bool) -> bool:
        self.entries |= other.entries
        return True

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.entries))


@dataclass
class Config:
    flags: set[Flag] = field(default_factory=lambda: {Flag.TF32})
    profiles: list[Any] = field(default_factory=list)
    pools: dict[str, int] = field(default_factory=dict)
    cache: TimingCache | None = None
    full: bool = False

    def set_flag(self, flag: Flag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Flag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return -1 if self.full else len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> TimingCache | None:
        return None if data.startswith(b"damaged") else TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if b"foreign" in cache.entries:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Builder:
    num_DLA_cores = 2  # noqa: N815  # TensorRT's name

    def __init__(self, engine: bytes | None = b"engine") -> None:
        self.config = Config()
        self.flags = -1
        self._engine = engine

    def create_builder_config(self) -> Config:
        return self.config

    def create_network(self, flags: int) -> Network:
        self.flags = flags
        return Network([])

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *sizes: None)

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        return self._engine


def module(**members: Any) -> SimpleNamespace:
    """As much of TensorRT 10 as is used here; `members` replace or add."""
    base = {
        "__version__": "10.3.0",
        "ILogger": Logger,
        "IBuilderConfig": object,
        "BuilderFlag": Flag,
        "LayerType": LayerType,
        "DataType": DataType,
        "NetworkDefinitionCreationFlag": IntEnum("Creation", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}),
        "IProgressMonitor": object,
        "MemoryPoolType": SimpleNamespace(WORKSPACE="workspace"),
        "DeviceType": SimpleNamespace(DLA="dla"),
        "HardwareCompatibilityLevel": SimpleNamespace(AMPERE_PLUS="ampere"),
        "ProfilingVerbosity": SimpleNamespace(DETAILED="detailed"),
        "LayerInformationFormat": SimpleNamespace(JSON="json"),
    }
    return SimpleNamespace(**base | members)


def api(**members: Any) -> TrtApi:
    return TrtApi(TensorRT(module(**members), "tensorrt"))


def layers() -> list[Layer]:
    return [
        Layer("conv", LayerType.CONVOLUTION, Tensor(DataType.HALF)),
        Layer("stem", LayerType.CONVOLUTION, Tensor(DataType.FLOAT)),
        Layer("mean of the frame", LayerType.REDUCE, Tensor(DataType.FLOAT)),
        Layer("mean of channels", LayerType.REDUCE, Tensor(DataType.HALF)),
    ]


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", set()),
        ("fp16", {Flag.FP16, Flag.OBEY_PRECISION_CONSTRAINTS}),
        ("int8", {Flag.FP16, Flag.INT8, Flag.OBEY_PRECISION_CONSTRAINTS}),
    ],
)
def test_weak_typing_keeps_to_the_types_of_the_graph(precision: Any, flags: set[Flag]) -> None:
    trt, builder, network = api(), Builder(), Network(layers())
    config = trt.create_config(builder, network, Settings(precision, 87), weakly_typed=True)
    assert config.flags == flags  # TF32 is on by default, and must not be
    pinned = [layer.name for layer in network.layers if layer.precision is DataType.FLOAT]
    assert pinned == ([] if precision == "fp32" else ["mean of the frame"])


def test_strong_typing_sets_no_precision_flag() -> None:
    trt, builder = api(), Builder()
    trt.create_network(builder, weakly_typed=False)
    assert builder.flags == 0b11
    config = trt.create_config(builder, Network(layers()), Settings("int8", 87), weakly_typed=False)
    assert config.flags == set()


def test_every_setting_reaches_the_builder() -> None:
    settings = Settings(
        "fp16",
        87,
        level=5,
        workspace_mb=64,
        dla_core=1,
        version_compatible=True,
        hardware_compatible=True,
        detailed=True,
    )
    config: Any = api().create_config(Builder(), Network([]), settings, weakly_typed=False)
    assert (config.builder_optimization_level, config.pools) == (5, {"workspace": 64 << 20})
    assert (config.default_device_type, config.DLA_core) == ("dla", 1)
    assert config.flags == {Flag.GPU_FALLBACK, Flag.VERSION_COMPATIBLE}
    assert (config.hardware_compatibility_level, config.profiling_verbosity) == ("ampere", "detailed")


def test_a_dla_core_that_is_not_there() -> None:
    with pytest.raises(
        EngineMismatch, match="DLA core 2 was asked for, this device has 2 of them; leave --dla out"
    ):
        api().create_config(Builder(), Network([]), Settings("fp16", 87, dla_core=2), weakly_typed=True)


@pytest.mark.parametrize(("version", "weakly"), [("10.3.0", True), ("10.7.0", True), ("11.4.1", False)])
def test_a_dla_is_typed_weakly_before_11(version: str, weakly: bool) -> None:
    assert dla_types_weakly(version) == weakly


def test_a_size_that_is_refused() -> None:
    builder, config = Builder(), Config(full=True)
    with pytest.raises(EngineMismatch, match=r"refuses the size 1x8x8\.\.1x16x16: .*; give another --size"):
        api().add_profile(builder, config, "blurred", PROFILE)


@pytest.mark.parametrize(("stored", "used"), [(b"", b""), (b"a b", b"a b"), (b"foreign a", b""), (b"damaged", b"")])
def test_timings_that_do_not_fit_are_left_out(stored: bytes, used: bytes) -> None:
    config = Config()
    api().attach_timings(config, stored)
    assert config.cache is not None
    assert config.cache.serialize() == used


@pytest.mark.parametrize(("others", "merged"), [(b"", b"a"), (b"b c", b"a b c"), (b"damaged", b"a")])
def test_timings_of_other_processes_are_kept(others: bytes, merged: bytes) -> None:
    config = Config()
    api().attach_timings(config, b"a")
    assert api().merged_timings(config, others) == merged


def test_no_engine_is_none() -> None:
    watch: Any = None  # not called: nothing is built
    assert api().build(Builder(None), Network([]), Config(), watch) is None
    assert api().build(Builder(), Network([]), Config(), watch) == b"engine"


def test_a_calibration_cache_reaches_the_builder() -> None:
    watch: Any = None
    trt, config = (
        api(IInt8EntropyCalibrator2=object, IBuilderConfig=SimpleNamespace(int8_calibrator=None)),
        Config(),
    )
    assert trt.can_read_calibration
    trt.build(Builder(), Network([]), config, watch, "TRT-100300-EntropyCalibration2\n")
    calibrator: Any = config.int8_calibrator  # type: ignore[attr-defined]
    assert calibrator.read_calibration_cache() == b"TRT-100300-EntropyCalibration2\n"
    assert (calibrator.get_batch_size(), calibrator.get_batch(["blurred"])) == (1, None)
    calibrator.write_calibration_cache(b"")


def test_without_calibrators_no_cache_is_read() -> None:
    assert not api().can_read_calibration
    assert not api(IInt8EntropyCalibrator2=object).can_read_calibration


def test_a_builder_that_is_null_is_an_error_of_the_device() -> None:
    def null(logger: Any) -> None:
        logger.log(Logger.ERROR, "no CUDA-capable\n device")
        raise TypeError("factory function returned nullptr")

    with pytest.raises(
        DeviceError, match=r"TensorRT 10\.3\.0 gives no builder: no CUDA-capable device; see `unblur doctor`"
    ):
        api(Builder=null).create_builder()


def parser(error: SimpleNamespace | None) -> Any:
    """A class of parsers that find that error, or fail without a reason."""
    return lambda network, logger: SimpleNamespace(
        parse=lambda onnx: False, num_errors=0 if error is None else 1, get_error=lambda index: error
    )


def test_a_node_that_is_not_supported_is_named() -> None:
    error = SimpleNamespace(node_name=lambda: "a", node_operator=lambda: "Det", desc=lambda: "no such\n  thing")
    (problem,) = api(OnnxParser=parser(error)).parse(Network([]), b"")
    assert problem == ParseProblem("a", "Det", "no such thing")


def test_a_parser_without_a_reason_still_fails() -> None:
    (problem,) = api(OnnxParser=parser(None)).parse(Network([]), b"")
    assert problem == ParseProblem("", "", "it gave no reason")


def runtime(engine: Any) -> Any:
    return lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine)


def test_the_engine_tells_its_own_layers() -> None:
    inspector = SimpleNamespace(get_engine_information=lambda kind: '{"Layers": []}')
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    assert api(Runtime=runtime(engine)).inspect(b"engine") == '{"Layers": []}'


def test_an_engine_that_does_not_open() -> None:
    with pytest.raises(DeviceError, match="cannot open the engine it has built: it gave no reason"):
        api(Runtime=runtime(None)).inspect(b"engine")
