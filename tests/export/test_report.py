import re
from dataclasses import replace

import pytest
from html_text import text_of
from made_up_report import HOP, INT8, LEDGER, POOR_INT8, REPORT, WITHOUT_TRUTH

from unblur.export.report.bundle_page import bundle_page
from unblur.export.report.data import BundleReport


@pytest.mark.parametrize("report", [REPORT, replace(REPORT, int8=POOR_INT8), replace(REPORT, ledger=WITHOUT_TRUTH)])
def test_the_page_is_one_file_that_opens_without_a_network(report: BundleReport) -> None:
    page = bundle_page(report)
    text_of(page)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    assert 'name="viewport"' in page
    assert (
        len(re.findall(r'<img (?:class="before" )?src="data:image/webp;base64,[^"]+" alt="a &amp; b, ', page)) == 3
    )
    assert bundle_page(report) == page


def test_numbers_and_the_model_card_are_told() -> None:
    page = bundle_page(REPORT)
    assert "<b>GoPro" not in page
    text = text_of(page)
    for said in (
        *(
            "All 2 parity checks pass on 2 frames.",
            "<b>GoPro</b>",
            "the whole frame",
            "75,067",
            "29.3 GFLOP",
            "0.16 MB",
        ),
        *(
            "Gain in PSNR +1.50 dB",
            "torch \N{RIGHTWARDS ARROW} fp32",
            "48.20",
            "equal",
            "+0.000",
            "0" * 16,
            "unblur 0.1.0",
        ),
        *(
            "a & b: 19.20 dB before, 18.90 dB after, -0.30 dB, the worst of those shown",
            "720p frame, fp32 81.50 ms where it was made",
            "98.0 % of the multiply-accumulates",
            "-0.035 dB on average",
            "-0.050 dB in the worst",
        ),
        *("(0.1 dB were allowed)", "In float stays: head.weight."),
    ):
        assert said in text
    assert "-0.000" not in text
    assert "gains little" not in text
    assert "<svg" not in page


def test_a_failed_hop_says_why() -> None:
    failed = replace(HOP, passed=False, reason="20.0 dB < 35", psnr_db=float("nan"))
    text = text_of(bundle_page(replace(REPORT, ledger=replace(LEDGER, hops=(HOP, failed)))))
    assert "1 of 2 parity checks fail on 2 frames." in text
    assert "20.0 dB < 35" in text
    assert "not finite" in text


def test_without_ground_truth_it_says_so() -> None:
    text = text_of(bundle_page(replace(REPORT, ledger=WITHOUT_TRUTH)))
    assert "no pairs with a sharp reference" in text
    assert "Gain in PSNR ? not measured" in text


def test_little_int8_is_warned_of_and_the_layers_are_shown() -> None:
    page = bundle_page(replace(REPORT, int8=POOR_INT8))
    text = text_of(page)
    for said in ("only 40% of the multiply", "relu 12.3", "body.weight 1.00 2.50", "4 of 9", "90 %"):
        assert said in text
    assert "fine-tune with <code>unblur train --qat</code>" in page
    assert 'role="img" aria-label="What each layer costs in INT8, in dB"' in page
    assert "body.weight (50.0%, float)" in text


def test_one_layer_that_stays_float_is_told_in_the_singular() -> None:
    several = replace(INT8, excluded=("tail.weight",))
    assert "In float stay: head.weight, tail.weight." in text_of(bundle_page(replace(REPORT, int8=several)))
