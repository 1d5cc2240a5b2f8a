"""Is this model, on this machine, what it was when it was built, and does it improve images?

    verification = verify(Path("lprn-s.unblur"), find_pairs(folder))
    print(verification.integrity, verification.benefit, verification.gain_db)

A bundle is checked from the outside in: every byte, the golden vectors of each variant, the parity from fp32 to
fp16 to INT8 for each number of steps, whether tiles equal the whole frame, and every engine in it. That is its
integrity. With pairs each variant is also compared with ground truth: its benefit.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch, MissingExtra, SpecMismatch
from unblur.runtime.frames import Frame
from unblur.runtime.model.bundle import ENGINES, Bundle, Variant, read_bundle
from unblur.runtime.model.choose_variant import candidates_of, check_runner
from unblur.runtime.model.golden import GoldenResult, check_golden, golden_frame
from unblur.runtime.model.open_model import (
    check_overrides,
    engine_agreement,
    made_from,
    open_openvino,
    open_runner,
)
from unblur.runtime.model.tiles import halo_of, tiling_error_db
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.parity import Ledger, conjunction, measure
from unblur.runtime.quality.tolerances import TILING_FLOOR_DB
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import Pooling, Precision, SpecOverrides
from unblur.runtime.tensorrt.engine_file import (
    SUFFIX,
    EngineRecord,
    check_engine,
    find_engines,
    owner_of,
    read_engine,
    read_record,
)
from unblur.runtime.tensorrt.engine_runner import EngineRunner, device_facts
from unblur.runtime.tensorrt.open_cuda import open_cuda
from unblur.runtime.tensorrt.trt import load_tensorrt


@dataclass(frozen=True)
class EngineCheck:
    """The result of checking one engine.

    name: of its file. verdict: "not run" if it is intact and belongs here, but to another device than this one;
    "void" if the network changes the golden image too little to decide.
    psnr_db, threshold_db: of its output against its ONNX file, found and needed; None unless it ran.
    reason: why it did not pass, else empty.
    """

    name: str
    verdict: Literal["passed", "failed", "void", "not run"]
    psnr_db: float | None = None
    threshold_db: float | None = None
    reason: str = ""

    @property
    def passed(self) -> bool | None:
        """An engine for another device is not a fault of the bundle."""
        return None if self.verdict == "void" else self.verdict != "failed"


def check_engines(bundle: Bundle) -> tuple[EngineCheck, ...]:
    """Check the files in `engines/`, in order of name; each that can run here runs on the golden image."""
    engines = find_engines(bundle.path) if (bundle.path / ENGINES).is_dir() else []
    return tuple(_check(bundle, engine) for engine in engines)


def _check(bundle: Bundle, engine: Path) -> EngineCheck:
    try:
        record = read_record(engine)
        read_engine(engine, record)
        variant = _made_from(bundle, record)
    except EngineMismatch as error:
        return EngineCheck(engine.name, "failed", reason=str(error))
    try:
        cuda, trt = open_cuda(), load_tensorrt(record.identity.flavour)
        check_engine(record, device_facts(cuda, trt))
    except (DeviceError, EngineMismatch, MissingExtra) as error:
        return EngineCheck(engine.name, "not run", reason=str(error))
    try:
        with EngineRunner(engine, cuda=cuda, trt=trt) as runner:
            found = engine_agreement(bundle, variant, runner)
    except (DeviceError, EngineMismatch) as error:
        return EngineCheck(engine.name, "failed", reason=str(error))
    if found.passed:
        return EngineCheck(engine.name, "passed", found.psnr_db, found.needed_db)
    verdict: Literal["failed", "void"] = "void" if found.passed is None else "failed"
    reason = f"against {variant.file}: {found.reason}; build it again"
    return EngineCheck(engine.name, verdict, found.psnr_db, found.needed_db, reason)


def _check_openvino(bundle: Bundle, threads: int | None) -> tuple[EngineCheck, ...]:
    """Run the golden vectors on OpenVINO; nothing where it is not installed, "not run" where it is not chosen."""
    checks = []
    for precision, device in candidates_of(bundle):
        if device == "openvino":
            path = bundle.path / bundle.variant(precision).file
            try:
                with open_openvino(path, threads) as runner:
                    name, found = f"{precision} on {runner.device}", check_runner(bundle, runner)
            except (DeviceError, SpecMismatch) as error:
                checks.append(EngineCheck(f"{precision} on openvino", "not run", reason=str(error)))
                continue
            # OpenVINO is another way to run an intact bundle: where it computes wrongly it is never chosen
            passed = EngineCheck(name, "passed", found.psnr_db, found.threshold_db)
            reason = f"never chosen on this device: {found.reason}"
            checks.append(passed if found.passed else EngineCheck(name, "not run", reason=reason))
    return tuple(checks)


def _made_from(bundle: Bundle, record: EngineRecord) -> Variant:
    """The variant that an engine executes; EngineMismatch if this bundle has no such variant now."""
    identity = record.identity
    for variant in bundle.manifest.variants:
        if (variant.precision, variant.steps) == (identity.precision, identity.steps):
            if made_from(bundle, variant, identity):
                return variant
            raise EngineMismatch(f"it was built from another {variant.file}; remove it and build it again")
    raise EngineMismatch(
        f"the bundle has no {identity.precision} variant at {identity.steps} steps any more; remove the engine"
    )


@dataclass(frozen=True)
class Tiling:
    """What tiling costs, on one frame. halo: in pixels. Global pooling is never exact, so it always passes."""

    pooling: Pooling
    halo: int
    psnr_db: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    pairs: of ground truth used. golden: a result per variant; none for an .onnx file. ledgers: one per number of
    steps, the model's own first. tiling: None if no image was large enough to cut. engines: one per file in
    `engines/`. runners: one per variant at the model's own steps on OpenVINO, where that is installed.
    """

    pairs: int
    golden: tuple[GoldenResult, ...]
    ledgers: tuple[Ledger, ...]
    tiling: Tiling | None
    engines: tuple[EngineCheck, ...] = ()
    runners: tuple[EngineCheck, ...] = ()

    @property
    def blurred_db(self) -> float | None:
        return self.ledgers[0].blurred_db

    @property
    def gain_db(self) -> float | None:
        """PSNR gained over the blurred images by the worst variant at the model's own steps; None without pairs."""
        found = [quality.db for quality in self.ledgers[0].qualities if quality.db is not None]
        return min(found) - self.blurred_db if found and self.blurred_db is not None else None

    @property
    def integrity(self) -> bool | None:
        """Whether every check of the files and the variants passed; None if one is void and none failed."""
        checks = (
            *self.golden,
            *self.ledgers,
            *self.engines,
            *self.runners,
            *((self.tiling,) if self.tiling else ()),
        )
        return conjunction(check.passed for check in checks)

    @property
    def benefit(self) -> bool | None:
        """Whether the model improves the blurred images; None without pairs."""
        return None if self.gain_db is None else self.gain_db > 0

    @property
    def passed(self) -> bool:
        return self.integrity is True and self.benefit is not False


