"""uint8 pictures to float batches and back: nothing is lost, whatever the size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unblur.runtime.frames import Frame, Padding, batch_from_frame, check_frame, frame_from_batch

FRAMES = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda hw: arrays(np.uint8, (*hw, 3)))


@given(frame=FRAMES, multiple_of=st.integers(1, 32))
@settings(max_examples=60, deadline=None)
def test_there_and_back_is_exact_for_any_size(frame: Frame, multiple_of: int) -> None:
    padding = Padding.to_multiple(frame.shape[:2], multiple_of)
    batch = batch_from_frame(frame, padding)
    assert batch.shape[2] % multiple_of == batch.shape[3] % multiple_of == 0
    np.testing.assert_array_equal(frame_from_batch(batch, padding), frame)


def test_all_levels_survive_and_lie_in_the_unit_range() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    padding = Padding.to_multiple((16, 16), 16)
    batch = batch_from_frame(levels, padding)
    assert (float(batch.min()), float(batch.max())) == (0.0, pytest.approx(1.0, abs=1e-6))
    np.testing.assert_array_equal(frame_from_batch(batch, padding), levels)


@pytest.mark.parametrize(
    ("size_hw", "padded_hw"), [((64, 96), (64, 96)), ((65, 96), (80, 96)), ((1, 1), (16, 16)), ((16, 17), (16, 32))]
)
def test_padding_is_the_smallest(size_hw: tuple[int, int], padded_hw: tuple[int, int]) -> None:
    assert Padding.to_multiple(size_hw, 16).padded_hw == padded_hw


def test_padding_repeats_the_edge(frame: Frame) -> None:
    cut = frame[:50, :70]
    batch = batch_from_frame(cut, Padding.to_multiple((50, 70), 64))
    np.testing.assert_array_equal(batch[0, :, 50:, :70], np.repeat(batch[0, :, 49:50, :70], 14, axis=1))
    np.testing.assert_array_equal(batch[0, :, :, 70:], np.repeat(batch[0, :, :, 69:70], 58, axis=2))


def test_channels_keep_their_order() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    batch = batch_from_frame(red, Padding.to_multiple((4, 4), 4))
    assert batch[0].mean(axis=(1, 2)).tolist() == pytest.approx([1, 0, 0])


def test_values_outside_the_range_are_clipped_and_others_rounded() -> None:
    batch = np.array([-0.5, 1.5, 100.4 / 255, 100.6 / 255], np.float32).reshape(1, 1, 2, 2).repeat(3, axis=1)
    restored = frame_from_batch(batch, Padding.to_multiple((2, 2), 2))
    assert restored[..., 0].ravel().tolist() == [0, 255, 100, 101]


def test_given_buffers_are_filled(frame: Frame) -> None:
    padding = Padding.to_multiple((64, 96), 64)
    batch = np.full((1, 3, 64, 128), np.nan, np.float32)
    out = np.empty_like(frame)
    assert batch_from_frame(frame, padding, out=batch) is batch
    assert not np.isnan(batch).any()
    assert frame_from_batch(batch, padding, out=out) is out
    np.testing.assert_array_equal(out, frame)


def test_a_view_is_read_as_it_is_seen(frame: Frame) -> None:
    turned = np.rot90(frame)[:, ::-1]
    padding = Padding.to_multiple((96, 64), 32)
    np.testing.assert_array_equal(frame_from_batch(batch_from_frame(turned, padding), padding), turned)


def test_another_type_is_refused(frame: Frame) -> None:
    with pytest.raises(TypeError, match="a frame is a uint8 or uint16 array, got float32"):
        check_frame(frame.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a frame is a uint8 or uint16 array, got list"):
        check_frame([[1, 2, 3]])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 4), (0, 96, 3), (1, 64, 96, 3)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a frame has the shape \(H, W, 3\) with H, W >= 1, got \("):
        check_frame(np.zeros(shape, np.uint8))
