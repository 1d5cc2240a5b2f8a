"""Every engine of a bundle on this machine: whole, made from this bundle, and, where it can run, right.

What cannot be known without the GPU an engine was built for is told as not run, never as passed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unblur.runtime.bundle import ENGINES, Bundle, Variant
from unblur.runtime.engine.choice import ENGINE_TOLERANCE_DB, engine_psnr_db, made_from
from unblur.runtime.engine.cuda import open_cuda
from unblur.runtime.engine.record import EngineRecord, check_engine, find_engines, read_engine, read_record
from unblur.runtime.engine.runner import EngineRunner, device_facts
from unblur.runtime.engine.trt import load_tensorrt
from unblur.runtime.errors import DeviceError, EngineMismatch, MissingExtra


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
    threshold_db = ENGINE_TOLERANCE_DB[variant.precision]
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
