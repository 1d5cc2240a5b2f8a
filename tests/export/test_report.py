import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image

from unblur.calibration.calibrate import Calibrated
from unblur.calibration.coverage import Coverage, FeatureCoverage
from unblur.calibration.judge import Cost
from unblur.calibration.sensitivity import LayerCost, Sensitivity
from unblur.calibration.steps import Drift
from unblur.export.report import exhibit, report_html
from unblur.runtime.calibration_table import CalibrationTable, TensorRange, preprocessing_of
from unblur.runtime.parity import Hop, Ledger, Quality
from unblur.runtime.spec import ModelSpec

SPEC = ModelSpec("lprn", "lprn-x", 3, 16, 0, "global", {"width": 8}, training_data=("<b>GoPro</b>",))
TABLE = CalibrationTable(
    method="minmax",
    percentile=None,
    step_policy="per-step",
    preset=SPEC.preset,
    steps=SPEC.steps,
    model_sha256="0" * 64,
    preprocessing=preprocessing_of(SPEC),
    images={"a.png": "1" * 64},
    ranges={"relu": TensorRange(0, 1, 1)},
    implicit={},
    kept={"head.weight": "x"},
    reads={"body.weight": ("relu",)},
)

CALIBRATED = Calibrated(ModelProto(), TABLE, Cost((-0.02, -0.05), 50.0), int8_macs=0.98)


def _hop(**changes: object) -> Hop:
    values: dict[str, object] = {
        "name": "fp16 -> int8",
        "precision": "int8",
        "steps": 3,
        "frames": 2,
        "psnr_db": 48.2,
        "ssim": 0.999,
        "max_levels": 3,
        "earlier_db": 27.0,
        "later_db": 26.99996,
        "earlier_ssim": 0.9,
        "later_ssim": 0.9,
        "delta_db": -0.00004,
        "not_finite": 0,
        "black": 0,
        "constant": 0,
        "threshold_db": 35.0,
        "passed": True,
        "reason": "",
    }
    return Hop(**{**values, **changes})  # type: ignore[arg-type]


def _ledger(*hops: Hop, truth: bool = True) -> Ledger:
    quality = Quality("int8", 3, 27.0, 0.9) if truth else Quality("int8", 3, None, None)
    return Ledger(2, 25.5 if truth else None, (quality,), hops)


class _Balance(HTMLParser):
    """Fails on a tag that is closed without being open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_opens_without_a_network() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(3)]
    page = report_html(SPEC, CALIBRATED, None, _ledger(_hop()), [exhibit("a & b", *frames)])
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert 'name="viewport"' in page
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert [Image.open(BytesIO(b64decode(image))).size for image in images] == [(50, 40)] * 4


def test_numbers_and_the_model_card_are_told() -> None:
    page = report_html(SPEC, CALIBRATED, None, _ledger(_hop()), [])
    assert "All 1 hops pass on 2 frames" in page
    for text in (
        "&lt;b&gt;GoPro&lt;/b&gt;",
        "the whole frame",
        "48.20",
        "+1.50",
        "head.weight",
        TABLE.identity[:16],
    ):
        assert text in page
    assert "<td>+0.000</td>" in page  # not -0.000
    assert "<b>" not in page


def test_a_failed_hop_says_why() -> None:
    failed = _hop(passed=False, reason="20.0 dB < 35", psnr_db=float("nan"))
    page = report_html(SPEC, CALIBRATED, None, _ledger(_hop(psnr_db=float("inf")), failed, truth=False), [])
    assert "1 of 2 hops fail" in page
    assert "20.0 dB &lt; 35" in page
    assert "<td>equal</td>" in page
    assert "<td>not finite</td>" in page
    assert "no pairs with a sharp reference" in page


@pytest.mark.parametrize("has_truth", [True, False])
def test_the_liveliest_crop_is_shown(has_truth: bool) -> None:
    sharp = np.full((400, 600, 3), 90, np.uint8)
    sharp[210:390:2, 400:590] = 200
    blurred, restored = sharp // 2, sharp - 10
    shown = exhibit("street", blurred, restored, sharp if has_truth else None)
    captions = [caption for caption, _ in shown.pictures]
    assert captions == (
        ["before", "after", "sharp", "error x 4"] if has_truth else ["before", "after", "change x 4"]
    )
    assert {picture.shape for _, picture in shown.pictures} == {(192, 192, 3)}
    assert shown.pictures[0][1].max() == 100  # the stripes are in the crop
    if has_truth:
        assert (shown.pictures[3][1] == 40).all()


def test_int8_is_told_with_its_loss_and_what_stays_float() -> None:
    page = report_html(SPEC, CALIBRATED, None, _ledger(_hop()), [])
    for text in ("98.0% of the multiply-accumulates", "by -0.035 dB in the mean, -0.050 dB", "head.weight"):
        assert text in page
    assert "gains little" not in page
    assert "data:image/png" not in page


def test_little_int8_is_warned_of_and_the_layers_are_shown() -> None:
    measured = Sensitivity((LayerCost("body.weight", 0.5, 0.3, 0.2, int8=False),), {"relu": 12.34})
    drift = (Drift("body.weight", ("relu", "relu_1"), (2.0, 5.0), (1.0, 2.5)),)
    poor = replace(CALIBRATED, int8_macs=0.4, sensitivity=measured, drift=drift)
    quartiles = (1.0, 2.0, 3.0, 4.0, 5.0)
    coverage = Coverage(9, 4, (FeatureCoverage("brightness", quartiles, quartiles, 0.9),), 0.1, 0.2, "a.png")
    page = report_html(SPEC, poor, coverage, _ledger(_hop()), [])
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    for text in (
        "only 40% of the multiply",
        "data:image/png",
        "relu 12.3",
        "<td>2.50</td>",
        "4 of 9",
        "<td>90%</td>",
    ):
        assert text in page
