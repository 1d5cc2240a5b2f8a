"""What a report tells of several bundles together: their figures side by side, and what their steps are worth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from unblur.export.report.data import BundleReport, Int8Report
from unblur.export.report.measure import MeasuredBundle
from unblur.export.report.plots import Curve, roofline, tradeoff
from unblur.export.report.render import db_text, percent_text, signed_text, size_text
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.layers import Layer, Sum, by_stage, by_step
from unblur.runtime.profile.roofline import Peaks, Placed, place
from unblur.runtime.profile.text import interval, number


@dataclass(frozen=True)
class Overview:
    """names: of the bundles. rows: metric -> a text per bundle, empty where it was not measured. tradeoff: None
    without profiles.
    """

    names: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    tradeoff: Markup | None


def overview_of(bundles: Sequence[MeasuredBundle]) -> Overview:
    """The metrics that at least one bundle has."""
    found = [{**_fixed(each.report), **_quality(each), **_speed(each.main)} for each in bundles]
    names = dict.fromkeys(name for metrics in found for name in metrics)
    return Overview(
        names=tuple(measured.name for measured in bundles),
        rows={name: tuple(metrics.get(name, "") for metrics in found) for name in names},
        tradeoff=steps_plot(bundles),
    )


def _fixed(report: BundleReport) -> dict[str, str]:
    own = [model for model in report.models if model.steps == report.spec.steps]
    return {
        "Parameters": f"{report.parameters:,}",
        "GFLOP per frame of 720p": number(report.gflop_720p),
        "Recursion steps": str(report.spec.steps),
        **{f"{model.precision} file, MB": f"{model.bytes / 1e6:.2f}" for model in own},
        **({} if report.int8 is None else _int8(report.int8)),
    }


def _int8(int8: Int8Report) -> dict[str, str]:
    return {
        "INT8, of the multiply-accumulates": percent_text(int8.macs_share, 1),
        "INT8 against fp32, dB": signed_text(fmean(int8.deltas_db), 3),
    }


def _quality(measured: MeasuredBundle) -> dict[str, str]:
    judged = measured.judged
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


def steps_plot(bundles: Sequence[MeasuredBundle]) -> Markup | None:
    """What the steps are worth, a curve per bundle, precision, size and device; None without profiles."""
    curves = [curve for measured in bundles for curve in _curves(measured)]
    before = {measured.judged.blurred_db for measured in bundles if measured.judged is not None}
    return tradeoff(curves, before.pop() if len(before) == 1 else None) if curves else None


def _curves(measured: MeasuredBundle) -> list[Curve]:
    groups: dict[tuple[str, str, tuple[int, ...]], list[Profile]] = {}
    for profile in measured.profiles:
        groups.setdefault((profile.precision, profile.device, profile.size), []).append(profile)
    return [_curve(f"{measured.name} {precision}", measured, group) for (precision, *_), group in groups.items()]


def _curve(name: str, measured: MeasuredBundle, profiles: Sequence[Profile]) -> Curve:
    db = [value for profile in profiles if (value := measured.db(profile)) is not None]
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


_SHOWN = 12
_PLOTTED_SHARE = 0.002


@dataclass(frozen=True)
class LayerRow:
    """A layer in the table, as the sum of its `runs`. share: of the time of all, None if it was not timed. placed:
    None without a roofline.
    """

    layer: Layer
    runs: int
    share: float | None
    placed: Placed | None


@dataclass(frozen=True)
class SumRow:
    """Layers that belong together. share: of the time of all."""

    name: str
    cost: Sum
    share: float | None


@dataclass(frozen=True)
class LayerView:
    """The inside of one profile. rows, stages: those that take longest. total_ms: of all `count` layers."""

    profile: Profile
    count: int
    total_ms: float
    rows: tuple[LayerRow, ...]
    stages: tuple[SumRow, ...]
    steps: tuple[SumRow, ...]
    roofline: Markup | None
    peaks: Peaks | None


def layer_view(profile: Profile) -> LayerView | None:
    """None if the profile did not look inside."""
    if profile.layers is None:
        return None
    total_ms = sum(layer.ms or 0.0 for layer in profile.layers)
    peaks = None if profile.roofline is None else profile.roofline.peaks
    rows = [_row(group, total_ms, peaks) for group in _groups(profile.layers)]
    rows.sort(key=lambda row: row.share or 0.0, reverse=True)
    stages = sorted(by_stage(profile.layers).items(), key=lambda item: item[1].ms or 0.0, reverse=True)
    return LayerView(
        profile=profile,
        count=len(profile.layers),
        total_ms=total_ms,
        rows=tuple(rows[:_SHOWN]),
        stages=_sums(stages[:_SHOWN], total_ms),
        steps=_sums(by_step(profile.layers).items(), total_ms),
        roofline=None if peaks is None else _roofline(rows, peaks),
        peaks=peaks,
    )


def _groups(layers: Iterable[Layer]) -> Iterable[list[Layer]]:
    """The runs of one layer at every step: what does the same for the same stage."""
    groups: dict[tuple[str, str, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((layer.stage or layer.name, layer.operator, layer.precision), []).append(layer)
    return groups.values()


def _row(group: Sequence[Layer], total_ms: float, peaks: Peaks | None) -> LayerRow:
    times = [layer.ms for layer in group if layer.ms is not None]
    ms = sum(times) if len(times) == len(group) else None
    flops, size = sum(layer.flops for layer in group), sum(layer.bytes for layer in group)
    whole = replace(group[0], ms=ms, flops=flops, bytes=size)
    placed = None if peaks is None or ms is None else place(whole, peaks)
    return LayerRow(whole, len(group), _share(ms, total_ms), placed)


def _roofline(rows: Iterable[LayerRow], peaks: Peaks) -> Markup:
    """Without what takes next to no time, which would fill the plot."""
    return roofline([row.placed for row in rows if row.placed and (row.share or 0) >= _PLOTTED_SHARE], peaks)


def _sums(costs: Iterable[tuple[str | int | None, Sum]], total_ms: float) -> tuple[SumRow, ...]:
    return tuple(SumRow(str(name or "elsewhere"), cost, _share(cost.ms, total_ms)) for name, cost in costs)


def _share(ms: float | None, total_ms: float) -> float | None:
    return None if ms is None or not total_ms else ms / total_ms
