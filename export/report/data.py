"""The data of the report on a bundle: `report.json`, beside `report.html` in every bundle.

    report = read_report(read_bundle(Path("lprn-s.unblur")))
    report.ledger.qualities, report.int8.macs_share

The JSON is described by docs/report_schema.json. Equal reports give equal bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unblur.calibration.coverage import Coverage
from unblur.calibration.int8_from_fp32 import Calibrated
from unblur.calibration.ranges import Drift
from unblur.calibration.search import Sensitivity
from unblur.runtime.errors import BundleError
from unblur.runtime.model.bundle import Bundle
from unblur.runtime.model.calibration_table import Origin
from unblur.runtime.quality.parity import Ledger, Quality
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.strict_json import parse_document, parse_json, to_json

REPORT_JSON = "report.json"
SCHEMA = 2

Truth = Literal["pairs", "synthetic blur"]


@dataclass(frozen=True)
class CropComparison:
    """One crop of one frame. name: of the frame. before_db, after_db: PSNR against the sharp crop. before, after,
    sharp: images as data URIs.
    """

    name: str
    size_hw: tuple[int, int]
    before_db: float
    after_db: float
    before: str
    after: str
    sharp: str


@dataclass(frozen=True)
class VariantLatency:
    """How long one frame takes a variant on the machine that made the bundle. median_ms: of `runs` inferences."""

    precision: Precision
    steps: int
    device: str
    size_hw: tuple[int, int]
    median_ms: float
    runs: int


@dataclass(frozen=True)
class ModelFile:
    """A variant of the weights and how large its file is."""

    precision: Precision
    steps: int
    bytes: int


@dataclass(frozen=True)
class Int8Report:
    """How much of the network runs in INT8, what that costs and what it was calibrated on.

    method, images, tensors: how ranges were chosen, on how many images, for how many activations. macs_share:
    of the multiply-accumulates, 0 to 1. deltas_db: PSNR against float32, a value per crop of the calibration
    images; negative is a loss. budget_db: what it was allowed to lose, None without a search. kept: weight -> why
    it stays float. excluded: weights that are float because INT8 was too costly there. drift: how ranges move over
    the steps.
    """

    calibration_id: str
    method: Origin
    images: int
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
    variants after, those at all steps first.
    """

    frames: int
    blurred_db: float
    qualities: tuple[Quality, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> "TruthQuality | None":
        """None if the ledger had no ground truth."""
        return None if ledger.blurred_db is None else cls(ledger.frames, ledger.blurred_db, ledger.qualities)

    def db(self, precision: Precision, steps: int) -> float | None:
        """PSNR of a variant, None if it was not measured."""
        key = (precision, steps)
        return next((each.db for each in self.qualities if (each.precision, each.steps) == key), None)


@dataclass(frozen=True)
class BundleReport:
    """What is known of a bundle when it is made.

    truth: where the sharp images come from that quality is measured against. images: the worst first. latency: of
    every precision at all steps; empty in a reproducible build (SOURCE_DATE_EPOCH).
    parameters: number of trained scalars. gflop_720p: of one frame of 720 x 1280 at all steps. ledger: parity and,
    with ground truth, quality. int8: None of a single ONNX file. versions: of the packages that made it. created:
    UTC, ISO 8601, or empty.
    """

    spec: ModelSpec
    parameters: int
    gflop_720p: float
    models: tuple[ModelFile, ...]
    ledger: Ledger
    int8: Int8Report | None
    truth: Truth
    images: tuple[CropComparison, ...]
    latency: tuple[VariantLatency, ...]
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
            return parse_document(cls, _upgraded(text), where, schema=SCHEMA)
        except ValueError as error:
            raise BundleError(f"{error}; deploy the bundle again") from error


def _upgraded(text: str | bytes) -> str | bytes:
    """Schema 1, which had other images and no latency, as schema 2; ValueError if it is not JSON."""
    raw = parse_json(text)
    if not (isinstance(raw, dict) and raw.get("schema") == 1 and isinstance(raw.get("int8"), dict)):
        return text
    raw.pop("exhibits", None)
    int8 = {"images" if name == "pictures" else name: value for name, value in raw["int8"].items()}
    return json.dumps({**raw, "schema": SCHEMA, "int8": int8, "truth": "pairs", "images": [], "latency": []})


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
        images=len(table.images),
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
