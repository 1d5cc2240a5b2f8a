"""The page of `unblur report`, from profiles that no device was needed for."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from html_text import text_of
from made_up_profile import bare_profile, full_profile
from made_up_report import INT8, REPORT

from unblur.export.report.data import TruthQuality
from unblur.export.report.measure import MeasuredBundle
from unblur.export.report.measured_page import measured_page
from unblur.export.report.plots import latency_series
from unblur.runtime.model.bundle import Bundle, BundleManifest
from unblur.runtime.profile.document import Profile
from unblur.runtime.quality.parity import Quality

FULL = full_profile()
HALF = replace(INT8, macs_share=0.5)
BUNDLE = Bundle(Path("x.unblur"), BundleManifest("lprn-x", REPORT.spec, "", {}, ()))


def measured(*profiles: Profile, name: str = "mine", judged: bool = True) -> MeasuredBundle:
    """judged: its quality was measured on two frames."""
    qualities = tuple(Quality(each.precision, each.steps, 26 + each.steps / 10, 0.9) for each in profiles)
    return MeasuredBundle(
        name, BUNDLE, REPORT, profiles, TruthQuality(2, 25.5, qualities) if judged and profiles else None
    )


@pytest.fixture(scope="module")
def page() -> str:
    return measured_page([measured(bare_profile(1, 4.0), FULL)])


def test_everything_that_was_measured_is_told(page: str) -> None:
    text = text_of(page)
    for said in (
        *("Median latency 10.30 ms", "99 % within 10.60 ms", "mine", "26.30"),
        *(
            "host 0.1000 ms",
            "device 9.900",
            "throttled: +100.0 % after 30 minutes",
            "clock gpu fell from 918 to 306",
        ),
        *("to the power 1.00", "b.onnx (int8, 2 steps): faster", "0.4000 to 0.6000", "32x48 40.00"),
        *("1 body.0.first 3 Conv fp32 12.00 80.0 % 25.00 100.0 compute 25 %", "2 head 3 Conv fp32 3.000 20.0 %"),
        *("measured here", "int8 400.0 GFLOP/s"),
        *("it runs in <fp32>", "quantise it"),
        *("VDD_IN W 11.52 14.90", "Joules per frame 0.3840", "15W", "jetson_clocks off"),
        *("Not available: load_percent (no sensor reports it).", "batches of 1"),
    ):
        assert said in text, said
    for plot in (
        "Histogram of the latency: median 10.3 ms",
        "inferences in order",
        "PSNR against milliseconds per frame, of mine fp32",
        "Median latency over 30 minutes",
        "Median latency over the size",
        "Roofline",
    ):
        assert re.search(f'role="img" aria-label="[^"]*{re.escape(plot)}', page), plot


def test_it_is_one_file_that_opens_without_a_network(page: str) -> None:
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<[^>]+\son(?!input=\"this\.parent)\w+=", page)


def test_several_bundles_stand_side_by_side() -> None:
    small = replace(measured(bare_profile(), name="other"), report=replace(REPORT, parameters=5, int8=HALF))
    first = measured(replace(bare_profile(), telemetry=FULL.telemetry))
    page = measured_page([first, small, measured(name="none", judged=False)])
    text = text_of(page)
    assert page.count("<article>") == 3
    assert "--count: 3" in page
    assert "Parameters 75,067 5 75,067" in text
    assert "INT8, of the multiply-accumulates 98.0 % 50.0 % 98.0 %" in text
    assert "Joules per frame 0.3840 not measured not measured" in text
    assert "of mine fp32, other fp32" in page


def test_what_was_not_measured_is_said() -> None:
    text = text_of(measured_page([measured()]))
    for said in ("give --profile FILE", "unblur profile --layers times each layer", "Nothing was profiled"):
        assert said in re.sub(r" ([,.])", r"\1", text)
    blind = replace(bare_profile(), stationary=False, timing=None)
    text = text_of(measured_page([measured(blind)]))
    assert "drifted at 3 steps" in text
    assert "not available: this runner does not report it" in text


def test_without_quality_the_curve_is_time_over_steps() -> None:
    profiles = (bare_profile(1, 4.0), bare_profile(3, 9.0))
    page = measured_page([measured(*profiles, judged=False)])
    assert "Milliseconds per frame against recursion steps, of mine fp32" in page


def test_a_thousand_inferences_stay_a_small_plot() -> None:
    times = tuple(10 + index % 13 / 10 for index in range(4000))
    few, many = (latency_series(replace(bare_profile(), times_ms=some)) for some in (times[:300], times))
    assert len(many) < 1.5 * len(few)


@pytest.mark.parametrize("inside", [True, False])
def test_the_profile_at_all_steps_that_looked_inside_is_the_one_shown(inside: bool) -> None:
    profiles = (bare_profile(1), bare_profile(3, 9.0), *((FULL,) if inside else ()))
    assert measured(*profiles).main is profiles[-1]
    assert measured().main is None
