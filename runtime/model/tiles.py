"""Restore an image of any size through tiles that overlap by the halo the network needs.

A tile is a window of the padded image; of its restoration only the core is kept, which lies at least a halo
from every edge of the window that is not an edge of the image. If the halo is the receptive field, the
result is that of the whole image at once. All windows of a plan have one shape, so one set of buffers
(and one engine shape) serves them all, and they begin at multiples of `multiple_of`, so that a network on a
space-to-depth grid sees the same grid.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unblur.runtime.errors import SpecMismatch
from unblur.runtime.frames import AnyFrame, Batch, Frame, Padding, batch_from_frame, check_finite, fill_frame
from unblur.runtime.runner import Runner, SizeRange
from unblur.runtime.spec import ModelSpec

_PIXELS_PER_GRID_CELL = 3 << 19
_MAX_TILE_PIXELS = 8 << 20

DEFAULT_HALO = 256
"""Halo in pixels for a network whose receptive field is unbounded; `tiling_error_db` measures what it costs."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels of the padded image: it begins at `start`, its core is [begin, end)."""

    start: int
    begin: int
    end: int


@dataclass(frozen=True)
class TilePlan:
    """Rows times columns of windows of `tile_hw` that cover an image of `size_hw`, padded to `padded_hw`."""

    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    tile_hw: tuple[int, int]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def tiles(self) -> Iterator[tuple[Span, Span]]:
        return ((row, column) for row in self.rows for column in self.columns)

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def overhead(self) -> float:
        """Pixels computed per pixel of the padded image, at least 1."""
        return self.count * math.prod(self.tile_hw) / math.prod(self.padded_hw)


def halo_of(spec: ModelSpec) -> int:
    """The halo in pixels with which tiles of this model are exact, or DEFAULT_HALO where no halo is enough."""
    return _up(spec.receptive_field or DEFAULT_HALO, spec.multiple_of)


def affordable_halo_of(spec: ModelSpec) -> int:
    """`halo_of` the model, or DEFAULT_HALO, which is not exact, where two exact ones would fill half a tile.

    A network that goes through a pyramid of scales may see further than a tile is wide (SRN: 1374 pixels).
    """
    halo = halo_of(spec)
    return halo if 2 * (2 * halo) ** 2 <= max_pixels_of(spec) else min(halo, _up(DEFAULT_HALO, spec.multiple_of))


def max_pixels_of(spec: ModelSpec) -> int:
    """The most pixels in a tile that keep an inference below about 3 GiB; larger images are tiled.

    Memory goes with the positions at which features are held, so a network on a space-to-depth grid (option
    "grid") may see more. Measured peaks: full resolution, 64 channels, 1.5 GiB at 1280 x 720; grid 4, 64
    channels, 1.6 GiB at 3840 x 2160, which therefore stays in one piece.
    """
    grid = spec.options.get("grid", 1)
    cells = int(grid) ** 2 if isinstance(grid, int) else 1
    return min(_PIXELS_PER_GRID_CELL * cells, _MAX_TILE_PIXELS)


