"""The page of `unblur report`: one bundle or several, with what was measured of them on devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from unblur.export.report.bundle_page import SECTIONS, Column, Fact, bundle_column, bundle_facts
from unblur.export.report.measure import Subject
from unblur.export.report.plots import latency_histogram, latency_series, size_plot, sustained_plot
from unblur.export.report.render import render
from unblur.export.report.sections import LayerView, layer_view, overview_of, steps_plot
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.text import number

_SECTIONS = (*SECTIONS[:3], "speed.html", "layers.html", *SECTIONS[3:], "power.html", "environment.html")


@dataclass(frozen=True)
class Closeup:
    """One profile at all steps, in pictures. sustained, sizes: None unless they were asked for."""

    profile: Profile
    histogram: Markup
    series: Markup
    sustained: Markup | None
    sizes: Markup | None


@dataclass(frozen=True)
class MeasuredColumn(Column):
    """One bundle on the page, with its measurements."""

    subject: Subject = field(kw_only=True)
    closeups: tuple[Closeup, ...] = field(kw_only=True)
    insides: tuple[LayerView, ...] = field(kw_only=True)
    tradeoff: Markup | None = field(kw_only=True)


def measured_page(subjects: Sequence[Subject]) -> str:
    """The whole page; equal subjects give equal text."""
    return render(
        title=", ".join(subject.name for subject in subjects),
        sections=_SECTIONS,
        columns=[measured_column(subject) for subject in subjects],
        overview=overview_of(subjects) if len(subjects) > 1 else None,
        data="unblur report --json",
    )


def measured_column(subject: Subject) -> MeasuredColumn:
    """What the templates show of a bundle and its profiles."""
    report = subject.report
    base = bundle_column(subject.name, report)
    views = (layer_view(profile) for profile in subject.profiles)
    return MeasuredColumn(
        name=base.name,
        report=report,
        judged=subject.judged,
        facts=(*_speed_facts(subject), *bundle_facts(report, subject.judged)),
        card=base.card,
        sensitivity=base.sensitivity,
        advised=tuple(profile for profile in subject.profiles if profile.int8_advice is not None),
        subject=subject,
        closeups=tuple(_closeup(profile) for profile in _looked_at_closely(subject)),
        insides=tuple(view for view in views if view is not None),
        tradeoff=steps_plot([subject]),
    )


def _looked_at_closely(subject: Subject) -> list[Profile]:
    """Those at the bundle's own number of steps; the main one if there is none."""
    own = [profile for profile in subject.profiles if profile.steps == subject.report.spec.steps]
    return own or [profile for profile in subject.profiles if profile is subject.main]


def _closeup(profile: Profile) -> Closeup:
    sizes = profile.sweeps.sizes if profile.sweeps else None
    return Closeup(
        profile=profile,
        histogram=latency_histogram(profile),
        series=latency_series(profile),
        sustained=sustained_plot(profile.sustained) if profile.sustained else None,
        sizes=size_plot(sizes) if sizes else None,
    )


def _speed_facts(subject: Subject) -> tuple[Fact, ...]:
    main = subject.main
    if main is None:
        return ()
    return (
        Fact("Median latency", number(main.latency_ms.p50), "ms"),
        Fact("99 % within", number(main.latency_ms.p99), "ms"),
        Fact("Frames/s", number(main.fps)),
    )
