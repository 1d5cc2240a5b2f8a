"""Images as people store them (uint8 HWC), batches (float32 NCHW, RGB in [0, 1]) and the values a network takes."""

import weakref
from collections import deque
from dataclasses import dataclass
from math import prod
from typing import TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.spec import ModelSpec

Frame = NDArray[np.uint8]
AnyFrame = NDArray[np.uint8] | NDArray[np.uint16]
"""A frame of 8 bits a channel, or of 16 where the file has more than 8."""
AnyFrameT = TypeVar("AnyFrameT", bound=AnyFrame)
Batch = NDArray[np.float32]


@dataclass(frozen=True)
class Padding:
    """Pixels added at the bottom and the right of an image of `size_hw` to make it fit a network."""

    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]

    @classmethod
    def to_multiple(cls, size_hw: tuple[int, int], multiple_of: int) -> "Padding":
        """The smallest padding that makes both sides multiples of `multiple_of`."""
        height, width = size_hw
        padded_hw = (-(-height // multiple_of) * multiple_of, -(-width // multiple_of) * multiple_of)
        return cls(size_hw, padded_hw)

    def scaled(self, scale: int) -> "Padding":
        """That of the restored image."""
        (height, width), (padded_height, padded_width) = self.size_hw, self.padded_hw
        return Padding((scale * height, scale * width), (scale * padded_height, scale * padded_width))


def check_frame(frame: AnyFrame) -> None:
    """Raise TypeError or ValueError unless `frame` is uint8 or uint16 (H, W, 3) with at least one pixel."""
    if not isinstance(frame, np.ndarray) or frame.dtype not in (np.uint8, np.uint16):
        found = getattr(frame, "dtype", type(frame).__name__)
        raise TypeError(f"a frame is a uint8 or uint16 array, got {found}")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"a frame has the shape (H, W, 3) with H, W >= 1, got {frame.shape}")


def white_of(frame: AnyFrame) -> int:
    """The level of white: 255 of uint8, 65535 of uint16."""
    return int(np.iinfo(frame.dtype).max)


def eight_bits(levels: AnyFrame) -> Frame:
    """uint8 or uint16 levels as uint8, rounded."""
    if levels.dtype == np.uint8:
        return cast(Frame, levels)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def sixteen_bits(levels: AnyFrame) -> NDArray[np.uint16]:
    """uint8 or uint16 levels as uint16."""
    if levels.dtype == np.uint16:
        return cast(NDArray[np.uint16], levels)
    return levels.astype(np.uint16) * np.uint16(257)


def blend(source: AnyFrame, restored: AnyFrame, strength: float) -> None:
    """Move `restored` back towards `source`, in place: all the way at strength 0, not at all at 1."""
    if strength < 1:
        mixed = source + np.float32(strength) * (restored.astype(np.float32) - source)
        restored[...] = np.rint(mixed)


def batch_from_frame(frame: AnyFrame, padding: Padding, out: Batch | None = None) -> Batch:
    """uint8 or uint16 RGB (H, W, 3) -> float32 (1, 3, H', W') in [0, 1], edge pixels repeated into the padding.

    out: a buffer of the padded shape to fill instead of allocating one.
    """
    height, width = padding.size_hw
    if out is None:
        out = np.empty((1, 3, *padding.padded_hw), np.float32)
    np.multiply(frame.transpose(2, 0, 1), np.float32(1 / white_of(frame)), out=out[0, :, :height, :width])
    out[0, :, :height, width:] = out[0, :, :height, width - 1 : width]
    out[0, :, height:, :] = out[0, :, height - 1 : height, :]
    return out


def frame_from_batch(batch: Batch, padding: Padding, out: Frame | None = None) -> Frame:
    """float32 (1, 3, H', W') -> uint8 RGB (H, W, 3): clipped to [0, 1], rounded, the padding cut off.

    The batch is used as scratch space and holds no image afterwards.
    """
    if out is None:
        out = np.empty((*padding.size_hw, 3), np.uint8)
    fill_frame(batch, padding, out)
    return out


def fill_frame(batch: Batch, padding: Padding, out: AnyFrame) -> None:
    """As `frame_from_batch`, into an array of uint8 or uint16."""
    height, width = padding.size_hw
    white = np.float32(white_of(out))
    levels = batch[0, :, :height, :width]
    np.multiply(levels, white, out=levels)
    np.rint(levels, out=levels)
    np.clip(levels, 0, white, out=levels)
    out[...] = levels.transpose(1, 2, 0)


def cell_means(batch: Batch, scale: int) -> Batch:
    """(N, C, H, W) at 1/scale of the size: what a network that enlarges images made, beside what it was given."""
    if scale == 1:
        return batch
    count, channels, height, width = batch.shape
    cells = batch.reshape(count, channels, height // scale, scale, width // scale, scale)
    return np.asarray(cells.mean(axis=(3, 5), dtype=np.float64), np.float32)


def check_finite(values: NDArray[np.floating], spec: ModelSpec) -> None:
    """Raise DeviceError if a network gave NaN or infinity. Values in [0, 1] cannot add up to infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = bool(np.isfinite(values.sum()))
    if not finite:
        raise not_finite(spec)


def not_finite(spec: ModelSpec) -> DeviceError:
    """The error of a network that gave NaN or infinity."""
    return DeviceError(f"'{spec.preset}' gave NaN or infinity; try --precision fp32, or check its --value-range")


class NetworkValues:
    """RGB in [0, 1] <-> the values of one network: its range, mean and std, order of channels, kind of output.

    gain, offset: per channel in the network's order; it takes `gain * value + offset`, each step in float32.
    """

    def __init__(self, spec: ModelSpec) -> None:
        low, high = spec.value_range
        self.is_identity = (low, high, spec.colour, spec.output) == (0.0, 1.0, "RGB", "image") and (
            set(spec.mean) == {0.0} and set(spec.std) == {1.0}
        )
        self.swaps = spec.colour == "BGR"
        self.is_residual = spec.output == "residual"
        self._is_grey = spec.colour == "grey"
        self.gain = tuple((high - low) / std for std in spec.std)
        self.offset = tuple((low - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True))
        self.inverse_gain = tuple(1 / gain for gain in self.gain)
        self.inverse_offset = tuple(
            0.0 if self.is_residual else -offset / gain for gain, offset in zip(self.gain, self.offset, strict=True)
        )

    def from_rgb(self, batch: Batch, out: NDArray[np.floating]) -> None:
        """(N, 3, H, W) in [0, 1] -> what the network takes, in `out` of the same shape, float32 or float16."""
        for channel, source in enumerate(self._order):
            values = batch[:, source] * np.float32(self.gain[channel])
            np.add(values, np.float32(self.offset[channel]), out=out[:, channel], casting="same_kind")

    def to_rgb(self, values: NDArray[np.floating], batch: Batch, out: Batch) -> None:
        """What the network gave for `batch` -> RGB, (N, 3, H, W), in `out`, not clipped."""
        for channel, target in enumerate(self._order):
            np.multiply(values[:, channel], np.float32(self.inverse_gain[channel]), out=out[:, target])
            out[:, target] += np.float32(self.inverse_offset[channel])
            if self.is_residual:
                out[:, target] += batch[:, target]

    def taken(self, batch: Batch) -> Batch:
        """What the network takes for RGB (N, 3, H, W) in [0, 1], in a new array of the shape that it takes."""
        values = np.empty(batch.shape, np.float32)
        self.from_rgb(batch, values)
        return self.planes(values)

    def given(self, values: Batch, batch: Batch) -> Batch:
        """What the network gave for `batch` as RGB (N, 3, H, W), in a new array."""
        out = np.empty((len(batch), 3, *values.shape[2:]), np.float32)
        self.to_rgb(values.reshape(out.shape), batch, out)
        return out

    def planes(self, values: Batch) -> Batch:
        """A view of (N, 3, H, W) in the shape that the network takes: one plane after the other if it is grey."""
        return values.reshape(-1, 1, *values.shape[2:]) if self._is_grey else values

    @property
    def _order(self) -> tuple[int, int, int]:
        return (2, 1, 0) if self.swaps else (0, 1, 2)


class FramePool:
    """Hands out frames and gets each back by itself once nobody refers to it or to a view of it any more.

    Nobody has to know who is the last to hold a frame: the queue it was dropped from, a slow sink, a web page.
    May be used from several threads.
    """

    def __init__(self, keep: int = 8) -> None:
        """keep: most buffers that wait to be used again; further ones are freed."""
        self._free: deque[bytearray] = deque(maxlen=keep)

    @overload
    def take(self, shape: tuple[int, ...]) -> Frame: ...
    @overload
    def take(self, shape: tuple[int, ...], like: AnyFrameT) -> AnyFrameT: ...
    def take(self, shape: tuple[int, ...], like: AnyFrame | None = None) -> AnyFrame:
        """An array of that shape with undefined contents, uint8 or of the type of `like`."""
        kind = np.dtype(np.uint8) if like is None else like.dtype
        memory = self._memory(kind.itemsize * prod(shape))
        # Views of `owner` keep it alive, whatever is sliced from them; when it goes, its memory is free again. A
        # deque is appended to without a lock, which a finalizer must not wait for: it runs at any moment.
        owner = cast(AnyFrame, np.frombuffer(memory, kind))
        weakref.finalize(owner, self._free.append, memory)
        return owner.reshape(shape)

    def _memory(self, size: int) -> bytearray:
        """A free buffer of exactly `size` bytes, or a new one; those of a size no longer asked for are let go."""
        while True:
            try:
                memory = self._free.popleft()
            except IndexError:
                return bytearray(size)
            if len(memory) == size:
                return memory
