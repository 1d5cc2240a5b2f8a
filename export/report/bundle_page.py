"""The page in a bundle: model card, ledger and images in one self-contained HTML file.

It is made of a BundleReport and nothing else, by the templates of this package.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from unblur.calibration.sensitivity_plot import sensitivity_figure
from unblur.export.report.data import BundleReport, Int8Report, TruthQuality
from unblur.export.report.plots import inline_figure
from unblur.export.report.render import percent_text, render, signed_text, size_text
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.text import number

SECTIONS = ("header.html", "images.html", "quality.html", "model.html", "int8.html")
_PLOT_WIDTH_IN = 6.0


@dataclass(frozen=True)
class Fact:
    """One of the few figures at the top."""

    name: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class Column:
    """One bundle on the page. judged: None without ground truth. advised: profiles with advice on INT8."""

    name: str
    report: BundleReport
    judged: TruthQuality | None
    facts: tuple[Fact, ...]
    card: Mapping[str, str]
    sensitivity: Markup | None
    advised: tuple[Profile, ...] = ()


def bundle_page(report: BundleReport) -> str:
    """The whole page; equal reports give equal text."""
    column = bundle_column(report.spec.preset, report)
    return render(title=column.name, sections=SECTIONS, columns=[column], overview=None, data="report.json")


def bundle_column(name: str, report: BundleReport) -> Column:
    """What the templates show of a bundle. name: its heading."""
    return Column(
        name=name,
        report=report,
        judged=report.judged,
        facts=bundle_facts(report, report.judged),
        card=model_card(report),
        sensitivity=None if report.int8 is None else _sensitivity_plot(report.int8),
    )


def bundle_facts(report: BundleReport, judged: TruthQuality | None) -> tuple[Fact, ...]:
    """The main figures; what restoring gains comes first."""
    int8 = report.int8
    own = {each.precision: each for each in report.models if each.steps == report.spec.steps}
    file = own.get("fp16") or report.models[0]
    return (
        Fact("Gain in PSNR", *_gain(judged)),
        *(
            Fact(
                f"{_frame_name(each.size_hw)} frame, {each.precision}",
                number(each.median_ms),
                "ms where it was made",
            )
            for each in report.latency
        ),
        *(() if int8 is None else (Fact("In INT8", percent_text(int8.macs_share, 1)),)),
        Fact("Frame of 720p", f"{report.gflop_720p:.3g}", "GFLOP"),
        Fact("Parameters", f"{report.parameters:,}"),
        Fact(f"{file.precision} file", f"{file.bytes / 1e6:.2f}", "MB"),
    )


def _frame_name(size_hw: tuple[int, int]) -> str:
    return "720p" if size_hw == (720, 1280) else size_text(size_hw)


def model_card(report: BundleReport) -> dict[str, str]:
    """What a user of the model has to know, as name -> text."""
    spec, int8 = report.spec, report.int8
    counts = sorted({model.steps for model in report.models})
    return {
        "Preset": f"{spec.preset} ({spec.system})",
        "Recursion steps": f"{spec.steps}; comes at {', '.join(map(str, counts))}",
        "Options": ", ".join(f"{key} {value}" for key, value in sorted(spec.options.items())) or "none",
        "Input": f"{spec.takes} (the runtime pads)",
        "Receptive field": f"{f'{spec.receptive_field} px' if spec.receptive_field else 'the whole frame'}; "
        f"pooling {spec.pooling}",
        "Trained on": ", ".join(spec.training_data) or "not recorded",
        "Licence": spec.licence,
        **({} if int8 is None else _int8_card(int8)),
        "Built with": ", ".join(f"{name} {number}" for name, number in sorted(report.versions.items()))
        or "not known",
        **({"Built": report.created} if report.created else {}),
    }


def _int8_card(int8: Int8Report) -> dict[str, str]:
    ranges = f"{int8.method}, of {int8.tensors} activations on {int8.images} images"
    return {"INT8 ranges": ranges, "Calibration": int8.calibration_id[:16]}


def _gain(judged: TruthQuality | None) -> tuple[str, str]:
    """What the first variant gains over the blurred images: value and unit."""
    if judged is None or judged.qualities[0].db is None:
        return "?", "not measured"
    return signed_text(judged.qualities[0].db - judged.blurred_db, 2), "dB"


def _sensitivity_plot(int8: Int8Report) -> Markup | None:
    sensitivity = int8.sensitivity
    if sensitivity is None:
        return None
    label = "What each layer costs in INT8, in dB"
    return inline_figure(lambda: sensitivity_figure(sensitivity.layers, _PLOT_WIDTH_IN), label)
