"""Is this model, on this machine, what it was when it was built?

    verification = verify(Path("lprn-s.unblur"), find_pairs(folder))
    print(verification.passed, verification.blurred_db, verification.ledgers[0].qualities)

A bundle is checked from the outside in: every byte, the golden vectors of each variant, the parity from fp32 to
fp16 to INT8 for each number of steps, whether tiles equal the whole picture, and every engine in it. With pairs
each variant is also judged against ground truth.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, DeviceError, EngineMismatch, MissingExtra
from unblur.runtime.frames import Frame
from unblur.runtime.model.bundle import ENGINES, Bundle, Variant, read_bundle
from unblur.runtime.model.golden import GoldenResult, check_golden, golden_frame
from unblur.runtime.model.open_model import engine_psnr_db, made_from, open_runner
from unblur.runtime.model.tiles import halo_of, tiling_error_db
from unblur.runtime.quality.pairs import Pair, read_pair
from unblur.runtime.quality.parity import Ledger, measure
from unblur.runtime.quality.tolerances import FLOOR_DB, TILING_FLOOR_DB
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import Pooling, Precision
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
    """What was found of one engine.

    name: of its file. verdict: "not run" if it is whole and belongs here, but to another device than this one.
    psnr_db: of its output against its ONNX file, None unless it ran. reason: why it did not pass, else empty.
    """

    name: str
    verdict: Literal["passed", "failed", "not run"]
    psnr_db: float | None = None
    threshold_db: float | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """An engine for another device is no fault of the bundle."""
        return self.verdict != "failed"


def check_engines(bundle: Bundle) -> tuple[EngineCheck, ...]:
    """Check the files in `engines/`, in order of name; each that can run here runs on the golden picture."""
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
    threshold_db = FLOOR_DB["engine"][variant.precision]
    try:
        with EngineRunner(engine, cuda=cuda, trt=trt) as runner:
            psnr_db = engine_psnr_db(bundle, variant, runner)
    except (DeviceError, EngineMismatch) as error:
        return EngineCheck(engine.name, "failed", reason=str(error))
    if psnr_db >= threshold_db:
        return EngineCheck(engine.name, "passed", psnr_db, threshold_db)
    reason = f"{psnr_db:.1f} dB from {variant.file}, expected at least {threshold_db:g} dB; build it again"
    return EngineCheck(engine.name, "failed", psnr_db, threshold_db, reason)


def _made_from(bundle: Bundle, record: EngineRecord) -> Variant:
    """The variant that an engine executes; EngineMismatch if it is not one of this bundle as it is now."""
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
    """What tiling costs, on one picture. halo: in pixels. Global pooling is told, not judged: it is never exact."""

    pooling: Pooling
    halo: int
    psnr_db: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    pairs: of ground truth used. golden: a result per variant; none for an .onnx file. ledgers: one per number of
    steps, the model's own first. tiling: None if there was no picture large enough to cut. engines: one per file in
    `engines/`.
    """

    pairs: int
    golden: tuple[GoldenResult, ...]
    ledgers: tuple[Ledger, ...]
    tiling: Tiling | None
    engines: tuple[EngineCheck, ...] = ()

    @property
    def blurred_db(self) -> float | None:
        return self.ledgers[0].blurred_db

    @property
    def passed(self) -> bool:
        golden_passed = all(golden.passed for golden in self.golden)
        parity_passed = all(ledger.passed for ledger in self.ledgers)
        engines_passed = all(engine.passed for engine in self.engines)
        tiling_passed = self.tiling is None or self.tiling.passed
        return golden_passed and parity_passed and tiling_passed and engines_passed


def verify(
    path: Path, pairs: Sequence[Pair] = (), stage: Stage = silent, *, threads: int | None = None
) -> Verification:
    """Check the bundle or the .onnx file at `path`.

    Without pairs, parity is measured on the golden picture. fp32 and fp16 are judged as they run, INT8 without
    graph optimisation: that is what an engine computes, while a CPU's fused 8-bit products may saturate.

    Raises BundleError if a byte differs, BadInput for an .onnx file without pairs: nothing to hold it against, and
    for an engine: its bundle holds what it is compared with.
    """
    if path.suffix == SUFFIX:
        raise BadInput(f"{path} is a single engine; verify {owner_of(path) or 'the bundle it was built for'}")
    if path.is_dir():
        return _verify_bundle(read_bundle(path), pairs, stage, threads)
    if not pairs:
        raise BadInput(f"{path} is a single file, with nothing to verify it against; give --pairs, or a bundle")
    with _open_file(path, threads) as runner:
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
    return Verification(len(pairs), tuple(golden), tuple(ledgers), tiling, check_engines(bundle))


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


def _open_file(path: Path, threads: int | None) -> Runner:
    runner = open_runner(path, RunnerOptions(threads=threads))
    if runner.precision != "int8":
        return runner
    runner.close()
    return open_runner(path, RunnerOptions(threads=threads, graph_optimization=False))


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
