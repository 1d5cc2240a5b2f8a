"""What runs on this machine, what does not, why, and the command that fixes it.

    for check in examine(read_facts()):
        print(check.name, check.ok, check.detail, check.fix)

The compatibility of JetPack, TensorRT and GPUs is NVIDIA's, from its release notes.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unblur.runtime.errors import BadInput, BundleError, EngineMismatch, SpecMismatch
from unblur.runtime.machine.facts import SystemFacts
from unblur.runtime.model.bundle import ENGINES, Bundle, read_bundle
from unblur.runtime.model.onnx_runner import describe_onnx
from unblur.runtime.model.open_model import check_overrides, choice_for
from unblur.runtime.spec import SpecOverrides, parse_version
from unblur.runtime.tensorrt.engine_file import (
    FLAVOUR_NAMES,
    SUFFIX,
    BuildOptions,
    EngineIdentity,
    Flavour,
    Profile,
    check_engine,
    find_engines,
    owner_of,
    read_engine,
    read_record,
)
from unblur.runtime.tensorrt.trt import TOO_OLD, UPDATE, is_too_old

OLDEST_PYTHON = (3, 10)
ORIN, THOR_TENSORRT = 87, (10, 13)

_ORIN_MISSES = ((10, 8), (10, 16))  # from, up to but without: these have no kernels for SM87
_NO_JETPACK = ((11,), (11, 4, 1))
_EXTRAS = {"export": ("torch", "onnx", "onnxscript", "onnxsim"), "train": ("torch", "accelerate", "safetensors")}


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. ok: nothing to do. fix: the command or step that fixes it, else empty."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(facts: SystemFacts) -> list[Check]:
    """The machine itself. A machine without GPU is healthy: models run on its CPU."""
    checks = [_system(facts), _python(facts), _onnxruntime(facts), _gpu(facts)]
    if facts.l4t is not None:
        checks.append(_jetpack(facts))
    if facts.gpu is not None:
        checks += [_tensorrt(facts), _binding(facts)]
    elif facts.version_of("rtx"):
        detail = f"{FLAVOUR_NAMES['rtx']} {facts.version_of('rtx')}: builds engines for RTX cards, runs none here"
        checks.append(Check("tensorrt-rtx", True, detail))
    return [*checks, *_extras(facts)]


def examine_model(model: Path, facts: SystemFacts, overrides: SpecOverrides = SpecOverrides()) -> list[Check]:
    """Whether a bundle, an .onnx file or an engine runs on this machine. overrides: stated of such a file."""
    check_overrides(model, overrides)
    if model.suffix == SUFFIX:
        return [_engine(model, facts, str(owner_of(model) or "MODEL"))]
    if not model.is_dir():
        return [_file(model, overrides)]
    try:
        bundle = read_bundle(model)
    except (BundleError, SpecMismatch) as error:
        return [Check("bundle", False, str(error), "copy the bundle again, or make it with `unblur deploy`")]
    return [_bundle(bundle), _variant(bundle), *_engines(bundle, facts)]


def _system(facts: SystemFacts) -> Check:
    where = f"{facts.board}, " if facts.board else ""
    return Check("system", True, f"{where}{facts.system}, {facts.platform}")


def _python(facts: SystemFacts) -> Check:
    found, oldest = _dotted(facts.python), _dotted(OLDEST_PYTHON)
    ok = facts.python >= OLDEST_PYTHON
    return Check("python", ok, found, "" if ok else f"install Python {oldest} or newer beside the system's own")


def _onnxruntime(facts: SystemFacts) -> Check:
    names = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in facts.packages]
    if not names:
        return Check("onnxruntime", False, "not installed", "pip install onnxruntime")
    found = ", ".join(f"{name} {facts.packages[name]}" for name in names)
    if len(names) == 2:
        return Check("onnxruntime", False, f"{found} overwrite each other", "pip uninstall both, then install one")
    return Check("onnxruntime", True, found)


def _gpu(facts: SystemFacts) -> Check:
    """Without a driver there is no GPU; with a driver that sees none, something is wrong."""
    if facts.gpu is not None:
        gpu = facts.gpu
        driver = f", driver {facts.driver}" if facts.driver else ""
        toolkit = f", toolkit {facts.toolkit}" if facts.toolkit else ""
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB"
        return Check(
            "gpu", True, f"{gpu.name}, SM{gpu.sm}, {memory}, CUDA {_dotted(gpu.driver_cuda)}{driver}{toolkit}"
        )
    if facts.l4t is None and facts.driver is None:
        return Check("gpu", True, f"none, models run on the CPU ({facts.no_gpu})")
    there = f"the kernel has NVIDIA's driver {facts.driver}" if facts.driver else "this is a Jetson"
    return Check(
        "gpu", False, f"{there}, but {facts.no_gpu}", "reboot; in a container use --runtime nvidia --gpus all"
    )


def _jetpack(facts: SystemFacts) -> Check:
    l4t = f"Jetson Linux {_dotted(facts.l4t or ())}"
    if facts.jetpack is None:
        return Check("jetpack", False, f"{l4t}, of an unknown JetPack", "flash JetPack 6.2 or newer")
    detail = f"JetPack {facts.jetpack}, {l4t}"
    if facts.jetpack.startswith("5."):
        return Check(
            "jetpack",
            False,
            f"{detail}: its TensorRT 8.5 is older than 10 and its Python 3.8 older than 3.10",
            "flash JetPack 6.2 (Orin); on a Xavier, which has none newer, add a Python 3.10 and use the CPU",
        )
    return Check("jetpack", True, detail)


def _tensorrt(facts: SystemFacts) -> Check:
    """TensorRT, or TensorRT-RTX where that is what there is."""
    flavour: Flavour = "rtx" if facts.version_of("tensorrt") is None and facts.version_of("rtx") else "tensorrt"
    version = facts.version_of(flavour)
    if version is None:
        return Check("tensorrt", False, *_without_tensorrt(facts))
    found = f"{FLAVOUR_NAMES[flavour]} {version}"
    problem = _mismatch(facts, version) if flavour == "tensorrt" else None
    if problem is None:
        return Check("tensorrt", True, found)
    return Check("tensorrt", False, f"{found} {problem[0]}", problem[1])


def _without_tensorrt(facts: SystemFacts) -> tuple[str, str]:
    """Detail and fix. The Debian packages of JetPack are seen only with the system's site packages."""
    library = next((name for name in facts.debian if name.startswith("libnvinfer")), None)
    if "python3-libnvinfer" in facts.debian:
        version = facts.debian["python3-libnvinfer"]
        return (
            f"TensorRT {version} is installed, but this Python does not see it",
            "make the virtual environment with: python3 -m venv --system-site-packages .venv",
        )
    if facts.l4t is not None or library is not None:
        return "its Python module is not installed", "sudo apt install python3-libnvinfer"
    return "not installed, models run on ONNX Runtime", "pip install 'unblur[tensorrt]'"


