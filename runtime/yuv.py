"""Images as cameras give them, YUV 4:2:0 in 1.5 bytes a pixel, and what they are in RGB.

A runner on a GPU takes them as they are and converts them there: `batch_from_yuv` is the arithmetic of its kernel.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Batch, Frame, Padding, frame_from_batch

YuvFormat = Literal["NV12", "I420"]
Matrix = Literal["601", "709"]

_KR_KB = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}  # ITU-R BT.601, BT.709


@dataclass(frozen=True)
class YuvLayout:
    """Where the samples of an image lie, and what they mean.

    size_hw: of the image in pixels. stride, chroma_stride: bytes of a row of luma and of chroma. u, v: the bytes at
    which each begins. chroma_step: from one sample to the next, 2 where U and V take turns (NV12). full_range: 0 to
    255, otherwise 16 to 235 (luma) and 240 (chroma).
    """

    size_hw: tuple[int, int]
    stride: int
    chroma_stride: int
    u: int
    v: int
    chroma_step: int
    matrix: Matrix = "709"
    full_range: bool = False

    @classmethod
    def of(
        cls, pixels: YuvFormat, size_hw: tuple[int, int], matrix: Matrix = "709", *, full_range: bool = False
    ) -> "YuvLayout":
        """As GStreamer lays images out: rows of luma in multiples of 4 bytes, an even number of them."""
        height, width = size_hw
        stride, rows = _up(width, 4), _up(height, 2)
        if pixels == "NV12":
            return cls(size_hw, stride, stride, stride * rows, stride * rows + 1, 2, matrix, full_range)
        chroma_stride, u = _up(-(-width // 2), 4), stride * rows
        return cls(size_hw, stride, chroma_stride, u, u + chroma_stride * rows // 2, 1, matrix, full_range)

    @property
    def nbytes(self) -> int:
        """Of the whole image."""
        rows = -(-self.size_hw[0] // 2)
        return (min(self.u, self.v) if self.chroma_step == 2 else max(self.u, self.v)) + rows * self.chroma_stride

    @property
    def coefficients(self) -> tuple[float, float, float, float, float, float, float, float]:
        """Gain and offset of luma and of 8 times the chroma; red of V, green of U and of V, blue of U."""
        kr, kb = _KR_KB[self.matrix]
        black, luma, chroma = (0.0, 255.0, 255.0) if self.full_range else (16.0, 219.0, 224.0)
        green = 2 / (1 - kr - kb)
        to_rgb = (2 * (1 - kr), -green * kb * (1 - kb), -green * kr * (1 - kr), 2 * (1 - kb))
        return (1 / luma, -black / luma, 1 / (8 * chroma), -128 / chroma, *to_rgb)


@dataclass(frozen=True)
class YuvFrame:
    """An image. data: uint8 (layout.nbytes,)."""

    data: NDArray[np.uint8]
    layout: YuvLayout

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the image in RGB."""
        return (*self.layout.size_hw, 3)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What belongs to the image of `data`."""
        return self.data[: self.layout.nbytes]

    def rgb(self) -> Frame:
        """uint8 RGB (H, W, 3), by the arithmetic of the kernel; `colour.rgb_from_yuv` is faster."""
        whole = Padding(self.layout.size_hw, self.layout.size_hw)
        return frame_from_batch(batch_from_yuv(self, whole), whole)

    def planes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Views of luma (H, W) and of U and V, half as high and as wide, rounded up."""
        layout, (height, width) = self.layout, self.layout.size_hw
        luma = self._rows(0, layout.stride, height)[:, :width]
        u, v = (
            self._rows(begin, layout.chroma_stride, -(-height // 2))[:, :: layout.chroma_step][:, : -(-width // 2)]
            for begin in (layout.u, layout.v)
        )
        return luma, u, v

    def _rows(self, begin: int, stride: int, rows: int) -> NDArray[np.uint8]:
        """The last row may end early: V of NV12 begins a byte late."""
        return np.lib.stride_tricks.as_strided(
            self.data[begin:],
            (rows, stride - begin % 2 * (self.layout.chroma_step - 1)),
            (stride, 1),
            writeable=False,
        )


def batch_from_yuv(frame: YuvFrame, padding: Padding) -> Batch:
    """-> float32 (1, 3, H', W') in [0, 1], RGB, edge pixels repeated into the padding; every step in float32.

    Chroma lies beside the even columns and between two rows of luma (MPEG-2's siting), and is interpolated
    linearly, the edges repeated.
    """
    luma, *chroma = frame.planes()
    coefficients = [np.float32(each) for each in frame.layout.coefficients]
    luma_gain, luma_offset, chroma_gain, chroma_offset, red_v, green_u, green_v, blue_u = coefficients
    y = luma * luma_gain + luma_offset
    u, v = (_interpolated(plane, luma.shape) * chroma_gain + chroma_offset for plane in chroma)
    rgb = np.stack([y + red_v * v, (y + green_u * u) + green_v * v, y + blue_u * u])
    grown = [(0, 0), *((0, padded - side) for side, padded in zip(luma.shape, padding.padded_hw, strict=True))]
    return np.pad(np.clip(rgb, np.float32(0), np.float32(1)), grown, mode="edge")[None]


def _interpolated(plane: NDArray[np.uint8], size_hw: tuple[int, ...]) -> NDArray[np.float32]:
    """Eight times the chroma at every pixel, a whole number: 2 + 0 or 1 + 1 across, times 3 + 1 down."""
    row, column = np.arange(size_hw[0]), np.arange(size_hw[1])
    near, other = row // 2, row // 2 + np.where(row % 2, 1, -1)
    left, right = column // 2, column // 2 + column % 2
    rows, columns = plane.shape
    samples = plane.astype(np.int32)
    down = 3 * samples[near] + samples[other.clip(0, rows - 1)]
    across: NDArray[np.int32] = down[:, left] + down[:, right.clip(0, columns - 1)]
    return across.astype(np.float32)


def _up(value: int, multiple_of: int) -> int:
    return -(-value // multiple_of) * multiple_of
