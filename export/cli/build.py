"""`unblur build`: engines for TensorRT on this device, or for RTX cards without one."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.progress import Progress

from unblur.export.build import BuildRequest, StoredEngine, build_engines, find_sources, needs_cache
from unblur.export.engine_from_onnx import BuildWatch, Source, Target, targets_from_text
from unblur.export.trt_api import load_api
from unblur.runtime.cli.options import JsonOption, output_option, with_overrides
from unblur.runtime.console import log_on_stderr, print_json, progress, stderr
from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.spec import Precision, SpecOverrides
from unblur.runtime.tensorrt.engine_file import BuildOptions

_TARGET_HELP = "tensorrt for the GPU of this device, or RTX cards: rtx-sm86,rtx-sm89,rtx-sm120 (needs no GPU)."


@with_overrides
def build(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped preset, a bundle, or an .onnx file.")],
    target: Annotated[str, typer.Option(help=_TARGET_HELP)],
    precision: Annotated[
        str | None, typer.Option(help="Of a bundle: fp32, fp16 (the default), int8, or several: fp16,int8.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Frame size HxW, or MIN:OPT:MAX; give it again for several. [default: 720x1280]"),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Recursion steps, an engine each: 1,2,6, or all. [default: the model's own]")
    ] = None,
    output: Annotated[Path | None, output_option("Folder of engines; default the bundle's own.")] = None,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Builder optimisation level; higher builds longer.")
    ] = None,
    workspace_mb: Annotated[int | None, typer.Option(min=1, help="Limit of scratch memory in MiB.")] = None,
    dla: Annotated[int | None, typer.Option(min=0, help="DLA core; what it cannot do runs on the GPU.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Runs on later TensorRT of the same major version.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Runs on every GPU from Ampere (SM80) up.")
    ] = False,
    calibration_cache: Annotated[
        Path | None,
        typer.Option(help="INT8 from the fp32 model and TensorRT's calibration cache, up to TensorRT 10."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the engine is there.")] = False,
    layers: Annotated[Path | None, typer.Option(help="Write a report of the layers, JSON.")] = None,
    as_json: JsonOption = False,
    overrides: SpecOverrides = SpecOverrides(),
) -> None:
    """Build TensorRT engines from a model; an engine that is there already is not built again.

    A TensorRT engine is for the GPU, the TensorRT version and the system it was built on: build it on the device.
    RTX engines are for GeForce and RTX PRO cards of one architecture with the same TensorRT-RTX; not for Jetson.
    A DLA up to TensorRT 10.7 takes INT8 from the calibration cache in the bundle, or that of --calibration-cache.
    """
    targets = checked_targets(target)
    options = BuildOptions(
        level=level,
        workspace_mb=workspace_mb,
        dla_core=dla,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
    )
    with log_on_stderr():
        sources, folder = find_sources(
            model,
            precisions_from_text(precision),
            "all" if steps == "all" else step_counts(steps or ""),
            cache=calibration_cache,
            implicit=needs_cache(targets, options),
            overrides=overrides,
        )
    request = BuildRequest(
        sources=sources,
        targets=targets,
        folder=output or folder,
        sizes=tuple(size or ()),
        options=options,
        force=force,
        detailed=layers is not None,
    )
    engines = build_with_progress(request)
    if layers is not None:
        _write_layers(layers, engines)
    if as_json:
        print_json({**engine_document(engines[0]), "engines": [engine_document(engine) for engine in engines]})


def checked_targets(text: str | None) -> tuple[Target, ...]:
    """What --target says, nothing without it; BadInput if it is wrong, MissingExtra if its builder is not there."""
    if text is None:
        return ()
    targets = targets_from_text(text)
    for target in targets:
        load_api(target.flavour)
    return targets


def build_for_bundle(bundle: Path, targets: tuple[Target, ...]) -> list[StoredEngine]:
    """An engine of the usual size for each target and precision, in the bundle's own folder."""
    sources, folder = find_sources(bundle, ("fp32", "fp16", "int8"))
    return build_with_progress(BuildRequest(sources=sources, targets=targets, folder=folder))


def build_with_progress(request: BuildRequest) -> list[StoredEngine]:
    """Build what is requested, with a bar for each engine and a line when it is done."""
    engines = []
    with progress("steps") as bar:

        def watching(source: Source, target: Target) -> tuple[BuildWatch, Callable[[], object]]:
            return _watch(bar, f"{source.precision} at {source.spec.steps} steps for {target}")

        for engine in build_engines(request, watching):
            engines.append(engine)
            for line in _lines(engine):
                stderr.print(line, soft_wrap=True)
    return engines


def engine_document(engine: StoredEngine) -> dict[str, object]:
    """What --json says of one engine. built: false if it was there already."""
    identity = engine.record.identity
    return {
        "engine": str(engine.path),
        "key": identity.key,
        "flavour": identity.flavour,
        "version": identity.version,
        "sm": identity.sm,
        "precision": identity.precision,
        "steps": identity.steps,
        "sizes": [str(profile) for profile in identity.profiles],
        "seconds": engine.record.seconds,
        "bytes": engine.record.engine_bytes,
        "built": engine.built is not None,
    }


def precisions_from_text(text: str | None) -> tuple[Precision, ...]:
    """ "fp16,int8", each once; empty without text. BadInput if one is none."""
    names = [] if text is None else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in get_args(Precision):
            raise BadInput(f"--precision is '{text}', expected {', '.join(get_args(Precision))} or several of them")
    return tuple(dict.fromkeys(cast("Sequence[Precision]", names)))


def step_counts(text: str) -> tuple[int, ...]:
    """ "1,2,6", each once; empty without text. BadInput if one is no number of steps."""
    counts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise BadInput(f"--steps is '{text}', expected numbers with commas between them, such as 1,2,3")
    return tuple(dict.fromkeys(int(count) for count in counts))


def _watch(bar: Progress, what: str) -> tuple[BuildWatch, Callable[[], object]]:
    """A build as a task of the progress bar."""
    task = bar.add_task(what, total=None, note="")

    class BarWatch(BuildWatch):
        def phase(self, name: str, steps: int) -> None:
            bar.reset(task, total=steps, description=f"{what}: {name.lower()}")

        def step(self) -> None:
            bar.advance(task)

    return BarWatch(), lambda: bar.update(task, description=f"{what}: waiting for another process")


def _lines(engine: StoredEngine) -> Iterator[str]:
    record, built = engine.record, engine.built
    how = "was there already" if built is None else f"built in {record.seconds:.1f} s"
    yield f"{engine.path}: {record.engine_bytes:,} bytes, {how}"
    if built is not None and built.not_on_dla:
        names = ", ".join(built.not_on_dla)
        yield f"{len(built.not_on_dla)} of {len(built.layers)} layers fall back to the GPU: {names}"


def _write_layers(path: Path, engines: Sequence[StoredEngine]) -> None:
    report = {
        engine.record.identity.key: {
            "network": engine.built.layers,
            "engine": None if engine.built.inspection is None else json.loads(engine.built.inspection),
        }
        for engine in engines
        if engine.built is not None
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