def _mismatch(facts: SystemFacts, version: str) -> tuple[str, str] | None:
    """Why that TensorRT does not work on this machine, and what to do."""
    numbers = parse_version(version)
    if is_too_old(version):
        return TOO_OLD, UPDATE
    if facts.l4t is None:
        return None
    if _NO_JETPACK[0] <= numbers < _NO_JETPACK[1]:
        return "does not support Jetson before 11.4.1", "install the TensorRT that came with JetPack"
    if facts.gpu is not None and facts.gpu.sm == ORIN and _ORIN_MISSES[0] <= numbers < _ORIN_MISSES[1]:
        return "has no kernels for Orin (SM87)", "install 10.3 to 10.7, or 10.16 with JetPack 7.2"
    if facts.gpu is not None and facts.gpu.sm > ORIN and numbers < THOR_TENSORRT:
        return f"does not know SM{facts.gpu.sm}", "install TensorRT 10.13 or newer, as in JetPack 7.1"
    return None


def _binding(facts: SystemFacts) -> Check:
    found = facts.packages.get("pycuda")
    return Check("cuda-binding", True, f"pycuda {found}" if found else "none needed: the driver is called directly")


def _extras(facts: SystemFacts) -> Iterator[Check]:
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if name not in facts.packages]
        detail = f"not installed (no {', '.join(missing)}), not needed to run models" if missing else "installed"
        yield Check(f"extra {extra}", True, detail)


