"""A bundle -> models in a repository that NVIDIA Triton Inference Server loads.

    REPOSITORY/lprn-s-fp16-onnx/config.pbtxt        what Triton reads: tensors, batching, warm-up
    REPOSITORY/lprn-s-fp16-onnx/1/model.onnx        version 1
    REPOSITORY/lprn-s-fp16-tensorrt/1/model.plan    an engine of the bundle, for the GPU it was built on

The config is a ModelConfig of Triton's own protobuf schema, which tritonclient brings, written by protobuf.
Tensors are the network's: float32 (N, 3, H, W) of ours. Padding and the value range are the client's work; what
it needs to know stands in the config as JSON, the parameter `unblur.spec`.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP16, TYPE_FP32, ModelConfig, ModelInstanceGroup, ModelWarmup

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_folder, make_folder
from unblur.runtime.frames import Padding
from unblur.runtime.model.bundle import ENGINES, Bundle, Variant
from unblur.runtime.model.onnx_session import open_session, session_options
from unblur.runtime.model.open_model import made_from
from unblur.runtime.spec import SPEC_KEY
from unblur.runtime.strict_json import to_json
from unblur.runtime.tensorrt.engine_file import EngineRecord, find_engines, read_engine, read_record

CONFIG = "config.pbtxt"
Backend = Literal["onnx", "tensorrt"]

_NAMES = {"onnx": ("onnxruntime", "onnxruntime_onnx"), "tensorrt": ("tensorrt", "tensorrt_plan")}
_FILES = {"onnx": "model.onnx", "tensorrt": "model.plan"}
_TYPES = {"tensor(float)": TYPE_FP32, "tensor(float16)": TYPE_FP16}
_FOR_CLIENTS = ("multiple_of", "value_range", "colour", "mean", "std", "output", "scale")


@dataclass(frozen=True)
class Serving:
    """How to serve ONNX models; of an engine the largest batch and the sizes are those it was built for.

    delay_ms: how long a request may wait for others to share its batch. sizes_hw: what to warm up with.
    """

    max_batch: int = 8
    delay_ms: float = 2.0
    sizes_hw: tuple[tuple[int, int], ...] = ((720, 1280),)


@dataclass(frozen=True)
class TritonModel:
    """A model of the repository, not yet written. data: of the file that the backend loads."""

    config: ModelConfig
    backend: Backend
    data: bytes


@dataclass(frozen=True)
class WrittenModel:
    """added: False if the newest version held the same bytes already, and nothing was written."""

    name: str
    backend: Backend
    version: int
    bytes: int
    max_batch: int
    added: bool


def find_models(bundle: Bundle, serving: Serving = Serving(), steps: int | None = None) -> list[TritonModel]:
    """The ONNX variants of a bundle at one number of steps (default: the model's own), and their engines.

    Engines of TensorRT-RTX are left out: Triton does not load them. Raises SpecMismatch if there is no variant at
    `steps`, EngineMismatch if an engine is damaged, BadInput if two engines would be one model.
    """
    wanted = steps or bundle.spec.steps
    variants = [variant for variant in bundle.manifest.variants if variant.steps == wanted]
    if not variants:
        present = ", ".join(map(str, sorted({variant.steps for variant in bundle.manifest.variants})))
        raise SpecMismatch(f"{bundle.path} has no variant at {wanted} steps; it has variants at {present}")
    models = [_onnx_model(bundle, variant, serving) for variant in variants]
    for variant in variants:
        engines = list(_engines(bundle, variant))
        if len(engines) > 1:
            names = " and ".join(engine.name for engine, _ in engines)
            raise BadInput(f"{names} would be one model of the repository; leave one of them in {bundle.path}")
        models += [_engine_model(bundle, variant, *found, serving) for found in engines]
    return models


def write_models(models: Sequence[TritonModel], repository: Path) -> list[WrittenModel]:
    """Write the models into a repository, which is made if need be; one that is there gets a new version.

    Raises BadInput, and writes nothing, if a model is there with another config: its versions share one.
    """
    for model in models:
        _check_config(repository / model.config.name / CONFIG, model.config)
    make_folder(repository)
    return [_write(model, repository / model.config.name) for model in models]


def _check_config(file: Path, config: ModelConfig) -> None:
    if not file.parent.exists():
        return
    try:
        found = text_format.Parse(file.read_text(encoding="utf-8"), ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BadInput(f"{file} cannot be read as the config of a model; remove {file.parent}") from error
    if found != config:
        raise BadInput(
            f"{file} differs from the config of this bundle; remove {file.parent} or give another folder"
        )


def _write(model: TritonModel, folder: Path) -> WrittenModel:
    file = _FILES[model.backend]
    newest = max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)
    added = newest == 0 or (folder / str(newest) / file).read_bytes() != model.data
    version = newest + added
    if newest == 0:
        with atomic_folder(folder) as temporary:
            (temporary / CONFIG).write_text(text_format.MessageToString(model.config), encoding="utf-8")
            (temporary / str(version)).mkdir()
            (temporary / str(version) / file).write_bytes(model.data)
    elif added:
        with atomic_folder(folder / str(version)) as temporary:
            (temporary / file).write_bytes(model.data)
    return WrittenModel(folder.name, model.backend, version, len(model.data), model.config.max_batch_size, added)


def _onnx_model(bundle: Bundle, variant: Variant, serving: Serving) -> TritonModel:
    multiple_of, fixed_hw = bundle.spec.multiple_of, bundle.spec.fixed_hw
    padded_hw = [Padding.to_multiple(size_hw, multiple_of).padded_hw for size_hw in serving.sizes_hw]
    config = _config(bundle, variant, "onnx", serving.max_batch, [fixed_hw] if fixed_hw else padded_hw, serving)
    config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_AUTO)
    return TritonModel(config, "onnx", (bundle.path / variant.file).read_bytes())


def _engines(bundle: Bundle, variant: Variant) -> Iterator[tuple[Path, EngineRecord]]:
    for engine in find_engines(bundle.path) if (bundle.path / ENGINES).is_dir() else ():
        record = read_record(engine)
        identity = record.identity
        of_variant = (identity.precision, identity.steps) == (variant.precision, variant.steps)
        if of_variant and identity.flavour == "tensorrt" and made_from(bundle, variant, identity):
            yield engine, record


def _engine_model(
    bundle: Bundle, variant: Variant, engine: Path, record: EngineRecord, serving: Serving
) -> TritonModel:
    profiles = record.identity.profiles
    max_batch = min(profile.maximum[0] for profile in profiles)
    tuned_hw = dict.fromkeys((profile.optimum[2], profile.optimum[3]) for profile in profiles)
    config = _config(bundle, variant, "tensorrt", max_batch, tuned_hw, serving)
    indices = [str(index) for index in range(len(profiles))]
    config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_GPU, profile=indices)
    return TritonModel(config, "tensorrt", read_engine(engine, record))


def _config(
    bundle: Bundle,
    variant: Variant,
    backend: Backend,
    max_batch: int,
    sizes_hw: Collection[tuple[int, int]],
    serving: Serving,
) -> ModelConfig:
    """All but the instances. A graph that takes one batch size only is served unbatched, as it is."""
    session = open_session(bundle.path / variant.file, session_options(1, graph_optimization=False))
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    is_fixed = isinstance(source.shape[0], int)
    steps = "" if variant.steps == bundle.spec.steps else f"-{variant.steps}"
    config = ModelConfig(
        name=f"{bundle.manifest.name}-{variant.precision}{steps}-{backend}",
        backend=_NAMES[backend][0],
        platform=_NAMES[backend][1],
        default_model_filename=_FILES[backend],
        max_batch_size=0 if is_fixed else max_batch,
    )
    config.version_policy.latest.num_versions = 1
    if config.max_batch_size > 1:
        config.dynamic_batching.max_queue_delay_microseconds = round(serving.delay_ms * 1e3)
    for tensors, tensor in ((config.input, source), (config.output, target)):
        dims = [side if isinstance(side, int) else -1 for side in tensor.shape]
        tensors.add(name=tensor.name, data_type=_TYPES[tensor.type], dims=dims if is_fixed else dims[1:])
    for height, width in sizes_hw:
        dims = [*config.input[0].dims[:-2], height, width]
        sample = ModelWarmup.Input(data_type=config.input[0].data_type, dims=dims, random_data=True)
        config.model_warmup.add(name=f"{height}x{width}", batch_size=1, inputs={source.name: sample})
    for_clients = {name: to_json(getattr(bundle.spec, name)) for name in _FOR_CLIENTS}
    config.parameters[SPEC_KEY].string_value = json.dumps(for_clients)
    return config
