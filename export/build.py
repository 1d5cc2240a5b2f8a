"""What `unblur build` does: every model, for every target, as engines in one folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unblur.calibration.trt_cache import CACHE_FILE
from unblur.export.engine_from_onnx import (
    DEFAULT_SIZE,
    BuildWatch,
    Built,
    Source,
    Target,
    calibrated,
    engine_from_onnx,
    identify,
    profile_from_text,
    read_source,
    targets_from_text,
)
from unblur.export.timing_cache import exclusive, timing_cache
from unblur.export.trt_api import TrtApi, dla_needs_cache, load_api
from unblur.runtime.errors import BadInput, EngineMismatch, SpecMismatch
from unblur.runtime.model.bundle import ENGINES, Bundle, Variant, read_bundle
from unblur.runtime.model.open_model import check_overrides, find_model
from unblur.runtime.spec import Precision, SpecOverrides
from unblur.runtime.tensorrt.engine_file import (
    SUFFIX,
    BuildOptions,
    EngineIdentity,
    EngineRecord,
    owner_of,
    read_engine,
    read_record,
    write_engine,
)


@dataclass(frozen=True)
class StoredEngine:
    """An engine in its folder. built: what building it gave; None if it was there already."""

    path: Path
    record: EngineRecord
    built: Built | None


def store_engine(
    source: Source,
    identity: EngineIdentity,
    api: TrtApi,
    folder: Path,
    watch: BuildWatch,
    *,
    force: bool = False,
    detailed: bool = False,
    waiting: Callable[[], object] = lambda: None,
) -> StoredEngine:
    """The engine of that identity in `folder`, built now if it is not there or is damaged.

    Anything that matters changes the key, so a changed model or version is a new file beside the old one. If
    another process is building the same key, `waiting` is called, and its engine is taken when it is done.
    force: build in any case. Raises what `engine_from_onnx` raises, BadInput if `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror or error}; give another folder with -o") from error
    path = folder / f"{identity.key}{SUFFIX}"
    with exclusive(folder / f".{identity.key}.lock", waiting):
        record = None if force else _present(path, identity)
        if record is not None and not detailed:
            return StoredEngine(path, record, None)
        timings = timing_cache(identity) if api.can_cache_timings else None
        built = engine_from_onnx(source, identity, api, watch, timings=timings, detailed=detailed)
        write_engine(folder, built.engine, built.record)
        built.keep_timings()
    return StoredEngine(path, built.record, built)


def _present(path: Path, identity: EngineIdentity) -> EngineRecord | None:
    """The record of an engine that is there and whole."""
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        read_engine(path, record)
    except EngineMismatch:  # damaged, or left by a build that was killed: it is built again
        return None
    return record if record.identity == identity else None


Steps = tuple[int, ...] | Literal["all"]


@dataclass(frozen=True)
class BuildRequest:
    """What to build. sizes: as `profile_from_text` takes them, a profile each; none for the usual one.

    force, detailed: see `store_engine`.
    """

    sources: tuple[Source, ...]
    targets: tuple[Target, ...]
    folder: Path
    sizes: tuple[str, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    force: bool = False
    detailed: bool = False


Watching = Callable[[Source, Target], tuple[BuildWatch, Callable[[], object]]]
"""Called before each engine; gives who follows the build, and what to call if another process is building it."""


def _silent(source: Source, target: Target) -> tuple[BuildWatch, Callable[[], object]]:
    return BuildWatch(), lambda: None


def build_engines(request: BuildRequest, watching: Watching = _silent) -> Iterator[StoredEngine]:
    """Build one engine per target and model, in that order, and yield each as soon as it is safe.

    All targets are checked before the first build, which may take minutes. Raises EngineMismatch if one cannot be
    built, MissingExtra or DeviceError if what builds it is not there.
    """
    jobs = [
        (_identify(request, source, target), source, target)
        for target in request.targets
        for source in request.sources
    ]
    for identity, source, target in jobs:
        watch, waiting = watching(source, target)
        yield store_engine(
            source,
            identity,
            load_api(target.flavour),
            request.folder,
            watch,
            force=request.force,
            detailed=request.detailed,
            waiting=waiting,
        )


def build_engine(
    model: str | Path,
    target: str = "tensorrt",
    *,
    precision: Precision | None = None,
    size: str | None = None,
    steps: int | None = None,
    folder: Path | None = None,
    options: BuildOptions | None = None,
) -> StoredEngine:
    """Build one engine; one that is there already is not built again.

    model: a shipped preset, a bundle or an .onnx file. target: "tensorrt" for the GPU of this machine, or an RTX
    architecture such as "rtx-sm89", which needs no GPU. precision: of a bundle, by default fp16. size: "HxW", or
    "MIN:OPT:MAX" of them, by default 720x1280 or the only size that the network takes. folder: of the engine, by
    default the model's own.
    Raises what `find_sources` and `build_engines` raise.
    """
    sources, own = find_sources(model, () if precision is None else (precision,), () if steps is None else (steps,))
    targets = targets_from_text(target)
    request = BuildRequest(sources, targets, folder or own, (size,) if size else (), options or BuildOptions())
    return next(build_engines(request))


def needs_cache(targets: Sequence[Target], options: BuildOptions) -> bool:
    """Whether INT8 has to come from a calibration cache: it does for a DLA of TensorRT up to 10.7."""
    on_dla = options.dla_core is not None and any(target.flavour == "tensorrt" for target in targets)
    return on_dla and dla_needs_cache(load_api("tensorrt").version)


def find_sources(
    model: str | Path,
    precisions: Sequence[Precision] = (),
    steps: Steps = (),
    *,
    cache: Path | None = None,
    implicit: bool = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> tuple[tuple[Source, ...], Path]:
    """The ONNX files that `model` names, and the folder where its engines belong.

    model: a shipped preset, a bundle or an .onnx file. precisions: of a bundle, by default fp16, which is fast and
    loses nothing to see; an .onnx file has only its own. steps: of a bundle, by default the model's own; "all" are
    those that it has in that precision. cache: a calibration cache; INT8 is then made from it and the fp32 model.
    implicit: take the bundle's own cache for INT8. overrides: what is stated of an .onnx file from elsewhere.
    """
    path = find_model(model)
    if path.suffix == SUFFIX:
        raise BadInput(f"{path} is an engine already; build from {owner_of(path) or 'the model it was made of'}")
    check_overrides(path, overrides)
    if path.is_dir():
        bundle = read_bundle(path)
        wanted = precisions or (("fp16",) if cache is None else ("int8",))
        if "int8" in wanted and implicit:
            cache = cache or _cache_of(bundle)
        elif "int8" not in wanted and cache is not None:
            raise BadInput(f"--calibration-cache is for INT8, not for {', '.join(wanted)}; add --precision int8")
        variants = [variant for precision in wanted for variant in _variants(bundle, precision, steps)]
        return tuple(_source(bundle, variant, cache) for variant in variants), path / ENGINES
    source = read_source(path, overrides)
    if cache is not None:
        source = calibrated(source, cache)
    if tuple(precisions) not in ((), (source.precision,)):
        raise SpecMismatch(f"{path} is {source.precision}, asked for {', '.join(precisions)}; give a bundle")
    for count in () if steps == "all" else steps:
        if count != source.spec.steps:
            raise SpecMismatch(
                f"{path} runs {source.spec.steps} steps, asked for {count}; export it with --steps {count}"
            )
    return (source,), path.parent


def _variants(bundle: Bundle, precision: Precision, steps: Steps) -> list[Variant]:
    if steps == "all":
        return [variant for variant in bundle.manifest.variants if variant.precision == precision]
    return [bundle.variant(precision, count) for count in steps or (bundle.spec.steps,)]


def _source(bundle: Bundle, variant: Variant, cache: Path | None) -> Source:
    """A variant as it is, or, with a cache, INT8 as the fp32 variant and the cache."""
    if cache is None or variant.precision != "int8":
        return read_source(bundle.path / variant.file)
    if variant.steps != bundle.spec.steps:
        raise BadInput(
            f"{cache} has the ranges of {bundle.spec.steps} steps, asked for {variant.steps}; INT8 from a "
            "calibration cache is built at the model's own steps, leave --steps out"
        )
    return calibrated(read_source(bundle.path / bundle.variant("fp32", variant.steps).file), cache)


def _cache_of(bundle: Bundle) -> Path:
    if CACHE_FILE not in bundle.manifest.files:
        raise BadInput(
            f"{bundle.path} has no {CACHE_FILE}, from which this DLA takes INT8; deploy it again, or give one with "
            "--calibration-cache"
        )
    return bundle.path / CACHE_FILE


def _identify(request: BuildRequest, source: Source, target: Target) -> EngineIdentity:
    multiple = source.spec.multiple_of
    fixed = source.spec.fixed_hw and "{}x{}".format(*source.spec.fixed_hw)
    profiles = [profile_from_text(size, multiple) for size in request.sizes or (fixed or DEFAULT_SIZE,)]
    if fixed and profiles != [profile_from_text(fixed, 1)]:
        raise BadInput(f"{source.path} takes {fixed} only, --size asks for {profiles[0]}; leave it out")
    return identify(source, target, load_api(target.flavour), profiles, request.options)
