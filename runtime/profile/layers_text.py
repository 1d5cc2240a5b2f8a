"""The layers of a profile as tables: the slowest, and the sums by stage and by step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from unblur.runtime.profile.document import Placement, Profile
from unblur.runtime.profile.format import number, table
from unblur.runtime.profile.int8_advice import Advice
from unblur.runtime.profile.layers import Layer, Sum, by_stage, by_step

_SHOWN = 10


def layer_tables(profile: Profile) -> Iterator[Table]:
    """Nothing for a profile without layers."""
    if profile.layers is None:
        return
    total_ms = sum(layer.ms or 0.0 for layer in profile.layers)
    placed = _placements(profile)
    yield _slowest(profile.layers, total_ms, placed)
    stages = sorted(by_stage(profile.layers).items(), key=lambda stage: stage[1].ms or 0.0, reverse=True)
    yield _sums("Stages", "stage", stages[:_SHOWN], total_ms)
    steps = list(by_step(profile.layers).items())
    if len(steps) > 1:
        yield _sums("Steps", "step", steps, total_ms)
    if profile.int8_advice:
        yield _advice(profile.int8_advice)


def _placements(profile: Profile) -> dict[int, Placement]:
    """By the identity of the layer: several layers of an engine may have one name."""
    if profile.roofline is None:
        return {}
    timed = (layer for layer in profile.layers or () if layer.ms is not None)
    return {id(layer): each for layer, each in zip(timed, profile.roofline.layers, strict=True)}


def _slowest(layers: Iterable[Layer], total_ms: float, placed: Mapping[int, Placement]) -> Table:
    slowest = sorted(layers, key=lambda layer: layer.ms or 0.0, reverse=True)[:_SHOWN]
    made = table(
        f"Layers, the slowest of {number(total_ms)} ms", "layer", *("ms", "share", "GFLOP/s"), "of its roof"
    )
    for layer in slowest:
        ms = layer.ms or 0.0
        speed = number(layer.flops / ms / 1e6) if layer.flops and ms else ""
        made.add_row(
            escape(f"{layer.name} {layer.precision}"), *_cost(ms, total_ms), speed, _roof(placed.get(id(layer)))
        )
    return made


def _sums(title: str, first: str, sums: Iterable[tuple[object, Sum]], total_ms: float) -> Table:
    made = table(title, first, "ms", "share", "GFLOP", "layers")
    for name, cost in sums:
        flops = number(cost.flops / 1e9)
        made.add_row(escape(str(name or "elsewhere")), *_cost(cost.ms or 0.0, total_ms), flops, str(cost.layers))
    return made


def _advice(advice: Sequence[Advice]) -> Table:
    made = Table("ms", "layers", "found", "what changes it", box=box.SIMPLE_HEAD, show_lines=True)
    made.title, made.title_justify = "Why INT8 is not faster", "left"
    for each in advice[:_SHOWN]:
        ms = number(each.ms) if each.ms else ""
        where = each.layer if each.layers < 2 else f"{each.layers} of {each.layer}"
        made.add_row(ms, escape(where), escape(each.finding), escape(each.change))
    return made


def _cost(ms: float, total_ms: float) -> tuple[str, str]:
    return number(ms), f"{ms / total_ms:.0%}" if total_ms else ""


def _roof(placement: Placement | None) -> str:
    return "" if placement is None else f"{placement.attained:.0%} {placement.bound}"
