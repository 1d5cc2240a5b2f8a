"""What `unblur build` does: every model, for every target, as engines in one folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unblur.export.engine_from_onnx import BuildWatch, Source, identify, read_source
from unblur.export.engine_request import DEFAULT_SIZE, Target, profile_from_text
from unblur.export.engine_store import Stored, store_engine
from unblur.export.trt_api import load_api
from unblur.runtime.bundle import ENGINES, read_bundle
from unblur.runtime.engine_record import SUFFIX, BuildOptions, EngineIdentity, owner_of
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.runner import Precision, find_model


@dataclass(frozen=True)
class Order:
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


def build_engines(order: Order, watching: Watching = _silent) -> Iterator[Stored]:
    """Build one engine per target and model, in that order, and yield each as soon as it is safe.

    All targets are checked before the first build, which may take minutes. Raises EngineMismatch if one cannot be
    built, MissingExtra or DeviceError if what builds it is not there.
    """
    jobs = [
        (_identify(order, source, target), source, target) for target in order.targets for source in order.sources
    ]
    for identity, source, target in jobs:
        watch, waiting = watching(source, target)
        yield store_engine(
            source,
            identity,
            load_api(target.flavour),
            order.folder,
            watch,
            force=order.force,
            detailed=order.detailed,
            waiting=waiting,
        )


def find_sources(
    model: str | Path, precisions: Sequence[Precision] = (), steps: int | None = None
) -> tuple[tuple[Source, ...], Path]:
    """The ONNX files that `model` names, and the folder where its engines belong.

    model: a shipped preset, a bundle or an .onnx file. precisions: of a bundle, by default fp16, which is fast and
    loses nothing to see; an .onnx file has only its own.
    """
    path = find_model(model)
    if path.suffix == SUFFIX:
        raise BadInput(f"{path} is an engine already; build from {owner_of(path) or 'the model it was made of'}")
    if path.is_dir():
        bundle = read_bundle(path)
        variants = [bundle.variant(precision, steps) for precision in precisions or ("fp16",)]
        return tuple(read_source(path / variant.file) for variant in variants), path / ENGINES
    source = read_source(path)
    if tuple(precisions) not in ((), (source.precision,)):
        raise SpecMismatch(f"{path} is {source.precision}, asked for {', '.join(precisions)}; give a bundle")
    if steps not in (None, source.spec.steps):
        raise SpecMismatch(
            f"{path} runs {source.spec.steps} steps, asked for {steps}; export it with --steps {steps}"
        )
    return (source,), path.parent


def _identify(order: Order, source: Source, target: Target) -> EngineIdentity:
    multiple = source.spec.multiple_of
    profiles = [profile_from_text(size, multiple) for size in order.sizes or (DEFAULT_SIZE,)]
    return identify(source, target, load_api(target.flavour), profiles, order.options)
