"""What a report tells of several bundles together: their figures side by side, and what their steps are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from unblur.export.report.data import BundleReport
from unblur.export.report.format import db_text, percent_text, signed_text, size_text
from unblur.export.report.plots import Curve, tradeoff
from unblur.export.report.subject import Subject
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.format import interval, number


@dataclass(frozen=True)
class Overview:
    """names: of the bundles. rows: metric -> a text per bundle, empty where it was not measured. tradeoff: None
    without profiles.
    """

    names: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    tradeoff: Markup | None


def overview_of(subjects: Sequence[Subject]) -> Overview:
    """The metrics that at least one bundle has."""
    found = [{**_fixed(each.report), **_quality(each), **_speed(each.main)} for each in subjects]
    names = dict.fromkeys(name for metrics in found for name in metrics)
    return Overview(
        names=tuple(subject.name for subject in subjects),
        rows={name: tuple(metrics.get(name, "") for metrics in found) for name in names},
        tradeoff=steps_plot(subjects),
    )


def _fixed(report: BundleReport) -> dict[str, str]:
    own = [model for model in report.models if model.steps == report.spec.steps]
    return {
        "Parameters": f"{report.parameters:,}",
        "GFLOP per frame of 720p": number(report.gflop_720p),
        "Recursion steps": str(report.spec.steps),
        **{f"{model.precision} file, MB": f"{model.bytes / 1e6:.2f}" for model in own},
        "INT8, of the multiply-accumulates": percent_text(report.int8.macs_share, 1),
        "INT8 against fp32, dB": signed_text(fmean(report.int8.deltas_db), 3),
    }


def _quality(subject: Subject) -> dict[str, str]:
    judged = subject.judged
    if judged is None or judged.qualities[0].db is None:
        return {}
    best_db = judged.qualities[0].db
    return {
        "PSNR, dB": db_text(best_db),
        "Gain over the blurred frames, dB": signed_text(best_db - judged.blurred_db, 2),
    }


def _speed(main: Profile | None) -> dict[str, str]:
    if main is None:
        return {}
    joules = main.telemetry.joules_per_frame if main.telemetry else None
    return {
        "Profiled": f"{main.precision}, {main.steps} steps, {size_text(main.size)}, {main.device}",
        "Median latency, ms": number(main.latency_ms.p50),
        "95 % interval, ms": interval(main.intervals_ms["p50"]),
        "p99, ms": number(main.latency_ms.p99),
        "Frames a second": number(main.fps),
        **({} if joules is None else {"Joules per frame": number(joules)}),
    }


def steps_plot(subjects: Sequence[Subject]) -> Markup | None:
    """What the steps are worth, a curve per bundle, precision, size and device; None without profiles."""
    curves = [curve for subject in subjects for curve in _curves(subject)]
    before = {subject.judged.blurred_db for subject in subjects if subject.judged is not None}
    return tradeoff(curves, before.pop() if len(before) == 1 else None) if curves else None


def _curves(subject: Subject) -> list[Curve]:
    groups: dict[tuple[str, str, tuple[int, ...]], list[Profile]] = {}
    for profile in subject.profiles:
        groups.setdefault((profile.precision, profile.device, profile.size), []).append(profile)
    return [_curve(f"{subject.name} {precision}", subject, group) for (precision, *_), group in groups.items()]


def _curve(name: str, subject: Subject, profiles: Sequence[Profile]) -> Curve:
    db = [value for profile in profiles if (value := subject.db(profile)) is not None]
    return Curve(
        name=name,
        steps=tuple(profile.steps for profile in profiles),
        ms=tuple(profile.latency_ms.p50 for profile in profiles),
        intervals_ms=tuple(_known(profile) for profile in profiles),
        db=tuple(db) if len(db) == len(profiles) else None,
    )


def _known(profile: Profile) -> tuple[float, float]:
    """The interval of the median; where an end is not known, the median itself."""
    low, high = profile.intervals_ms["p50"]
    p50 = profile.latency_ms.p50
    return (p50 if low is None else low, p50 if high is None else high)
