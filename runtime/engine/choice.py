"""Which engine of a bundle runs on this device, and whether it computes what the bundle computes.

An engine is taken if its record fits the device and the bundle, and if its first output here is right; the reason
against each of the others is kept, so that whoever falls back can say why.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from unblur.runtime.atomic import atomic_file
from unblur.runtime.bundle import ENGINES, Bundle, Golden, Variant
from unblur.runtime.engine.record import EngineIdentity, EngineRecord, Profile, find_engines, read_record
from unblur.runtime.engine.runner import EngineRunner
from unblur.runtime.errors import DeviceError, EngineMismatch, MissingExtra, ParityError
from unblur.runtime.frames import Batch, Padding, batch_from_frame
from unblur.runtime.metrics import psnr_float_db
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.runner import Precision
from unblur.runtime.selftest import check_golden, golden_frame, read_golden_frame

ENGINE_TOLERANCE_DB: Mapping[Precision, float] = {"fp32": 75.0, "fp16": 50.0, "int8": 35.0}
"""Least PSNR, in dB, of an engine against its ONNX file on a CPU: it tells a broken picture from rounding.

Looser than a hop of the ledger: an engine sums in another order, and an INT8 engine computes in fp16 what is not
quantised, so that values near a border fall to another quantum. To be tightened when engines have been measured.
"""

FASTEST_FIRST: tuple[Precision, ...] = ("int8", "fp16", "fp32")
CHECKED_SUFFIX = ".checked"

_log = logging.getLogger(__name__)


def open_engine(
    bundle: Bundle, precisions: Sequence[Precision], steps: int
) -> tuple[EngineRunner | None, list[str]]:
    """The first engine of the bundle that runs here and is right, and why not those before it.

    precisions: in order of preference. The first time that an engine is opened its output is checked; that it
    passed is noted beside it, if the folder can be written.
    """
    reasons: list[str] = []
    for engine, variant in _candidates(bundle, precisions, steps, reasons):
        try:
            return _open_checked(bundle, variant, engine), reasons
        except (EngineMismatch, DeviceError, MissingExtra, ParityError) as error:
            reasons.append(f"{variant.precision} engine: {error}")
    return None, reasons


def _open_checked(bundle: Bundle, variant: Variant, engine: Path) -> EngineRunner:
    """Open an engine and check its first output; one that is wrong is closed, and a warning logged."""
    runner = EngineRunner(engine)
    with ExitStack() as opening:
        opening.callback(runner.close)
        try:
            check_first_output(bundle, variant, engine, runner)
        except (ParityError, DeviceError) as error:
            _log.warning("not used: %s", error)
            raise
        opening.pop_all()
    return runner


def check_first_output(bundle: Bundle, variant: Variant, engine: Path, runner: EngineRunner) -> None:
    """Run the golden vectors of an engine's variant, unless they passed before on this device.

    Raises ParityError if the engine is below ENGINE_TOLERANCE_DB.
    """
    note = engine.with_suffix(CHECKED_SUFFIX)
    identity = f"{read_record(engine).engine_sha256} {runner.device}\n"
    if note.is_file() and note.read_text() == identity:
        return
    psnr_db = engine_psnr_db(bundle, variant, runner)
    threshold_db = ENGINE_TOLERANCE_DB[variant.precision]
    if not psnr_db >= threshold_db:
        raise ParityError(
            f"{engine.name} is {psnr_db:.1f} dB from {variant.file}, expected at least {threshold_db:g} dB; "
            "build it again with `unblur build`"
        )
    if os.access(engine.parent, os.W_OK):
        with atomic_file(note) as temporary:
            temporary.write_text(identity)


def engine_psnr_db(bundle: Bundle, variant: Variant, runner: EngineRunner) -> float:
    """Of an engine against the ONNX file it was made from; NaN if its output holds NaN or infinity.

    An engine of a fixed size does not take the golden picture; it is compared with its ONNX file on the CPU, on
    that picture repeated to its size, which takes as long as the CPU takes for one frame.
    """
    golden = bundle.golden(variant)
    if golden is not None and _takes(runner, bundle, golden):
        return check_golden(bundle, variant, runner).psnr_db
    batch = _picture(runner.record.identity.profiles[0])
    restored = runner.infer(batch)
    with OnnxRunner(bundle.path / variant.file, graph_optimization=False) as reference:
        expected = reference.infer(batch)
        return psnr_float_db(restored, expected) if np.isfinite(restored).all() else math.nan


def _takes(runner: EngineRunner, bundle: Bundle, golden: Golden) -> bool:
    """Whether the golden picture is of a size that the engine was built for."""
    height, width = read_golden_frame(bundle, golden).shape[:2]
    padded_hw = Padding.to_multiple((height, width), runner.spec.multiple_of).padded_hw
    return any(profile.holds((1, 3, *padded_hw)) for profile in runner.record.identity.profiles)


def _candidates(
    bundle: Bundle, precisions: Sequence[Precision], steps: int, reasons: list[str]
) -> Iterator[tuple[Path, Variant]]:
    """The engines of this bundle's own ONNX files at these precisions, in that order."""
    variants = _variants(bundle, precisions, steps)
    records: list[tuple[Path, EngineRecord]] = []
    for engine in find_engines(bundle.path) if (bundle.path / ENGINES).is_dir() else ():
        try:
            records.append((engine, read_record(engine)))
        except EngineMismatch as error:
            reasons.append(str(error))
    for variant in variants:
        for engine, record in records:
            if (record.identity.precision, record.identity.steps) != (variant.precision, variant.steps):
                continue
            if made_from(bundle, variant, record.identity):
                yield engine, variant
            else:
                reasons.append(f"{variant.precision} engine: it was built from another {variant.file}")


def made_from(bundle: Bundle, variant: Variant, identity: EngineIdentity) -> bool:
    """Whether an engine of that precision and steps was made from this bundle's files as they are now.

    Implicit INT8 is made from the fp32 file and a calibration cache, and judged as the INT8 variant.
    """
    precision = variant.precision if identity.calibration_sha256 is None else "fp32"
    sources = _variants(bundle, [precision], variant.steps)
    return identity.onnx_sha256 in [bundle.manifest.files[source.file].sha256 for source in sources]


def _variants(bundle: Bundle, precisions: Sequence[Precision], steps: int) -> list[Variant]:
    present = {(variant.precision, variant.steps): variant for variant in bundle.manifest.variants}
    return [present[precision, steps] for precision in precisions if (precision, steps) in present]


def _picture(profile: Profile) -> Batch:
    """The golden picture, repeated to the smallest size that the engine takes."""
    count, _, height, width = profile.minimum
    frame = golden_frame()
    repeats = (-(-height // frame.shape[0]), -(-width // frame.shape[1]), 1)
    tiled = np.tile(frame, repeats)[:height, :width]
    return np.repeat(batch_from_frame(tiled, Padding((height, width), (height, width))), count, axis=0)
