"""The data of the report on a bundle: `report.json`, beside `report.html` in every bundle.

    report = read_report(read_bundle(Path("lprn-s.unblur")))
    report.ledger.qualities, report.int8.macs_share

The JSON is described by docs/report_schema.json. Equal reports give equal bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from unblur.calibration.coverage import Coverage
from unblur.calibration.int8_from_fp32 import Calibrated
from unblur.calibration.ranges import Drift
from unblur.calibration.search import Sensitivity
from unblur.runtime.errors import BundleError
from unblur.runtime.model.bundle import Bundle
from unblur.runtime.model.calibration_table import Origin
from unblur.runtime.quality.parity import Ledger, Quality
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.strict_json import parse_document, to_json

REPORT_JSON = "report.json"
SCHEMA = 1


@dataclass(frozen=True)
class Picture:
    """A crop in one form. caption: "before". psnr_db: against the sharp crop, None where that says nothing.
    jpeg: a data URI.
    """

    caption: str
    psnr_db: float | None
    jpeg: str


@dataclass(frozen=True)
class CropComparison:
    """One crop of one frame in several forms, left to right. name: of the frame."""

    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ModelFile:
    """A variant of the weights and how large its file is."""

    precision: Precision
    steps: int
    bytes: int


@dataclass(frozen=True)
class Int8Report:
    """How much of the network runs in INT8, what that costs and what it was calibrated on.

    method, pictures, tensors: how ranges were chosen, on how many pictures, for how many activations. macs_share:
    of the multiply-accumulates, 0 to 1. deltas_db: PSNR against float32, a value per crop of the calibration
    pictures; negative is a loss. budget_db: what it was allowed to lose, None without a search. kept: weight -> why
    it stays float. excluded: weights that are float because INT8 was too costly there. drift: how ranges move over
    the steps.
    """

    calibration_id: str
    method: Origin
    pictures: int
    tensors: int
    macs_share: float
    deltas_db: tuple[float, ...]
    budget_db: float | None
    kept: Mapping[str, str]
    excluded: tuple[str, ...]
    sensitivity: Sensitivity | None
    drift: tuple[Drift, ...]
    coverage: Coverage | None


@dataclass(frozen=True)
class TruthQuality:
    """Quality against ground truth, mean over some frames. blurred_db: PSNR of the frames before. qualities: of the
    forms after, those at all steps first.
    """

    frames: int
    blurred_db: float
    qualities: tuple[Quality, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> "TruthQuality | None":
        """None if the ledger had no ground truth."""
        return None if ledger.blurred_db is None else cls(ledger.frames, ledger.blurred_db, ledger.qualities)

    def db(self, precision: Precision, steps: int) -> float | None:
        """PSNR of a form, None if it was not judged."""
        key = (precision, steps)
        return next((each.db for each in self.qualities if (each.precision, each.steps) == key), None)


@dataclass(frozen=True)
class BundleReport:
    """All that is known of a bundle when it is made.

    parameters: number of trained scalars. gflop_720p: of one frame of 720 x 1280 at all steps. ledger: parity and,
    with ground truth, quality. versions: of the packages that made it. created: UTC, ISO 8601, or empty.
    """

    spec: ModelSpec
    parameters: int
    gflop_720p: float
    models: tuple[ModelFile, ...]
    ledger: Ledger
    int8: Int8Report
    exhibits: tuple[CropComparison, ...]
    versions: Mapping[str, str]
    created: str
    schema: int = SCHEMA

    @property
    def judged(self) -> TruthQuality | None:
        """None if the bundle was deployed without pairs."""
        return TruthQuality.of(self.ledger)

    def to_json(self) -> str:
        """The text of `report.json`."""
        return json.dumps(to_json(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "BundleReport":
        """Parse and check; BundleError or SpecMismatch, naming `where` and the first field at fault."""
        try:
            return parse_document(cls, text, where, schema=SCHEMA)
        except ValueError as error:
            raise BundleError(f"{error}; deploy the bundle again") from error


def read_report(bundle: Bundle) -> BundleReport:
    """The report in a bundle; BundleError if it was made before there were any."""
    if REPORT_JSON not in bundle.manifest.files:
        raise BundleError(f"{bundle.path} has no {REPORT_JSON}, an older unblur made it; deploy the bundle again")
    file = bundle.path / REPORT_JSON
    return BundleReport.from_json(file.read_bytes(), where=str(file))


LOW_INT8_MACS = 0.7
"""With less of the multiply-accumulates in INT8 an engine is hardly faster than in fp16."""


def int8_report(calibrated: Calibrated) -> Int8Report:
    """What the report of a bundle says about its INT8 variant."""
    table = calibrated.table
    return Int8Report(
        calibration_id=table.identity,
        method=table.method,
        pictures=len(table.images),
        tensors=len(table.ranges),
        macs_share=calibrated.int8_macs,
        deltas_db=calibrated.cost.deltas_db,
        budget_db=None if table.measured is None else table.measured.budget_db,
        kept=table.kept,
        excluded=table.excluded,
        sensitivity=calibrated.sensitivity,
        drift=calibrated.drift,
        coverage=calibrated.coverage,
    )


def low_share(macs_share: float) -> str | None:
    """One line if too little of the network is INT8, and what to do. macs_share: 0 to 1."""
    if macs_share >= LOW_INT8_MACS:
        return None
    return (
        f"only {macs_share:.0%} of the multiply-accumulates run in INT8, so an engine gains little over "
        "fp16; allow a larger loss, or fine-tune with `unblur train --qat`"
    )