def _file(model: Path, overrides: SpecOverrides) -> Check:
    if not model.is_file():
        return Check("model", False, f"{model} does not exist", "give a bundle, an .onnx file or an .engine file")
    try:
        spec, precision = describe_onnx(model, overrides)
    except (BadInput, SpecMismatch) as error:
        return Check("model", False, str(error), "give a network from an image to an image")
    return Check(
        "model", True, f"{model.name} ({precision}, {spec.takes}) runs on ONNX Runtime, whatever the device"
    )


def _bundle(bundle: Bundle) -> Check:
    variants = ", ".join(f"{variant.precision} at {variant.steps}" for variant in bundle.manifest.variants)
    return Check("bundle", True, f"{bundle.path.name}: every byte is as it was; steps: {variants}; on ONNX Runtime")


def _engines(bundle: Bundle, facts: SystemFacts) -> list[Check]:
    inside = bundle.path / ENGINES
    checks = [
        _engine(engine, facts, str(bundle.path))
        for engine in (find_engines(bundle.path) if inside.is_dir() else [])
    ]
    target = _target(facts)
    if target and not any(check.ok for check in checks):
        fix = f"unblur build {shlex.quote(str(bundle.path))} --target {target} --precision int8,fp16"
        checks.append(Check("engines", False, "none runs on this machine, so the GPU is not used", fix))
    return checks


def _variant(bundle: Bundle) -> Check:
    """What `unblur run` takes, by the times of a few frames; measured now unless it was before."""
    choice = choice_for(bundle)
    best = choice.ranked()[:1]
    if not best:
        return Check("variant", False, "none runs here", "unblur verify MODEL shows why")
    return Check("variant", True, f"{choice}: {best[0].precision} on {best[0].device}")


def _target(facts: SystemFacts, flavours: Sequence[Flavour] = ("tensorrt", "rtx")) -> str | None:
    """What `unblur build --target` takes for this machine; the first of the flavours that is here."""
    for flavour in flavours:
        if device := facts.device(flavour):
            return f"rtx-sm{device.sm}" if flavour == "rtx" else flavour
    return None


def _engine(engine: Path, facts: SystemFacts, model: str) -> Check:
    name = f"engine {engine.name}"
    try:
        record = read_record(engine)
        read_engine(engine, record)
    except EngineMismatch as error:
        return Check(name, False, str(error), "remove it and build it again with `unblur build`")
    identity = record.identity
    device = facts.device(identity.flavour)
    if facts.gpu is None:
        return Check(name, False, f"cannot run here: {facts.no_gpu}", "run the model without engine, on the CPU")
    if device is None:
        missing = FLAVOUR_NAMES[identity.flavour]
        return Check(
            name, False, f"needs {missing}, which is not installed", f"pip install 'unblur[{identity.flavour}]'"
        )
    try:
        check_engine(record, device)
    except EngineMismatch as error:
        return Check(name, False, str(error), _build_command(identity, model, facts))
    sizes = ", ".join(map(str, identity.profiles))
    return Check(name, True, f"runs here: {identity.precision}, {identity.steps} steps, sizes {sizes}")


def _build_command(identity: EngineIdentity, model: str, facts: SystemFacts) -> str:
    """The command that builds the same engine for this machine."""
    target = _target(facts, (identity.flavour,)) or identity.flavour
    words = ["unblur", "build", shlex.quote(model), "--target", target, "--precision", identity.precision]
    words += ["--steps", str(identity.steps), *(f"--size {_size(profile)}" for profile in identity.profiles)]
    return " ".join([*words, *_option_words(identity.options)])


def _option_words(options: BuildOptions) -> Iterator[str]:
    """As `unblur build` takes them; those left at their default are not there."""
    numbers = {"--level": options.level, "--workspace-mb": options.workspace_mb, "--dla": options.dla_core}
    yield from (f"{name} {value}" for name, value in numbers.items() if value is not None)
    if options.version_compatible:
        yield "--version-compatible"
    if options.hardware_compatible:
        yield "--hardware-compatible"


def _size(profile: Profile) -> str:
    shapes = [profile.minimum] if profile.is_fixed else [profile.minimum, profile.optimum, profile.maximum]
    return ":".join(f"{height}x{width}" for _, _, height, width in shapes)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
