"""YUV <-> RGB with the matrix and the range that a video is tagged with.

Decoding with one matrix and encoding with another shifts every colour, and swscale's fast paths darken an image
by one level per round trip; both are avoided here. Numbers are those of ITU-T H.273, as FFmpeg uses them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import AnyFrame, Frame
from unblur.runtime.yuv import YuvFrame

Chroma = Literal["420", "422", "444"]

_RGB_MATRIX = 0
_CHROMA: Mapping[tuple[int, int], Chroma] = {(2, 2): "420", (1, 1): "420", (2, 4): "422", (1, 4): "422"}
_UNSPECIFIED = 2
PQ, HLG = 16, 18  # H.273 transfer characteristics
_LIMITED, _FULL = 1, 2

# H.273 matrix -> swscale's name for it. An untagged video is read as BT.601, as FFmpeg does; it stays untagged
# in the output, so that a player which guesses otherwise guesses the same for both.
_SWSCALE_MATRIX = {1: 1, _UNSPECIFIED: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}

# SWS_BILINEAR | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND: measured on a 720p photograph, YUV 4:2:0 and back costs
# 50.5 dB and no shift of the mean, against 45.8 dB and one level of darkening with swscale's defaults.
_INTERPOLATION = 0x2 | 0x2000 | 0x40000


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video: H.273 code points, and AVColorRange (0 untagged, 1 limited, 2 full)."""

    matrix: int
    range: int
    primaries: int
    transfer: int

    @property
    def swscale_range(self) -> int:
        return _FULL if self.range == _FULL else _LIMITED

    @property
    def is_hdr(self) -> bool:
        """Perceptual quantiser (SMPTE ST 2084) or hybrid log-gamma (ARIB STD-B67)."""
        return self.transfer in (PQ, HLG)


REC709 = Colour(matrix=1, range=_LIMITED, primaries=1, transfer=1)


def colour_of(context: VideoCodecContext, where: str) -> Colour:
    """The tags of an open decoder; an RGB stream gets those it has once it is YUV.

    Raises BadInput, naming the file `where`, for a matrix that we cannot convert from.
    """
    if context.colorspace == _RGB_MATRIX:
        return dataclasses.replace(REC709, primaries=context.color_primaries, transfer=context.color_trc)
    if context.colorspace not in _SWSCALE_MATRIX:
        raise BadInput(
            f"{where} has the colour matrix {context.colorspace} (H.273), expected RGB, BT.601, BT.709 or BT.2020; "
            "convert it first"
        )
    return Colour(context.colorspace, context.color_range, context.color_primaries, context.color_trc)


def bits_of(pixel_format: VideoFormat) -> int:
    """Bits of its deepest component."""
    return max((component.bits for component in pixel_format.components), default=8)


def chroma_of(pixel_format: VideoFormat) -> Chroma:
    """The coarsest of 4:2:0, 4:2:2 and 4:4:4 that keeps all the chroma samples of this format."""
    if len(pixel_format.components) == 1 and not pixel_format.has_palette:
        return "420"
    samples_of_4x4 = (pixel_format.chroma_width(4), pixel_format.chroma_height(4))
    return _CHROMA.get(samples_of_4x4, "444")


