"""Tiles cover every pixel once, keep the halo, and give what the whole picture gives."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unblur.runtime.frames import Frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.tiles import (
    DEFAULT_HALO,
    Span,
    affordable_halo_of,
    halo_of,
    infer_tiles,
    max_pixels_of,
    plan_tiles,
    tiling_error_db,
)
from unblur.runtime.runner import Runner
from unblur.runtime.spec import ModelSpec


def check_spans(spans: tuple[Span, ...], length: int, window: int, halo: int, multiple_of: int) -> None:
    assert [span.begin for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert (spans[0].begin, spans[-1].end) == (0, length)
    for span in spans:
        assert span.start % multiple_of == 0
        assert 0 <= span.start <= length - window
        assert span.begin == 0 or span.begin - span.start >= halo
        assert span.end == length or span.start + window - span.end >= halo


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.sampled_from([1, 4, 16, 32]),
    st.integers(0, 450),
    st.integers(1, 1 << 23),
)
def test_cores_partition_the_picture_and_keep_the_halo(
    size_hw: tuple[int, int], multiple_of: int, halo: int, max_pixels: int
) -> None:
    try:
        plan = plan_tiles(size_hw, multiple_of=multiple_of, halo=halo, max_pixels=max_pixels)
    except ValueError:
        assume(False)
    assert math.prod(plan.tile_hw) <= max_pixels
    assert plan.tile_hw[0] % multiple_of == plan.tile_hw[1] % multiple_of == 0
    for spans, length, window in zip((plan.rows, plan.columns), plan.padded_hw, plan.tile_hw, strict=True):
        check_spans(spans, length, window, halo, multiple_of)


def test_no_tiles_are_refused_that_would_fit() -> None:
    smallest = (2 * 400 + 16) ** 2
    assert plan_tiles((4320, 7680), multiple_of=16, halo=400, max_pixels=smallest).count > 100
    with pytest.raises(ValueError, match=f"cannot hold a halo of 400; at least {smallest} are needed"):
        plan_tiles((4320, 7680), multiple_of=16, halo=400, max_pixels=smallest - 1)


@pytest.mark.parametrize(
    ("size_hw", "count", "overhead"), [((1080, 1920), 1, 1.0), ((2160, 3840), 1, 1.0), ((4320, 7680), 8, 1.9)]
)
def test_the_waste_of_a_wide_halo_is_bounded(size_hw: tuple[int, int], count: int, overhead: float) -> None:
    plan = plan_tiles(size_hw, multiple_of=16, halo=608, max_pixels=8 << 20)
    assert plan.count == count
    assert plan.overhead <= overhead


@pytest.mark.parametrize(("options", "pixels"), [({}, 3 << 19), ({"grid": 2}, 6 << 20), ({"grid": 4}, 8 << 20)])
def test_networks_on_a_grid_see_larger_tiles(
    fake_runner: Callable[..., Runner], options: dict[str, int], pixels: int
) -> None:
    assert max_pixels_of(fake_runner(lambda batch: batch, options=options).spec) == pixels


@pytest.mark.parametrize(("radius", "halo"), [(0, 256), (320, 320), (430, 432), (440, 256), (1374, 256)])
def test_an_exact_halo_must_leave_half_of_a_tile(radius: int, halo: int) -> None:
    spec = ModelSpec("srn", "srn", 1, multiple_of=16, receptive_field=radius, pooling="none")
    assert affordable_halo_of(spec) == halo
    plan = plan_tiles((2160, 3840), multiple_of=16, halo=halo, max_pixels=max_pixels_of(spec))
    assert plan.overhead < 6


def run_tiled(runner: Runner, frame: Frame, max_pixels: int) -> tuple[Frame, int]:
    spec = runner.spec
    plan = plan_tiles(
        (frame.shape[0], frame.shape[1]),
        multiple_of=spec.multiple_of,
        halo=halo_of(spec),
        max_pixels=max_pixels,
    )
    out = np.zeros_like(frame)
    infer_tiles(runner, frame, plan, np.empty((1, 3, *plan.tile_hw), np.float32), out)
    return out, plan.count


@pytest.mark.parametrize(
    ("size_hw", "max_pixels"),
    [((160, 240), 112**2), ((161, 239), 112**2), ((145, 145), 112**2), ((17, 300), 32 * 112), ((300, 5), 16 * 112)],
)
def test_tiles_equal_the_whole_picture(
    tiny_onnx: Path, make_frame: Callable[..., Frame], size_hw: tuple[int, int], max_pixels: int
) -> None:
    frame = make_frame(*size_hw)
    with OnnxRunner(tiny_onnx) as runner:
        whole, one = run_tiled(runner, frame, 1 << 30)
        tiled, several = run_tiled(runner, frame, max_pixels)
        error_db = tiling_error_db(runner, frame)
    assert error_db is not None
    assert error_db >= 100
    assert one == 1
    assert several > 1
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # a value on the border of two levels may round either way
    assert np.mean(whole != tiled) < 1e-3


def test_too_narrow_a_halo_shows(tiny_onnx: Path, make_frame: Callable[..., Frame]) -> None:
    with OnnxRunner(tiny_onnx) as runner:
        error_db = tiling_error_db(runner, make_frame(160, 240), halo=0)
    assert error_db is not None
    assert error_db < 60


def test_global_pooling_is_not_exact_and_the_error_is_told(
    make_onnx: Callable[..., Path], make_frame: Callable[..., Frame]
) -> None:
    frame = make_frame(160, 240)
    frame[:, :60] //= 8
    with OnnxRunner(make_onnx(pooling="global")) as runner:
        assert halo_of(runner.spec) == DEFAULT_HALO
        error_db = tiling_error_db(runner, frame, halo=32)
    assert error_db is not None
    assert 20 < error_db < 70


def test_a_frame_too_small_to_cut_has_no_error(tiny_onnx: Path, frame: Frame) -> None:
    with OnnxRunner(tiny_onnx) as runner:
        assert tiling_error_db(runner, frame[:16, :16]) is None