def verify(
    path: Path,
    pairs: Sequence[Pair] = (),
    stage: Stage = silent,
    *,
    threads: int | None = None,
    overrides: SpecOverrides = SpecOverrides(),
) -> Verification:
    """Check the bundle or the .onnx file at `path`. overrides: what is stated of a file from elsewhere.

    Without pairs, parity is measured on the golden image. fp32 and fp16 are judged as they run, INT8 without graph
    optimisation: that is what an engine computes, while a CPU's fused 8-bit products may saturate.

    Raises BundleError if a byte differs, BadInput for an .onnx file without pairs, which has no reference, and for
    an engine, whose reference is in its bundle.
    """
    if path.suffix == SUFFIX:
        raise BadInput(f"{path} is a single engine; verify {owner_of(path) or 'the bundle it was built for'}")
    check_overrides(path, overrides)
    if path.is_dir():
        return _verify_bundle(read_bundle(path), pairs, stage, threads)
    if not pairs:
        raise BadInput(f"{path} is a single file, without anything to verify it against; give --pairs, or a bundle")
    with _open_file(path, RunnerOptions(threads=threads, overrides=overrides)) as runner:
        ledger = measure([runner], pairs, stage(path.name, len(pairs)))
        return Verification(len(pairs), (), (ledger,), _tiling(runner, pairs))


def _verify_bundle(bundle: Bundle, pairs: Sequence[Pair], stage: Stage, threads: int | None) -> Verification:
    frames: Sequence[Frame | Pair] = pairs or [golden_frame()]
    golden: list[GoldenResult] = []
    ledgers: list[Ledger] = []
    tiling: Tiling | None = None
    for chain in _chains(bundle):
        with ExitStack() as stack:
            runners: list[Runner] = []
            for variant in chain:
                runner = stack.enter_context(_open(bundle, variant, threads))
                runners.append(runner)
                golden.append(check_golden(bundle, variant, runner))
            names = " -> ".join(variant.precision for variant in chain)
            progress = stage(f"{names} at {chain[0].steps} steps", len(frames))
            ledgers.append(measure(runners, frames, progress))
            tiling = tiling or _tiling(runners[0], pairs)
    return Verification(
        len(pairs), tuple(golden), tuple(ledgers), tiling, check_engines(bundle), _check_openvino(bundle, threads)
    )


def _open(bundle: Bundle, variant: Variant, threads: int | None) -> Runner:
    """Open a variant; SpecMismatch if its file says that it is of another precision or number of steps."""
    return open_runner(
        bundle.path / variant.file,
        RunnerOptions(
            precision=variant.precision,
            steps=variant.steps,
            threads=threads,
            graph_optimization=variant.precision != "int8",
        ),
    )


def _open_file(path: Path, options: RunnerOptions) -> Runner:
    runner = open_runner(path, options)
    if runner.precision != "int8":
        return runner
    runner.close()
    return open_runner(path, replace(options, graph_optimization=False))


def _chains(bundle: Bundle) -> list[list[Variant]]:
    """The variants of each number of steps, most exact first; the model's own number of steps first."""
    order = get_args(Precision)
    steps = {variant.steps for variant in bundle.manifest.variants}
    return [
        sorted(
            (variant for variant in bundle.manifest.variants if variant.steps == count),
            key=lambda variant: order.index(variant.precision),
        )
        for count in sorted(steps, key=lambda count: (count != bundle.spec.steps, -count))
    ]


def _tiling(runner: Runner, pairs: Sequence[Pair]) -> Tiling | None:
    if not pairs:
        return None
    psnr_db = tiling_error_db(runner, read_pair(pairs[0])[0])
    if psnr_db is None:
        return None
    pooling = runner.spec.pooling
    return Tiling(pooling, halo_of(runner.spec), psnr_db, pooling == "global" or psnr_db >= TILING_FLOOR_DB)