class ColourConverter:
    """Converts frames of one stream; keeps swscale's tables from frame to frame. One owner thread.

    Matrix and range of both sides are always named: PyAV before 17 ignores them where they are equal. PyAV 16.0,
    17.0 and 18.1 differ in this, and give the same here.
    """

    def __init__(self, colour: Colour) -> None:
        self._matrix = _SWSCALE_MATRIX[colour.matrix]
        self._range = colour.swscale_range
        self._reformatter = VideoReformatter()

    def rgb_from(self, frame: VideoFrame) -> Frame:
        """A decoded frame as a new uint8 RGB array (H, W, 3)."""
        return np.asarray(self._to_rgb(frame).to_ndarray(), np.uint8)

    def deep_rgb_from(self, frame: VideoFrame) -> NDArray[np.uint16]:
        """A decoded frame as a new uint16 RGB array (H, W, 3)."""
        return np.asarray(self._to_rgb(frame, "rgb48le").to_ndarray(), np.uint16)

    def rgb_into(self, frame: VideoFrame, out: Frame) -> None:
        """Fill `out`, uint8 RGB (H, W, 3) of the frame's size, with a decoded frame."""
        plane = self._to_rgb(frame).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(
            plane.height, plane.line_size
        )  # padded on the right
        np.copyto(out, rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3))

    def _to_rgb(self, frame: VideoFrame, pixel_format: str = "rgb24") -> VideoFrame:
        full = frame.format.is_rgb or frame.format.name.startswith("yuvj")
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            src_colorspace=self._matrix,
            src_color_range=_FULL if full else self._range,
            dst_colorspace=_RGB_MATRIX,
            dst_color_range=_FULL,
            interpolation=_INTERPOLATION,
        )

    def yuv_from(self, rgb: AnyFrame, pixel_format: str) -> VideoFrame:
        """uint8 or uint16 RGB (H, W, 3) as a frame that an encoder takes; `rgb` is copied."""
        whole = cast(AnyFrame, np.ascontiguousarray(rgb))
        if rgb.dtype == np.uint8:
            source = VideoFrame.from_numpy_buffer(whole, "rgb24")
        else:
            source = VideoFrame.from_ndarray(whole, "rgb48le")
        source.colorspace = self._matrix  # PyAV 17.0 passes BT.2020 on from here only
        return self._reformatter.reformat(
            source,
            format=pixel_format,
            src_colorspace=_RGB_MATRIX,
            src_color_range=_FULL,
            dst_colorspace=self._matrix,
            dst_color_range=self._range,
            interpolation=_INTERPOLATION,
        )


def rgb_from_yuv(frame: YuvFrame) -> Frame:
    """A camera's frame as uint8 RGB (H, W, 3), on the CPU."""
    height, width = frame.layout.size_hw
    image = VideoFrame(width, height, "yuv420p")
    for plane, samples in zip(image.planes, frame.planes(), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : samples.shape[1]] = samples
    matrix = 1 if frame.layout.matrix == "709" else 5
    tags = dataclasses.replace(REC709, matrix=matrix, range=_FULL if frame.layout.full_range else _LIMITED)
    return ColourConverter(tags).rgb_from(image)


_WHITE_NITS = 203  # of HDR reference white, ITU-R BT.2408
_HLG_PEAK_NITS = 1000
_REC709_FROM_2020 = np.array(  # of linear light, ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_REC2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_KNEE = 0.75  # of SDR white: below it light is kept, above it is compressed
_BT1886 = 1 / 2.4


class HdrToSdr:
    """BT.2100 video (PQ or HLG) as BT.709, 8 bits: reference white stays near white, highlights are rolled off."""

    def __init__(self, colour: Colour) -> None:
        signal = np.linspace(0, 1, 1 << 16, dtype=np.float64)
        self._is_hlg = colour.transfer == HLG
        self._linear = (_hlg_light(signal) if self._is_hlg else _pq_light(signal)).astype(np.float32)
        self._is_wide = colour.primaries == 9
        self._gamma = np.rint(255 * signal**_BT1886).astype(np.uint8)

    def __call__(self, rgb: NDArray[np.uint16]) -> Frame:
        """uint16 RGB (H, W, 3), as coded -> uint8 RGB."""
        light = self._linear[rgb]  # 1 is reference white
        if self._is_hlg:  # what was before the camera -> what a display of 1000 nits shows, BT.2100
            luma = np.maximum(light @ _REC2020_LUMA, 1e-6)
            light *= (luma**0.2)[..., None] * np.float32(_HLG_PEAK_NITS / _WHITE_NITS)
        if self._is_wide:
            light = np.maximum(light @ _REC709_FROM_2020.T, 0)
        peak = light.max(axis=2, keepdims=True)
        above = np.maximum(peak - _KNEE, 0) / (1 - _KNEE)
        shown = np.minimum(peak, _KNEE) + (1 - _KNEE) * above / (1 + above)
        light *= shown / np.maximum(peak, 1e-6)  # all channels alike: hues stay
        return self._gamma[np.rint(light * 65_535).astype(np.uint16)]


def _pq_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084, 5.1: a coded value in [0, 1] as light, 1 for reference white."""
    m1, m2, c1, c2, c3 = 2610 / 16_384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10_000 / _WHITE_NITS * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """BT.2100, inverse of the OETF: a coded value in [0, 1] as scene light in [0, 1]."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