def plan_tiles(size_hw: tuple[int, int], *, multiple_of: int, halo: int, max_pixels: int) -> TilePlan:
    """The plan that computes the fewest pixels with at most `max_pixels` in a window.

    size_hw: of the image, at least 1 x 1. halo: in pixels, rounded up to `multiple_of`.
    Raises ValueError if not even the smallest window, two halos and a step, has so few pixels.
    """
    halo = _up(halo, multiple_of)
    padded_hw = Padding.to_multiple(size_hw, multiple_of).padded_hw
    best: tuple[int, int, int] | None = None
    for rows in range(1, _most(padded_hw[0], halo, multiple_of) + 1):
        height = _window(padded_hw[0], rows, halo, multiple_of)
        columns = _fewest(padded_hw[1], max_pixels // height, halo, multiple_of)
        if columns is None:
            continue
        pixels = rows * columns * height * _window(padded_hw[1], columns, halo, multiple_of)
        if best is None or pixels < best[0]:
            best = (pixels, rows, columns)
    if best is None:
        least = math.prod(min(side, 2 * halo + multiple_of) for side in padded_hw)
        raise ValueError(f"tiles of {max_pixels} pixels cannot hold a halo of {halo}; at least {least} are needed")
    _, rows, columns = best
    return TilePlan(
        size_hw,
        padded_hw,
        (_window(padded_hw[0], rows, halo, multiple_of), _window(padded_hw[1], columns, halo, multiple_of)),
        _spans(padded_hw[0], rows, halo, multiple_of),
        _spans(padded_hw[1], columns, halo, multiple_of),
    )


def plan_fixed_tiles(size_hw: tuple[int, int], spec: ModelSpec) -> TilePlan:
    """The plan for a network that takes one size only; a smaller image is padded to it.

    Raises SpecMismatch if the image is larger and the network sees further than half a tile.
    """
    assert spec.fixed_hw is not None  # noqa: S101
    halo = spec.receptive_field
    larger = any(side > fixed for side, fixed in zip(size_hw, spec.fixed_hw, strict=True))
    if larger and not 0 < 2 * halo < min(spec.fixed_hw):
        takes, found = ("x".join(map(str, sides)) for sides in (spec.fixed_hw, size_hw))
        sees = f"{halo} pixels far" if halo else "the whole image"
        raise SpecMismatch(
            f"'{spec.preset}' takes {takes} only and sees {sees}, so an image of {found} cannot be cut "
            "into tiles; export it again with free height and width (dynamic_axes)"
        )
    rows, columns = (_fixed_spans(side, fixed, halo) for side, fixed in zip(size_hw, spec.fixed_hw, strict=True))
    padded_hw = max(size_hw[0], spec.fixed_hw[0]), max(size_hw[1], spec.fixed_hw[1])
    return TilePlan(size_hw, padded_hw, spec.fixed_hw, rows, columns)


def plan_tiles_within(size_hw: tuple[int, int], spec: ModelSpec, sizes: Sequence[SizeRange]) -> TilePlan:
    """The plan for a runner that takes these sizes only: one tile if it can be, else tiles of the largest size.

    A side that is shorter than the runner takes is padded to it. Raises SpecMismatch if tiles of the largest size
    have no room for the halo.
    """
    padded_hw = Padding.to_multiple(size_hw, spec.multiple_of).padded_hw
    for low, high in sizes:
        if all(least <= side <= most for least, side, most in zip(low, padded_hw, high, strict=True)):
            return _whole_plan(size_hw, padded_hw)
    low, high = max(sizes, key=lambda limits: math.prod(limits[1]))
    tile_hw = (min(max(padded_hw[0], low[0]), high[0]), min(max(padded_hw[1], low[1]), high[1]))
    padded_hw = (max(padded_hw[0], tile_hw[0]), max(padded_hw[1], tile_hw[1]))
    halo = affordable_halo_of(spec)
    if any(
        side > tile and tile - 2 * halo < spec.multiple_of for side, tile in zip(padded_hw, tile_hw, strict=True)
    ):
        takes, found = ("x".join(map(str, sides)) for sides in (high, size_hw))
        raise SpecMismatch(
            f"the engine takes at most {takes}, and tiles of that size have no room for a halo of {halo} pixels "
            f"on each side, so an image of {found} cannot be cut; build one with `unblur build --size {found}`"
        )
    rows, columns = (
        _aligned_spans(side, tile, halo, spec.multiple_of) for side, tile in zip(padded_hw, tile_hw, strict=True)
    )
    return TilePlan(size_hw, padded_hw, tile_hw, rows, columns)


def _whole_plan(size_hw: tuple[int, int], padded_hw: tuple[int, int]) -> TilePlan:
    rows, columns = ((Span(0, 0, side),) for side in padded_hw)
    return TilePlan(size_hw, padded_hw, padded_hw, rows, columns)


def infer_tiles(runner: Runner, frame: AnyFrame, plan: TilePlan, buffer: Batch, out: AnyFrame) -> None:
    """Restore `frame`, uint8 or uint16 RGB (H, W, 3), into `out` of the same type, `spec.scale` times as large.

    buffer: float32 (1, 3, *plan.tile_hw), overwritten by every window. Raises DeviceError if the network gives NaN
    or infinity.
    """
    (height, width), scale = plan.size_hw, runner.spec.scale
    for row, column in plan.tiles:
        restored = runner.infer(_cut(frame, plan, row, column, buffer))
        core = _core(restored, row, column, scale)
        check_finite(core, runner.spec)
        begin_y, begin_x = scale * row.begin, scale * column.begin
        end_y, end_x = scale * min(row.end, height), scale * min(column.end, width)
        core_hw = (end_y - begin_y, end_x - begin_x)
        fill_frame(core, Padding(core_hw, core_hw), out[begin_y:end_y, begin_x:end_x])


def infer_fixed(infer: Callable[[Batch], Batch], batch: Batch, spec: ModelSpec) -> Batch:
    """A batch of any size through a network that takes one size only, in tiles; see `plan_fixed_tiles`."""
    (height, width), scale = batch.shape[2:], spec.scale
    plan = plan_fixed_tiles((height, width), spec)
    restored = np.empty((len(batch), 3, scale * height, scale * width), np.float32)
    for row, column in plan.tiles:
        window = batch[:, :, row.start :, column.start :][:, :, : plan.tile_hw[0], : plan.tile_hw[1]]
        missing = [(0, side - found) for side, found in zip(plan.tile_hw, window.shape[2:], strict=True)]
        core = _core(infer(np.pad(window, [(0, 0), (0, 0), *missing], "edge")), row, column, scale)
        _scaled(restored, scale, (row.begin, row.end), (column.begin, column.end))[...] = core
    return restored


def tiling_error_db(runner: Runner, frame: Frame, *, halo: int | None = None) -> float | None:
    """PSNR in dB, before rounding, of tiles against the whole frame at once; inf if they are equal.

    The frame is cut in at least two tiles even if it would fit in one; None if it is too small for two, or if the
    network knows no whole frame, only tiles of one size.
    halo: in pixels; default `halo_of` the model.
    """
    spec = runner.spec
    if spec.fixed_hw is not None:
        return None
    padding = Padding.to_multiple((frame.shape[0], frame.shape[1]), spec.multiple_of)
    halo = halo_of(spec) if halo is None else halo
    try:
        plan = plan_tiles(
            padding.size_hw,
            multiple_of=spec.multiple_of,
            halo=halo,
            max_pixels=math.prod(padding.padded_hw) - 1,
        )
    except ValueError:  # two tiles would each be as large as the frame
        return None
    whole = runner.infer(batch_from_frame(frame, padding)).copy()
    buffer = np.empty((1, 3, *plan.tile_hw), np.float32)
    squares = 0.0
    for row, column in plan.tiles:
        core = _core(runner.infer(_cut(frame, plan, row, column, buffer)), row, column, spec.scale)
        difference = core - _scaled(whole, spec.scale, (row.begin, row.end), (column.begin, column.end))
        squares += float(np.sum(np.square(difference, dtype=np.float64)))
    return math.inf if squares == 0 else 10 * math.log10(whole.size / squares)


def _cut(frame: AnyFrame, plan: TilePlan, row: Span, column: Span, buffer: Batch) -> Batch:
    """A window of the padded image as a batch; the padding repeats the image's last row and column."""
    window = frame[row.start : row.start + plan.tile_hw[0], column.start : column.start + plan.tile_hw[1]]
    return batch_from_frame(window, Padding((window.shape[0], window.shape[1]), plan.tile_hw), out=buffer)


def _core(restored: Batch, row: Span, column: Span, scale: int) -> Batch:
    rows, columns = ((span.begin - span.start, span.end - span.start) for span in (row, column))
    return _scaled(restored, scale, rows, columns)


def _scaled(batch: Batch, scale: int, rows: tuple[int, int], columns: tuple[int, int]) -> Batch:
    """A part of an output, its ends in pixels of the input."""
    return batch[:, :, scale * rows[0] : scale * rows[1], scale * columns[0] : scale * columns[1]]


def _fixed_spans(length: int, side: int, halo: int) -> tuple[Span, ...]:
    """Windows of `side` that cover `length` and overlap by two halos at least."""
    if length <= side:
        return (Span(0, 0, length),)
    count = -(-(length - 2 * halo) // (side - 2 * halo))
    return _spans_at([i * (length - side) // (count - 1) for i in range(count)], length, side)


def _aligned_spans(length: int, side: int, halo: int, multiple_of: int) -> tuple[Span, ...]:
    """As `_fixed_spans`, beginning at multiples; all arguments are multiples themselves."""
    if length == side:
        return (Span(0, 0, length),)
    count = -(-(length - 2 * halo) // (side - 2 * halo))
    starts = [i * (length - side) // (count - 1) // multiple_of * multiple_of for i in range(count)]
    return _spans_at(starts, length, side)


def _window(length: int, count: int, halo: int, multiple_of: int) -> int:
    """The side of `count` windows that cover `length`: cores of one size and a halo on both sides of each."""
    if count == 1:
        return length
    return _up(-(-(length - 2 * halo) // count), multiple_of) + 2 * halo


def _most(length: int, halo: int, multiple_of: int) -> int:
    """The most windows that make sense: with one more, a core would be less than a step."""
    return max((length - 2 * halo) // multiple_of, 1)


def _fewest(length: int, max_side: int, halo: int, multiple_of: int) -> int | None:
    """The fewest windows of at most `max_side` that cover `length`; None if there is no such number."""
    if length <= max_side:
        return 1
    core = max_side // multiple_of * multiple_of - 2 * halo
    return -(-(length - 2 * halo) // core) if core > 0 else None


def _spans(length: int, count: int, halo: int, multiple_of: int) -> tuple[Span, ...]:
    """Windows at equal distances, the first and the last at the ends."""
    window = _window(length, count, halo, multiple_of)
    steps = max(count - 1, 1)
    starts = [i * (length - window) // steps // multiple_of * multiple_of for i in range(count)]
    return _spans_at(starts, length, window)


def _spans_at(starts: Sequence[int], length: int, window: int) -> tuple[Span, ...]:
    """Cores meet in the middle of each overlap."""
    meets = [(left + window + right) // 2 for left, right in pairwise(starts)]
    edges = [0, *meets, length]
    return tuple(Span(start, edges[i], edges[i + 1]) for i, start in enumerate(starts))


def _up(value: int, multiple_of: int) -> int:
    return -(-value // multiple_of) * multiple_of
