"""The page of `unblur report`: one bundle or several, with what was measured on devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from unblur.export.report.bundle_page import SECTIONS, Column, Fact, bundle_column, bundle_facts
from unblur.export.report.measure import MeasuredBundle
from unblur.export.report.plots import latency_histogram, latency_series, size_plot, sustained_plot
from unblur.export.report.render import render
from unblur.export.report.sections import LayerView, layer_view, overview_of, steps_plot
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.text import number

_SECTIONS = (*SECTIONS[:3], "speed.html", "layers.html", *SECTIONS[3:], "power.html", "environment.html")


@dataclass(frozen=True)
class ProfilePlots:
    """The plots of one profile at all steps. sustained, sizes: None unless they were asked for."""

    profile: Profile
    histogram: Markup
    series: Markup
    sustained: Markup | None
    sizes: Markup | None


@dataclass(frozen=True)
class MeasuredColumn(Column):
    """One bundle on the page, with its measurements."""

    measured: MeasuredBundle = field(kw_only=True)
    plots: tuple[ProfilePlots, ...] = field(kw_only=True)
    layer_views: tuple[LayerView, ...] = field(kw_only=True)
    tradeoff: Markup | None = field(kw_only=True)


def measured_page(bundles: Sequence[MeasuredBundle]) -> str:
    """The whole page; equal bundles give equal text."""
    return render(
        title=", ".join(measured.name for measured in bundles),
        sections=_SECTIONS,
        columns=[measured_column(measured) for measured in bundles],
        overview=overview_of(bundles) if len(bundles) > 1 else None,
        data="unblur report --json",
    )


def measured_column(measured: MeasuredBundle) -> MeasuredColumn:
    """What the templates show of a bundle and its profiles."""
    report = measured.report
    base = bundle_column(measured.name, report)
    views = (layer_view(profile) for profile in measured.profiles)
    return MeasuredColumn(
        name=base.name,
        report=report,
        judged=measured.judged,
        facts=_facts(measured),
        card=base.card,
        sensitivity=base.sensitivity,
        advised=tuple(profile for profile in measured.profiles if profile.int8_advice is not None),
        measured=measured,
        plots=tuple(_plots_of(profile) for profile in _plotted(measured)),
        layer_views=tuple(view for view in views if view is not None),
        tradeoff=steps_plot([measured]),
    )


def _plotted(measured: MeasuredBundle) -> list[Profile]:
    """Those at the bundle's own number of steps; the main one if there is none."""
    own = [profile for profile in measured.profiles if profile.steps == measured.report.spec.steps]
    return own or [profile for profile in measured.profiles if profile is measured.main]


def _plots_of(profile: Profile) -> ProfilePlots:
    sizes = profile.sweeps.sizes if profile.sweeps else None
    return ProfilePlots(
        profile=profile,
        histogram=latency_histogram(profile),
        series=latency_series(profile),
        sustained=sustained_plot(profile.sustained) if profile.sustained else None,
        sizes=size_plot(sizes) if sizes else None,
    )


def _facts(measured: MeasuredBundle) -> tuple[Fact, ...]:
    """As on the bundle's own page, with the latency measured now in place of that of the machine that made it."""
    main = measured.main
    report = measured.report if main is None else replace(measured.report, latency=())
    gain, *others = bundle_facts(report, measured.judged)
    return (gain, *_speed_facts(main), *others)


def _speed_facts(main: Profile | None) -> tuple[Fact, ...]:
    if main is None:
        return ()
    return (
        Fact("Median latency", number(main.latency_ms.p50), "ms"),
        Fact("99 % within", number(main.latency_ms.p99), "ms"),
        Fact("Frames/s", number(main.fps)),
    )
