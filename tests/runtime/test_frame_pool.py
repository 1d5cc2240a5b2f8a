"""Frames come back when nobody holds them, and not before."""

import tracemalloc

import numpy as np

from unblur.runtime.frames import FramePool

SHAPE = (64, 96, 3)


def address(frame: np.ndarray) -> int:
    return int(frame.ctypes.data)


def test_a_frame_nobody_holds_is_used_again() -> None:
    pool = FramePool()
    frame = pool.take(SHAPE)
    where = address(frame)
    del frame
    assert address(pool.take(SHAPE)) == where


def test_a_view_keeps_its_frame() -> None:
    pool = FramePool()
    frame = pool.take(SHAPE)
    frame[...] = 7
    view = frame[::-1, :, :1].transpose(2, 0, 1)
    del frame
    pool.take(SHAPE)[...] = 9
    assert (view == 7).all()


def test_another_size_gets_its_own_memory() -> None:
    pool = FramePool()
    del_me = pool.take(SHAPE)
    del del_me
    assert pool.take((32, 32, 3)).shape == (32, 32, 3)


def test_no_more_is_kept_than_asked_for() -> None:
    pool = FramePool(keep=2)
    frames = [pool.take((1000, 1000, 3)) for _ in range(6)]
    tracemalloc.start()
    try:
        frames.clear()
        frames.extend(pool.take((1000, 1000, 3)) for _ in range(6))
        assert tracemalloc.get_traced_memory()[0] > 3.9 * 3_000_000  # four of the six are new
    finally:
        tracemalloc.stop()


def test_a_steady_stream_allocates_nothing_of_frame_size() -> None:
    pool = FramePool()
    held = [pool.take((720, 1280, 3)) for _ in range(3)]
    tracemalloc.start()
    try:
        for _ in range(50):
            held = [*held[1:], pool.take((720, 1280, 3))]
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # the fourth buffer, that the rotation needs
    finally:
        tracemalloc.stop()
