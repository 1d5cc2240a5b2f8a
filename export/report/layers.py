"""What a report shows of the layers of a profile: the slowest, the sums by stage and by step, the roofline.

A layer of the table is all steps of a recursion together, which run the same weights; the sums by step tell them
apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from unblur.export.report.plots import roofline
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.layers import Layer, Sum, by_stage, by_step
from unblur.runtime.profile.roofline import Peaks, Placed, place

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
